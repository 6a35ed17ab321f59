"""What can go wrong, as leaf classes: Step Functions matches the exact class name and never a base class."""

import math
import reprlib
from typing import Any, ClassVar, Final

MAX_SHOWN_CHARS: Final = 300
"""How much of a value or of a field's name an error repeats: senders choose both, and may choose megabytes."""

_EXACT_IN_JSON: Final = 2**53


class BackgroundRemoverError(Exception):
    """Base of every error of this project; it says what is wrong, where, and what to do about it.

    Args:
        message: what is wrong, one sentence.
        field: the input at fault, as its sender knows it (``options.format``, ``source.key``).
        value: the value it had; kept as it is if JSON has it, else as text, of at most ``MAX_SHOWN_CHARS``.
        remedy: what the sender can do, one sentence.
    """

    retryable: ClassVar[bool]

    def __init__(self, message: str, *, field: str, value: object, remedy: str) -> None:
        self.message, self.field, self.value, self.remedy = message, _text(field), shown(value), remedy
        super().__init__(f"{message} ({self.field}: {self.value!r}). {remedy}")

    def facts(self) -> dict[str, Any]:
        """Return the error as the JSON object that reports and sidecars carry."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "field": self.field,
            "value": self.value,
            "remedy": self.remedy,
        }


def shown(value: object) -> int | float | str | None:
    """Return what stands for a value, whatever it is, in an error: JSON, and short."""
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
        except ValueError:  # Python writes no number of more than 4,300 digits
            text = f"a very large {type(value).__name__}"
    if len(text) > MAX_SHOWN_CHARS:
        text = text[: MAX_SHOWN_CHARS - 1] + "…"
    return text.encode(errors="replace").decode()  # half of a surrogate pair, which JSON can say, is no text


class PermanentError(BackgroundRemoverError):
    """The same input fails again: never retried."""

    retryable = False


class TransientError(BackgroundRemoverError):
    """The same input can succeed later: retried with backoff and jitter."""

    retryable = True


class InvalidRequestError(PermanentError):
    """The execution's input names no picture."""


class InvalidOptionsError(PermanentError):
    """An option is unknown or its value is not allowed."""


class SourceNotFoundError(PermanentError):
    """The object, or the version of it that was uploaded, does not exist (any more)."""


class SourceChangedError(PermanentError):
    """The object was overwritten in a bucket without versions before it was read."""


class EmptyImageError(PermanentError):
    """The file holds no bytes."""


class UnsupportedFormatError(PermanentError):
    """The content is not a picture in a format that can be read."""


class CorruptImageError(PermanentError):
    """The content says which format it is, and then breaks that format's rules or ends early."""


class AnimatedImageError(PermanentError):
    """The file holds more than one frame."""


class FileTooLargeError(PermanentError):
    """The file holds more bytes than the limit."""


class TooManyPixelsError(PermanentError):
    """The picture has more pixels than the limit."""


class ImageTooSmallError(PermanentError):
    """A side of the picture is shorter than the limit."""


class UnknownForegroundError(PermanentError):
    """No subject was found."""


class WeightsHashMismatchError(PermanentError):
    """A weight file is not the one that the registry pins."""


class WeightsUnavailableError(TransientError):
    """A model's weights could not be had within the time allowed."""


class GpuUnavailableError(TransientError):
    """A GPU was promised and cannot be used; another machine may have one."""
