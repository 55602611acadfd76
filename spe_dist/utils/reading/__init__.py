"""Reading what others wrote: strict JSON, names that are safe in paths and commands, streams with bounds, checksums."""
