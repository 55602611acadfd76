"""The command `spe`: one file here for each of its commands, loaded only when it is the one typed."""
