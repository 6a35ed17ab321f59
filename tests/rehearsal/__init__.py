"""Rehearsal of a deployment on the embedded cloud."""
