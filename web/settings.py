"""The options of the page Remove: controls, and the options that they stand for.

Descriptions and allowed values are those of :mod:`core.options`. Only options that differ from their defaults are set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

from client.stack import Stack
from core.errors import InvalidOptionsError
from core.options import Metadata, Options, Output, OutputFormat
from core.presets import Preset
from core.segmentation.registry import CLASSICAL, Model, with_custom
from core.types import Precision
from web import errors

_PREFIX: Final = "option."

_PRECISIONS: Final = {
    Precision.DRAFT: "Draft",
    Precision.STANDARD: "Standard",
    Precision.HIGH: "High",
    Precision.ULTRA_HIGH: "Ultra",
}
_FORMATS: Final = {
    OutputFormat.PNG: "PNG",
    OutputFormat.WEBP: "WebP",
    OutputFormat.WEBP_LOSSLESS: "WebP, lossless",
    OutputFormat.AVIF: "AVIF",
    OutputFormat.JPEG: "JPEG",
    OutputFormat.ZIP: "ZIP (color.jpg and alpha.png)",
}
_BACKGROUNDS: Final = {"transparent": "None", "color": "Color", "image": "Image", "blur": "Blur"}
_BACKGROUND_OPTIONS: Final = ("background_color", "background_key", "background_blur")
_LOSSY: Final = {OutputFormat.WEBP, OutputFormat.AVIF, OutputFormat.JPEG, OutputFormat.ZIP}
_TEXTS: Final = {
    "canvas": ("Canvas", "e.g. 2000x2000 or 4:5"),
    "scale": ("Subject size", "e.g. 85%"),
    "position": ("Position", "e.g. center or 50% 100%"),
    "outline": ("Outline", "e.g. 8px or 1%"),
    "roi": ("Region of interest", "e.g. 10% 0 90% 800px"),
}
_EXPLICIT: Final = {"format", "crop_margin", *_TEXTS}
"""Options whose controls are empty unless a preset is overridden."""

_BLUR: Final = "3%"
_KEEP_MARGIN: Final = "5%"


@dataclass(frozen=True)
class Choices:
    """What the controls show. Texts are as they were typed; empty ones are not set.

    Attributes:
        preset: name of a preset; None for none.
        precision: precision level.
        background: ``preset``, ``transparent``, ``color``, ``image`` or ``blur``.
        background_value: color, object key or strength of that background; None if it is not chosen yet.
        format: file format; None for that of the preset, or PNG.
        crop: whether to crop to the subject.
        margin: margin of the crop.
        model: name of the model; ``auto`` for the stack's default.
        more: other options by name; those that are empty or have their default are not set.
    """

    preset: str | None = None
    precision: Precision = Precision.HIGH
    background: str = "transparent"
    background_value: str | None = None
    format: OutputFormat | None = None
    crop: bool = False
    margin: str = ""
    model: str = "auto"
    more: Mapping[str, Any] | None = None

    def options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, or that override the preset."""
        found: dict[str, Any] = {
            "preset": self.preset,
            "precision_level": self.precision,
            "format": self.format,
            "crop": self.crop,
            "crop_margin": self.margin.strip() if self.crop else "",
            "model": self.model,
            **{name: value.strip() if isinstance(value, str) else value for name, value in (self.more or {}).items()},
        }
        set_ = {
            name: value
            for name, value in found.items()
            if value not in (None, "") and (name in _EXPLICIT or value != _default(name))
        }
        return {**set_, **self._background()}

    def _background(self) -> dict[str, str]:
        if self.background == "transparent":
            return {"background_color": "transparent"} if self.preset else {}
        name = {"color": "background_color", "image": "background_key", "blur": "background_blur"}.get(self.background)
        return {name: self.background_value} if name and self.background_value else {}


def show(stack: Stack, upload_background: Callable[[str, bytes], str]) -> dict[str, Any]:
    """Show the controls, and return the options that they stand for.

    Args:
        stack: has the presets and the models.
        upload_background: uploads an image, and returns its key.

    Returns:
        Valid options by name. An error is shown above the controls for invalid ones, and the last valid ones are kept.
    """
    presets = stack.presets
    problem = st.container()
    preset = st.selectbox(
        "Preset",
        list(presets),
        index=None,
        placeholder="None",
        format_func=lambda name: name.replace("-", " ").capitalize(),
        help=_help("preset"),
        key=f"{_PREFIX}preset",
    )
    background, value = _background(presets.get(preset or "", {}), upload_background)
    precision = st.segmented_control(
        "Precision",
        list(_PRECISIONS),
        default=Precision.HIGH,
        format_func=_PRECISIONS.__getitem__,
        help=_help("precision_level"),
        required=True,
        width="stretch",
        key=f"{_PREFIX}precision",
    )
    model = _model(stack)
    crop = st.toggle("Crop to the subject", help=_help("crop"), key=f"{_PREFIX}crop")
    margin = _text("crop_margin", "Margin", f"e.g. {_KEEP_MARGIN} or 20px") if crop else ""
    format_ = _format(presets.get(preset or "", {}))
    with st.expander("Layout", icon=":material/aspect_ratio:"):
        more: dict[str, Any] = {name: _text(name, *_TEXTS[name]) for name in ("canvas", "scale", "position")}
    with st.expander("More options", icon=":material/tune:"):
        more |= _further(format_ or presets.get(preset or "", {}).get("format"))
    choices = Choices(preset, precision, background, value, format_, crop, margin, model, more)
    with problem:
        return _valid(choices.options(), presets)


def _valid(options: dict[str, Any], presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Return the options if they are valid; otherwise show why not, and return the last valid ones."""
    key = f"{_PREFIX}valid"
    try:
        Options.parse(options, presets)
    except InvalidOptionsError as error:
        errors.show(error)
        kept: dict[str, Any] = st.session_state.get(key, {})
        return kept
    st.session_state[key] = options
    return options


def _background(preset: Preset, upload: Callable[[str, bytes], str]) -> tuple[str, str | None]:
    """Show the controls of the background, and return its kind and value."""
    kinds = dict(_BACKGROUNDS)
    if set(preset) & set(_BACKGROUND_OPTIONS):
        kinds = {"preset": "Preset", **kinds}
    kind = st.segmented_control(
        "Background",
        list(kinds),
        default=next(iter(kinds)),
        format_func=kinds.__getitem__,
        required=True,
        width="stretch",
        wrap=True,
        key=f"{_PREFIX}background.{'preset' in kinds}",
    )
    match kind:
        case "color":
            return kind, st.color_picker("Color", "#ffffff", key=f"{_PREFIX}color", help=_help("background_color"))
        case "image":
            return kind, _background_key(upload)
        case "blur":
            return kind, _text("background_blur", "Strength", f"e.g. {_BLUR}", _BLUR)
    return kind, None


def _background_key(upload: Callable[[str, bytes], str]) -> str | None:
    """Show a control for a background image, and return the key of the one that was chosen."""
    chosen = st.file_uploader(
        "Background image", key=f"{_PREFIX}image", help="It fills the result, and is cropped where its shape differs."
    )
    if chosen is None:
        st.caption("Choose an image. Until then, the background is transparent.")
        return None
    uploaded: dict[str, str] = st.session_state.setdefault(f"{_PREFIX}uploaded", {})
    if chosen.file_id not in uploaded:
        uploaded[chosen.file_id] = upload(chosen.name, chosen.getvalue())
    return uploaded[chosen.file_id]


def _format(preset: Preset) -> OutputFormat | None:
    usual = OutputFormat(preset.get("format", OutputFormat.PNG))
    chosen = st.selectbox(
        "Format",
        list(_FORMATS),
        index=list(_FORMATS).index(usual),
        format_func=_FORMATS.__getitem__,
        help=_help("format"),
        key=f"{_PREFIX}format.{usual}",
    )
    return None if chosen == usual else chosen


def _model(stack: Stack) -> str:
    """Show the choice of a model, with what its license forbids."""
    default = stack.parameters.get("DefaultModel", "auto")
    models = with_custom(stack.parameters.get("CustomModels", ""))
    chosen: str = st.selectbox(
        "Model",
        ["auto", *models, CLASSICAL],
        format_func=lambda name: f"Default ({default})" if name == "auto" else label(name, models),
        help=_help("model"),
        key=f"{_PREFIX}model",
    )
    model = models.get(default if chosen == "auto" else chosen)
    if model and not model.commercial_use:
        st.caption(f":material/gavel: No commercial use. License: {model.licence}.")
    return chosen


def label(name: str, models: Mapping[str, Model]) -> str:
    """Return the name of a model; one that may not be used commercially is marked."""
    model = models.get(name)
    return f"{name} (non-commercial)" if model and not model.commercial_use else name


def _further(format_: str | None) -> dict[str, Any]:
    """Show the other options, and return those that are set."""
    more: dict[str, Any] = {
        "output": _choice("output", "Output", list(Output), {"cutout": "Cut-out", "mask": "Alpha as a grayscale image"})
    }
    if format_ in _LOSSY:
        quality = Options.model_fields["quality"].default
        more["quality"] = st.slider("Quality", 1, 100, quality, help=_help("quality"), key=f"{_PREFIX}quality")
    more["outline"] = _text("outline", *_TEXTS["outline"])
    if more["outline"]:
        more["outline_color"] = st.color_picker(
            "Outline color", "#ffffff", help=_help("outline_color"), key=f"{_PREFIX}outline_color"
        )
    more["roi"] = _text("roi", *_TEXTS["roi"])
    more["max_megapixels"] = st.number_input(
        "Maximum megapixels",
        min_value=0.01,
        value=None,
        placeholder="No limit",
        help=_help("max_megapixels"),
        key=f"{_PREFIX}max_megapixels",
    )
    named = {"no_location": "Keep, without location", "all": "Keep all", "none": "Remove"}
    more["metadata"] = _choice("metadata", "EXIF data", list(Metadata), named)
    more["segmentation_host"] = _choice("segmentation_host", "Segmentation runs on", _hosts(), _HOSTS)
    return more


_HOSTS: Final = {"auto": "Default", "lambda": "Lambda", "ecs": "ECS", "sagemaker": "SageMaker"}


def _hosts() -> list[str]:
    return list(_HOSTS)


def _choice(option: str, text: str, values: Sequence[str], named: Mapping[str, str]) -> str:
    return st.selectbox(
        text, [str(value) for value in values], format_func=named.__getitem__, help=_help(option), key=_PREFIX + option
    )


def _text(option: str, text: str, example: str, value: str = "") -> str:
    return st.text_input(text, value, placeholder=example, help=_help(option), key=_PREFIX + option)


def _default(option: str) -> Any:
    return Options.model_fields[option].default


def _help(option: str) -> str | None:
    """Return the description of an option, as Markdown that is shown as it is."""
    description = Options.model_fields[option].description or ""
    return description.replace("#", r"\#").replace("*", r"\*")
