"""Tensors that are spread over ranks, in files: each rank writes what it owns and reads its share."""
