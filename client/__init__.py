"""The client of a deployed stack, embedded or on AWS: a library, and the command line ``pbr``."""
