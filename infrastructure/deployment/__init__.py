"""Deployment of stacks: their settings, images, templates, and the commands that deploy them."""
