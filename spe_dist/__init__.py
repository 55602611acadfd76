"""SPE-dist: distributed pre-training of the Span and span Pair Encoder (EMNLP 2020)."""

__version__ = "0.1.0"
