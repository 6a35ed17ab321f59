"""One-off investigations whose conclusions are in the docs; run them again when their subject changes."""
