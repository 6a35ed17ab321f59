"""Segmentation on a SageMaker endpoint."""
