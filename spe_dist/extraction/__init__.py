"""Joint entity and relation extraction: corpora, joint model, decoding, scores, analysis (METHOD, Fine-tuning)."""
