"""Digest: a scheduled function that publishes one message about all images that failed since the last one."""
