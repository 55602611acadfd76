"""Pre-training: its objectives, step, evaluation, and the run."""
