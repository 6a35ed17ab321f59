"""Subjects of SNS messages."""

from typing import Final

MAX_SUBJECT_CHARS: Final = 99
"""SNS documents "less than 100"."""


def subject_line(text: str) -> str:
    """Return a subject that SNS accepts: printable ASCII, less than 100 characters."""
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:MAX_SUBJECT_CHARS]
