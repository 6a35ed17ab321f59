"""Bulk runs from the command line: find images, upload them, follow the run, and write its results."""
