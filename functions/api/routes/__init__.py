"""The routes of the HTTP API: one module each for the API's own routes, remove.bg's and rembg's."""
