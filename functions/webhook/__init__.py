"""Webhooks: who ordered a job with one is told what became of it."""
