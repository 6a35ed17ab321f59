"""Refine: the third stage, which computes the alpha from the mask."""
