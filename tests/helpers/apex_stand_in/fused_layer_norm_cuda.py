"""The compiled part that apex has where it was built for CUDA."""
