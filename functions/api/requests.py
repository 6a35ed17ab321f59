"""What a request asks for, whichever dialect it came in."""

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
    """A picture to process.

    Attributes:
        image: the picture's file, or the URL of one.
        options: those of :class:`core.options.Options` that are not to have their defaults.
        name: the file's name, which the result is named after; None: that of the URL, if it is one.
        background: a picture to put the subject on, or the URL of one.
        webhook_url: who is told when the job has ended.
    """

    image: bytes | str
    options: Mapping[str, Any]
    name: str | None = None
    background: bytes | str | None = None
    webhook_url: str | None = None

    @property
    def file_name(self) -> str:
        """What the picture's key ends with."""
        url = self.image if isinstance(self.image, str) else ""
        return file_name(self.name or unquote(urlsplit(url).path))


@dataclass(frozen=True)
class ObjectRequest:
    """A job for an object that lies in the uploads bucket already."""

    key: str
    version_id: str | None
    options: Mapping[str, Any]
    webhook_url: str | None = None


def file_name(name: str) -> str:
    """Return a file's name as a key can end: ASCII, no folders, not too long."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("\\", "/").rpartition("/")[2]).strip("._")
    return safe[-_MAX_NAME_CHARS:] or "image"


def fingerprint(order: ProcessRequest | ObjectRequest) -> str:
    """Return what two orders share exactly if they ask for the same."""
    said = {
        name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for name, value in vars(order).items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=dict).encode()).hexdigest()
