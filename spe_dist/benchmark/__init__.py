"""How fast the system is on this machine, held against a plain matrix product."""
