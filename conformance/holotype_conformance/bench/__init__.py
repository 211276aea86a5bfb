"""Benchmarks: exact counts, paired timings, comparisons, and the gates that are made of them."""
