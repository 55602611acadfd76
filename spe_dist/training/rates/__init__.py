"""What learns how fast in each step."""
