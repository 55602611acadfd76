"""Ranks, launch environments, the DeepSpeed engine and checkpoints."""
