"""What can go wrong, as leaf classes: Step Functions matches the exact class name and never a base class."""

from typing import Any, ClassVar


class BackgroundRemoverError(Exception):
    """Base of every error of this project; it says what is wrong, where, and what to do about it.

    Args:
        message: what is wrong, one sentence.
        field: the input at fault, as its sender knows it (``options.format``, ``source.key``).
        value: the value it had.
        remedy: what the sender can do, one sentence.
    """

    retryable: ClassVar[bool]

    def __init__(self, message: str, *, field: str, value: object, remedy: str) -> None:
        self.message, self.field, self.value, self.remedy = message, field, value, remedy
        super().__init__(f"{message} ({field}: {value!r}). {remedy}")

    def facts(self) -> dict[str, Any]:
        """Return the error as the JSON object that reports and sidecars carry."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "field": self.field,
            "value": self.value if isinstance(self.value, int | float | bool | None) else str(self.value),
            "remedy": self.remedy,
        }


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
