"""Nested stacks, and the deployment of the main one."""
