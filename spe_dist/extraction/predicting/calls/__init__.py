"""What the calls of `Extractor` take: inputs and options."""
