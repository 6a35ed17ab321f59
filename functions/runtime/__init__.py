"""Code shared by the functions: handlers, configuration, storage, weights and the HTTP client for untrusted URLs."""
