"""Formats whose relations hold between concepts, which a text mentions several times."""
