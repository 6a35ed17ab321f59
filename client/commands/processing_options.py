"""The options of ``pbr process``, generated from ``core.options``."""

import inspect
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from core.options import Options, Output

_PANEL: Final = "Processing options"

# Spellings of the command line that differ from the option's name.
_FLAGS: Final = {"precision_level": "precision", "segmentation_host": "host"}

# The command line takes a local file and a flag where the option takes an object key and a value.
_BACKGROUND_IMAGE: Final = typer.Option(
    help="Image file to put behind the subject.", show_default=False, rich_help_panel=_PANEL
)
_MASK_ONLY: Final = typer.Option(
    "--mask-only", help="Return only the alpha, as a grayscale image.", rich_help_panel=_PANEL
)


def with_processing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the fields of :class:`core.options.Options` to a command as command-line options.

    The command must have a parameter ``options``. It receives the options that the user has set, by field name, with
    the path of the background image as ``background_key``. The other parameters stay as they are.
    """
    own = inspect.signature(command).parameters
    generated = _parameters()

    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in generated}
        command(**given, options=_set_options(values))

    parameters = [
        parameter
        for name, declared in own.items()
        for parameter in (generated.values() if name == "options" else [declared])
    ]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.__doc__
    return run


def _set_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are set, by field name."""
    flags = {flag: name for name, flag in _FLAGS.items()}
    options = {flags.get(name, name): value for name, value in values.items() if value is not None}
    if options.pop("mask_only", False):
        options["output"] = Output.MASK
    if image := options.pop("background_image", None):
        options["background_key"] = str(image)
    return options


def _parameters() -> dict[str, inspect.Parameter]:
    made = {}
    for field, info in Options.model_fields.items():
        name, annotation, default = _parameter(field, info)
        made[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    return made


def _parameter(field: str, info: FieldInfo) -> tuple[str, Any, Any]:
    """Return name, annotation and default of the command's parameter for a field."""
    if field == "background_key":
        return "background_image", Annotated[Path | None, _BACKGROUND_IMAGE], None
    if field == "output":
        return "mask_only", Annotated[bool, _MASK_ONLY], False
    name, text = _FLAGS.get(field, field), info.description or ""
    flag = f"--{name.replace('_', '-')}"
    if info.annotation is bool:
        purpose = text.partition(":")[0] + "."
        pair = f"{flag}/--no-{flag.removeprefix('--')}"  # the second one overrides a preset
        return name, Annotated[bool | None, typer.Option(pair, help=purpose, rich_help_panel=_PANEL)], None
    default = (
        False if info.default is None else f"{info.default:g}" if isinstance(info.default, float) else str(info.default)
    )
    option = typer.Option(flag, help=text, show_default=default, rich_help_panel=_PANEL)
    return name, Annotated[_type(info.annotation) | None, option], None


def _type(annotation: Any) -> Any:
    """Return the type that Typer parses: an enum, int or float as declared, and str for all else."""
    members = [member for member in get_args(annotation) if member is not types.NoneType]
    if get_origin(annotation) is not None and len(members) == 1:
        return _type(get_args(members[0])[0] if get_origin(members[0]) is Annotated else members[0])
    if annotation in (int, float) or (isinstance(annotation, type) and issubclass(annotation, StrEnum)):
        return annotation
    return str
