"""The HTTP API: its own routes, and those of remove.bg and rembg."""
