"""What the commands have in common: parsers, numbers, settings."""
