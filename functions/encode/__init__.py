"""Encode: the fourth stage, which produces the result."""
