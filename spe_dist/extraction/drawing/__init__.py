"""Sentences, predictions and comparisons as pages."""
