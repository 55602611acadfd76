"""Thresholds of probability: what each does to precision and recall, and which are best on dev."""
