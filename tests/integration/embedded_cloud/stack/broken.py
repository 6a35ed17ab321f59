"""A function that cannot be initialised."""

import no_such_module  # noqa: F401
