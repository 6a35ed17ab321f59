"""Parsed requests, independent of the route they came through."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_MAX_NAME_CHARS: Final = 100


@dataclass(frozen=True)
class ProcessRequest:
    """A request to process an image from the request body or a URL.

    Attributes:
        image: the file's bytes, or its URL.
        options: options other than the defaults, see :class:`core.options.Options`.
        name: the file's name, which the result is named after; None: the name in the URL, if any.
        background: the background image's bytes, or its URL.
        webhook_url: receives the outcome.
    """

    image: bytes | str
    options: Mapping[str, Any]
    name: str | None = None
    background: bytes | str | None = None
    webhook_url: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the image's object key."""
        url = self.image if isinstance(self.image, str) else ""
        return file_name(self.name or unquote(urlsplit(url).path))


@dataclass(frozen=True)
class ObjectRequest:
    """A request to process an object of the uploads bucket."""

    key: str
    version_id: str | None
    options: Mapping[str, Any]
    webhook_url: str | None = None


def file_name(name: str) -> str:
    """Return a file name that is safe in an object key: ASCII, without folders, at most 100 characters.

    >>> file_name("photos/Tasse à café.png")
    'Tasse_caf_.png'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("\\", "/").rpartition("/")[2]).strip("._")
    return safe[-_MAX_NAME_CHARS:] or "image"


def fingerprint(request: ProcessRequest | ObjectRequest) -> str:
    """Return a hash that is equal for equal requests only."""
    fields = {
        name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for name, value in vars(request).items()
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=dict).encode()).hexdigest()
