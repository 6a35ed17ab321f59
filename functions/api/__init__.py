"""The HTTP API: its own routes, and compatible routes for clients of remove.bg and of rembg's server."""
