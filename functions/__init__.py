"""The AWS functions. A handler loads its input, makes one call into core, and saves the output."""
