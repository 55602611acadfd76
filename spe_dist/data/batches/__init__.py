"""From shards to packed, corrupted micro-batches in a fixed order."""
