"""From raw text to words: the one way, for shards and for prediction."""
