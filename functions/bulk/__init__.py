"""Bulk runs: a function for batches of images, and the functions that prepare a run and sum it up."""
