"""Stage one: whether this is a request, and a picture, that can be processed."""
