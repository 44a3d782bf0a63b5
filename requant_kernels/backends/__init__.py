"""Backends: each module registers its kernels in a `BACKEND` object, and nothing else."""
