"""The HTTP API as deployed: one embedded cloud for all modules of this package."""
