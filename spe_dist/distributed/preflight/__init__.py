"""Whether a run would work here: what the ranks of a launch find out about their nodes, network and disks."""

TIMEOUT_S, FEW_RANKS = 60.0, 64  # seconds in which so many ranks should have finished
RANK_S = 0.25  # more for each further one: tasks start one after the other, and each connects to all others
