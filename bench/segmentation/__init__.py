"""Benchmark of segmentation against rembg."""
