"""Texts with labelled character spans, as tools of annotation write them: to sentences of words, and back."""
