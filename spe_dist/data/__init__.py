"""Raw text to packed micro-batches: shards, order, corruption. Knows nothing of the model or of collectives."""
