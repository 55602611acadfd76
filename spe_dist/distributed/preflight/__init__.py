"""Whether a run would work here: what the ranks of a launch find out about their nodes, network and disks."""
