"""What each stage of a check does, in a process of its own."""
