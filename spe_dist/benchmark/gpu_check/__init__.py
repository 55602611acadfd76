"""All that a first hour on a GPU must answer, in ten minutes: does it run, is it right, how fast, what limits it."""
