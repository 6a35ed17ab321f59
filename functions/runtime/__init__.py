"""What the functions share: handlers, configuration, storage, weights and the HTTP client for untrusted URLs."""
