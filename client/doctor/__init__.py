"""Check a deployed stack, and say what to do about each problem."""
