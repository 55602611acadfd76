"""From words to shards on disk."""
