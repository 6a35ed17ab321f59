"""Decode, convert and encode pictures."""
