"""The stages as they run on AWS. A handler loads, makes one call into core, and saves."""
