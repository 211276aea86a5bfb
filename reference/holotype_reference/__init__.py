"""Readable reference models, built from a spec and nothing else."""
