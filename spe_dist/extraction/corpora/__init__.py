"""Corpora of sentences with entities and relations, and what they hold."""
