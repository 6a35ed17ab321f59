"""Errors, as leaf classes: Step Functions matches the exact class name and never a base class."""

import math
import reprlib
from typing import Any, ClassVar, Final

MAX_SHOWN_CHARS: Final = 300
"""Longest value or field name in an error: the sender chooses both, and may send megabytes."""

_EXACT_IN_JSON: Final = 2**53


class BackgroundRemoverError(Exception):
    """Base of every error of this project.

    Args:
        message: what is wrong; one sentence.
        field: the input at fault, by the name that its sender uses, e.g. ``options.format`` or ``source.key``.
        value: its value; converted to text of at most ``MAX_SHOWN_CHARS`` if it is not a JSON scalar.
        remedy: what the sender can do; one sentence.
    """

    retryable: ClassVar[bool]

    def __init__(self, message: str, *, field: str, value: object, remedy: str) -> None:
        self.message, self.field, self.value, self.remedy = message, _text(field), shown(value), remedy
        super().__init__(f"{message} ({self.field}: {self.value!r}). {remedy}")

    def facts(self) -> dict[str, Any]:
        """Return the error as the JSON object of failure reports."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "field": self.field,
            "value": self.value,
            "remedy": self.remedy,
        }


def shown(value: object) -> int | float | str | None:
    """Return a short JSON scalar that represents a value of any type in an error."""
    if value is None or (isinstance(value, int) and abs(value) <= _EXACT_IN_JSON):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        text = value
    else:
        try:
            text = reprlib.repr(value)
        except ValueError:  # Python converts no number of more than 4,300 digits
            text = f"a very large {type(value).__name__}"
    if len(text) > MAX_SHOWN_CHARS:
        text = text[: MAX_SHOWN_CHARS - 1] + "…"
    return text.encode(errors="replace").decode()  # JSON can contain half of a surrogate pair, UTF-8 cannot


class PermanentError(BackgroundRemoverError):
    """The same input fails again; never retried."""

    retryable = False


class TransientError(BackgroundRemoverError):
    """The same input can succeed later; retried with backoff and jitter."""

    retryable = True


class InvalidRequestError(PermanentError):
    """The execution's input names no image."""


class InvalidOptionsError(PermanentError):
    """An option is unknown or its value is not allowed."""


class SourceNotFoundError(PermanentError):
    """The object, or the version of it that was uploaded, does not exist."""


class SourceChangedError(PermanentError):
    """The object was overwritten before it was read, in a bucket without versioning."""


class EmptyImageError(PermanentError):
    """The file is empty."""


class UnsupportedFormatError(PermanentError):
    """The content is not an image in a supported format."""


class CorruptImageError(PermanentError):
    """The content breaks the rules of its format or ends early."""


class AnimatedImageError(PermanentError):
    """The file holds more than one frame."""


class FileTooLargeError(PermanentError):
    """The file is larger than the limit."""


class TooManyPixelsError(PermanentError):
    """The image has more pixels than the limit, or than the memory of a function allows."""


class ImageTooSmallError(PermanentError):
    """A side of the image is shorter than the limit."""


class DecodingLimitError(PermanentError):
    """Decoding the image takes more time or memory than the limit."""


class UnknownForegroundError(PermanentError):
    """No subject was found."""


class WeightsHashMismatchError(PermanentError):
    """A weight file is not the one that the registry pins."""


class WeightsUnavailableError(TransientError):
    """A model's weights could not be downloaded in time, or cannot be read."""


class GpuUnavailableError(TransientError):
    """A GPU is configured but cannot be used; another host may have one."""


def reason(message: str) -> str:
    """Return a message of pydantic without the prefix that it adds to the text of a ValueError."""
    return message.removeprefix("Value error, ")
