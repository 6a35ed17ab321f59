"""Client library for a deployed stack, on AWS or embedded, and the command line ``pbr``."""
