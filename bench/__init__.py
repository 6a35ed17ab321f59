"""Benchmarks of speed, memory, and quality."""
