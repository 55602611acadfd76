"""How the ranks of a launch find each other, and notice that one of them has died."""
