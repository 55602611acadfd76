"""From users' text to predictions."""
