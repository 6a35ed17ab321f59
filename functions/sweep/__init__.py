"""Sweep: a scheduled function that finds uploads without outcome, and starts them."""
