"""Options that several commands share."""

import re
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from client.errors import UsageError

StackName = Annotated[
    str | None,
    typer.Option("--stack", envvar="PBR_STACK", help="Name of a stack on AWS.", show_default="embedded cloud"),
]
Region = Annotated[
    str | None,
    typer.Option("--region", envvar="AWS_REGION", help="AWS region of the stack.", show_default="AWS configuration"),
]
JsonLines = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one line of JSON per image on standard output, as soon as it is done or failed."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print all stages of each image.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Open = Annotated[bool, typer.Option("--open", help="Open up to 5 results in the image viewer of the system.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")]

DEFAULT_OUT: Final = "out/"
"""Value of --out if it is not given."""

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def out_option(more: str = "") -> Any:
    """Return the declaration of --out; ``more`` is added to its help text."""
    return typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help=f"Directory for the results, or, for one image, a file, e.g. cutout.png.{more}",
        show_default=DEFAULT_OUT,
    )


def parse_duration(text: str, option: str) -> timedelta:
    """Parse a duration such as ``30m``, ``1h`` or ``2d``.

    Args:
        text: value of the option.
        option: name of the option, for the error message.

    Raises:
        UsageError: if the duration is invalid.
    """
    if match := re.fullmatch(r"(\d{1,4})([smhd])", text):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    raise UsageError(
        "Invalid duration", field=option, value=text, remedy="Use seconds, minutes, hours or days, e.g. 30m, 1h, 2d."
    )


def parse_idle_limit(text: str, option: str) -> timedelta | None:
    """Parse how long a cloud may be idle; ``never`` is no limit.

    Args:
        text: value of the option.
        option: name of the option, for the error message.

    Raises:
        UsageError: if it is neither a duration above zero nor ``never``.
    """
    if text == "never":
        return None
    try:
        if limit := parse_duration(text, option):
            return limit
        raise UsageError("The duration is zero", field=option, value=text, remedy="Use a longer one, e.g. 30m, 1h, 2d.")
    except UsageError as error:
        message, remedy = error.message, f"{error.remedy.removesuffix('.')}; or never."
        raise UsageError(message, field=option, value=text, remedy=remedy) from None
