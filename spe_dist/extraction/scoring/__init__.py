"""Scores, their intervals and paired tests."""
