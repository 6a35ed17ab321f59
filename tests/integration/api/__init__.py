"""The deployed HTTP API. All modules of this package share one embedded cloud."""
