"""How a patch is written: a function around the one that it corrects."""

import inspect
from collections.abc import Callable
from typing import Any

Patch = Callable[..., Any]


def around(owner: Any, name: str) -> Callable[[Patch], Patch]:
    """Replace ``owner.name`` by the decorated function, which is handed the original before the arguments.

    Args:
        owner: class or module.
        name: function, method, class method or static method of it.
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
