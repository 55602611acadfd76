"""What is watched while training runs, and what follows where it goes wrong."""
