"""Stands in for NVIDIA's apex where there is no GPU: its names and signatures, computed plainly."""
