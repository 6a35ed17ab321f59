"""The machine as deployed: one embedded cloud for all modules of this package, gone before another one starts."""
