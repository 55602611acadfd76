"""Formats that name entities by their text: where it stands in the sentence is found when they are read."""
