"""Decorator that installs a patch around an original function."""

import inspect
from collections.abc import Callable
from typing import Any

Patch = Callable[..., Any]


def around(owner: Any, name: str) -> Callable[[Patch], Patch]:
    """Replace ``owner.name`` with the decorated function, which gets the original as its first argument.

    Args:
        owner: class or module.
        name: function, method, class method or static method of the owner.
    """

    def install(patch: Patch) -> Patch:
        attribute = inspect.getattr_static(owner, name)
        kind = type(attribute) if isinstance(attribute, classmethod | staticmethod) else None
        original = attribute.__func__ if kind else attribute

        def patched(*args: Any, **kwargs: Any) -> Any:
            return patch(original, *args, **kwargs)

        setattr(owner, name, kind(patched) if kind else patched)
        return patch

    return install
