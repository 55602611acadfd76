"""Files, memory, processes and words that every package may use."""
