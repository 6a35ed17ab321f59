"""Stage four: the result as its user asked for it."""
