"""Validate: the first stage, which checks the request and the image."""
