"""Shards of pieces: format, manifest, stores and checks."""
