"""Segmentation, the second stage, on three hosts: Lambda, an ECS worker and a SageMaker endpoint."""
