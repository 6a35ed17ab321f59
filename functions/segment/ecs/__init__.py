"""Segmentation on an ECS worker."""
