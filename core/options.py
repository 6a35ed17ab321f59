"""The options of a request, the same in S3 metadata, an API body and on the command line."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core.errors import InvalidOptionsError, reason
from core.presets import BACKGROUNDS, BUILT_IN, Preset, merge
from core.types import Precision

ORIGINAL: Final = "original"
"""Value of ``scale``, ``position`` and ``canvas`` that leaves the subject, or the canvas, as it is in the image."""

CENTER: Final = "center"

NEWER: Final = frozenset({"preset", "canvas", "outline", "outline_color", "background_blur"})
"""Options that version 0.2 does not know."""

AUTO_POSITION: Final = "auto"
"""Value of ``position`` that centers the subject, but leaves a side that the image's border cuts at the border."""

TRANSPARENT: Final = "transparent"
"""Value of ``background_color`` for no background."""

MAX_SHAPE: Final = 10
"""Largest ratio of a canvas's sides."""

REGION_EXCEEDS_PICTURE: Final = "The region exceeds the image"
"""Prefix of the message for a ``roi`` that is well-formed but does not fit the image's size."""

_OUTLINES_PER_SIDE: Final = 8
"""An outline takes at most an eighth of the canvas's shorter side, on each side of the subject."""

_MAX_DEFAULT_CHARS: Final = 100
_MAX_CHARS: Final = {"background_key": 1024}

_DECIMALS: Final = r"(\.[0-9]{1,6})?"
_ZERO: Final = r"0(\.0{1,6})?"  # needs no unit
_SHARE: Final = rf"({_ZERO}|(100(\.0{{1,6}})?|[0-9]{{1,2}}{_DECIMALS})%)"
_SCALE: Final = rf"(100(\.0{{1,6}})?|[1-9][0-9]{_DECIMALS})%"
_COORDINATE: Final = rf"({_ZERO}|[0-9]{{1,6}}{_DECIMALS}(px|%))"
_MARGIN: Final = (
    rf"({_ZERO}|(500(\.0{{1,6}})?|[0-4]?[0-9]{{1,2}}{_DECIMALS})px|(50(\.0{{1,6}})?|[0-4]?[0-9]{_DECIMALS})%)"
)
_NAME: Final = "[a-z0-9][a-z0-9_-]{0,63}"
_SIDE: Final = r"(1[6-9]|[2-9][0-9]|[1-9][0-9]{2,3}|10000)"
_TERM: Final = rf"[1-9][0-9]{{0,3}}{_DECIMALS}"
_CANVAS: Final = rf"({_SIDE}x{_SIDE}|{_TERM}:{_TERM})"
_OUTLINE: Final = rf"({_ZERO}|(100(\.0{{1,6}})?|[0-9]{{1,2}}{_DECIMALS})px|(10(\.0{{1,6}})?|[0-9]{_DECIMALS})%)"
_BLUR: Final = rf"(20(\.0{{1,6}})?|1?[1-9]{_DECIMALS}|10{_DECIMALS}|0\.[5-9][0-9]{{0,5}})%"
_COLOR: Final = "#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})"


class OutputFormat(StrEnum):
    """File format of the result."""

    PNG = "png"
    WEBP = "webp"
    WEBP_LOSSLESS = "webp_lossless"
    AVIF = "avif"
    JPEG = "jpeg"
    ZIP = "zip"

    @property
    def extension(self) -> str:
        """File name extension, without the dot."""
        return {"webp_lossless": "webp", "jpeg": "jpg"}.get(self.value, self.value)

    @property
    def content_type(self) -> str:
        """MIME type."""
        return {"webp_lossless": "image/webp", "zip": "application/zip"}.get(self.value, f"image/{self.value}")


class Output(StrEnum):
    """Content of the result."""

    CUTOUT = "cutout"
    MASK = "mask"


class Metadata(StrEnum):
    """EXIF data of the photograph that the result carries; see :func:`core.image.exif.kept`."""

    NO_LOCATION = "no_location"
    ALL = "all"
    NONE = "none"


class Host(StrEnum):
    """Where segmentation runs."""

    AUTO = "auto"
    LAMBDA = "lambda"
    ECS = "ecs"
    SAGEMAKER = "sagemaker"


class Options(BaseModel):
    """One request's options, validated; every field has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Annotated[str, Field(pattern=rf"^{_NAME}$")] | None = Field(
        default=None,
        description=f"Named set of options: {', '.join(BUILT_IN)}, or a preset of the stack. Other options override "
        "it.",
    )
    precision_level: Precision = Field(
        default=Precision.HIGH,
        description="Work put into the edge; higher levels take longer: draft, standard, high or ultra_high.",
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="auto",
        description="Segmentation model: a name listed by pbr models, a custom model of the stack, classical, or "
        "auto for the stack's default.",
    )
    segmentation_host: Host = Field(
        default=Host.AUTO,
        description="Where segmentation runs: lambda, ecs, sagemaker, or auto for the stack's default.",
    )
    output: Output = Field(
        default=Output.CUTOUT,
        description="Content of the result: cutout, or mask for the alpha alone as a grayscale image.",
    )
    format: OutputFormat = Field(
        default=OutputFormat.PNG,
        description="File format of the result: png, webp, webp_lossless, avif, jpeg, or zip with color.jpg and "
        "alpha.png. jpeg has a white background unless another one is given.",
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(
        default=90, description="Compression quality of webp, avif, jpeg and the JPEG in a zip: 1 to 100."
    )
    background_color: Annotated[
        Annotated[str, Field(pattern=rf"^({_COLOR}|{TRANSPARENT})$")] | None,
        AfterValidator(lambda color: None if color == TRANSPARENT else color),
    ] = Field(
        default=None,
        description="Color behind the subject: #rrggbb, #rrggbbaa for a translucent one, or transparent for none.",
    )
    background_key: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="Image behind the subject: its key in the uploads bucket, preferably under backgrounds/.",
    )
    background_blur: Annotated[str, Field(pattern=rf"^{_BLUR}$")] | None = Field(
        default=None,
        description="Blur of the photo's own background, which stays behind the sharp subject: 0.5% to 20% of the "
        "photo's longer side, e.g. 2%; the standard deviation of the blur.",
    )
    crop: bool = Field(default=False, description="Crop the result to the subject: true or false.")
    crop_margin: (
        Annotated[float, Field(ge=0, le=1)]
        | Annotated[str, Field(pattern=rf"^{_MARGIN}( {_MARGIN}|( {_MARGIN}){{3}})?$")]
    ) = Field(
        default=0.0,
        union_mode="left_to_right",
        description="Margin that crop leaves around the subject: 0 to 1, a share of its longer side; or 1, 2 or 4 "
        "lengths in CSS order, each 0px to 500px, or 0% to 50% of the subject's width or height.",
    )
    scale: Annotated[str, Field(pattern=rf"^({ORIGINAL}|{_SCALE})$")] = Field(
        default=ORIGINAL, description="Size of the subject as a share of the result: 10% to 100%, or original."
    )
    position: Annotated[str, Field(pattern=rf"^({ORIGINAL}|{CENTER}|{AUTO_POSITION}|{_SHARE}( {_SHARE})?)$")] | None = (
        Field(
            default=None,
            description="Position of the subject across and down: one or two of 0% to 100%, center, original, or auto "
            "for center, except that a side that the image's border cuts stays at the border. The default is "
            "original, or center if scale is set.",
        )
    )
    canvas: Annotated[str, Field(pattern=rf"^({ORIGINAL}|{_CANVAS})$")] = Field(
        default=ORIGINAL,
        description="Canvas of the result: its width and height in pixels, each 16 to 10000, e.g. 2000x2000; its "
        "shape, e.g. 4:5, in the resolution of the image; or original for that of the image or crop. The subject, or "
        "without scale the whole image or crop, is fitted into it.",
    )
    outline: Annotated[str, Field(pattern=rf"^{_OUTLINE}$")] = Field(
        default="0",
        description="Width of an outline around the subject, as on a sticker: up to 100px, up to 10% of the subject's "
        "longer side, or 0 for none. scale includes it.",
    )
    outline_color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = Field(
        default="#ffffff", description="Color of the outline: #rrggbb."
    )
    max_megapixels: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Maximum size of the result in megapixels: a number above 0. A larger result is scaled down.",
    )
    roi: Annotated[str, Field(pattern=rf"^{_COORDINATE}( {_COORDINATE}){{3}}$")] | None = Field(
        default=None,
        description="Region in which to look for the subject: left, top, right and bottom, each in px or in % of the "
        "upright image, or 0, e.g. 10% 0 90% 800px.",
    )
    metadata: Metadata = Field(
        default=Metadata.NO_LOCATION,
        description="EXIF data of the photo to keep in the result: no_location, all or none.",
    )

    @classmethod
    def parse(cls, raw: Mapping[str, Any], presets: Mapping[str, Preset] = BUILT_IN) -> "Options":
        """Return validated options from raw ones, whose values are strings or JSON types, and from their preset.

        Args:
            raw: options by name.
            presets: the presets by name.

        Raises:
            InvalidOptionsError: an option or the preset is unknown, a value is not allowed, or two options contradict
                each other.
        """
        name = raw.get("preset")
        if name is None:
            return cls._validated(raw)
        if not isinstance(name, str) or name not in presets:
            raise InvalidOptionsError(
                "Unknown preset",
                field="options.preset",
                value=name,
                remedy=f"The presets are: {', '.join(presets)}.",
            )
        return cls._validated(merge(presets[name], raw))

    @classmethod
    def parse_explicit(cls, raw: Mapping[str, Any]) -> "Options":
        """Return validated options from raw ones, without those of their preset.

        For callers that do not know the stack's presets: only Validate can tell whether the preset exists.

        Raises:
            InvalidOptionsError: see :meth:`parse`.
        """
        return cls._validated(raw)

    @classmethod
    def _validated(cls, raw: Mapping[str, Any]) -> "Options":
        for name, value in raw.items():
            if name not in cls.model_fields:
                raise InvalidOptionsError(
                    "Unknown option",
                    field=f"options.{name}",
                    value=value,
                    remedy=f"The options are: {', '.join(cls.model_fields)}.",
                )
            if isinstance(value, str) and len(value) > _MAX_CHARS.get(name, _MAX_DEFAULT_CHARS):
                raise InvalidOptionsError(
                    f"This value of {name} has {len(value)} characters",
                    field=f"options.{name}",
                    value=value,
                    remedy=f"{name}: {cls.model_fields[name].description}",
                )
        try:
            options = cls.model_validate(dict(raw))
        except ValidationError as error:
            raise _explain(error) from None
        options._check_agreement()
        return options

    def _check_agreement(self) -> None:
        backgrounds = {name: value for name in BACKGROUNDS if (value := getattr(self, name))}
        name, background = next(reversed(backgrounds.items()), (None, None))
        if len(backgrounds) > 1:
            raise InvalidOptionsError(
                "A result has only one background",
                field=f"options.{name}",
                value=background,
                remedy=f"Set only one of {', '.join(BACKGROUNDS)}.",
            )
        if self.output is Output.MASK and background:
            raise InvalidOptionsError(
                "A mask has no background",
                field="options.output",
                value=f"mask, with the background {background}",
                remedy="Remove the background, or set output=cutout.",
            )
        if self.output is Output.MASK and self.has_outline:
            raise InvalidOptionsError(
                "A mask has no outline",
                field="options.output",
                value=f"mask, with the outline {self.outline}",
                remedy="Set outline=0, or set output=cutout.",
            )
        if self.format is OutputFormat.ZIP and (background or self.output is Output.MASK):
            raise InvalidOptionsError(
                "A zip holds colors and alpha as separate files",
                field="options.format",
                value=f"zip, with {f'the background {background}' if background else 'output=mask'}",
                remedy="Remove background and output, or set format=png.",
            )
        if self.format is OutputFormat.JPEG and self.background_opacity < 1:
            raise InvalidOptionsError(
                "A JPEG cannot be translucent",
                field="options.background_color",
                value=self.background_color,
                remedy="Set the color as #rrggbb, or set format to png, webp or avif.",
            )

        self._check_canvas()

    def _check_canvas(self) -> None:
        if (shape := self.canvas_shape) and not 1 / MAX_SHAPE <= shape <= MAX_SHAPE:
            raise InvalidOptionsError(
                "The canvas is too narrow",
                field="options.canvas",
                value=self.canvas,
                remedy=f"Set a shape from 1:{MAX_SHAPE} to {MAX_SHAPE}:1.",
            )
        if (size := self.canvas_size) and self.outline.endswith("px"):
            room_px = min(size) / _OUTLINES_PER_SIDE
            if float(self.outline.removesuffix("px")) > room_px:
                raise InvalidOptionsError(
                    f"The outline leaves too little room for the subject on the canvas {self.canvas}",
                    field="options.outline",
                    value=self.outline,
                    remedy=f"Set at most {room_px:g}px, an eighth of the shorter side, or a larger canvas.",
                )

    def set_or_known(self) -> dict[str, Any]:
        """Return the options as JSON types, without newer ones that have their default.

        Workers and endpoints of version 0.2 reject options that they do not know; the cache keys of its results must
        stay valid.
        """
        default = {name for name in NEWER if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=default)

    @property
    def canvas_size(self) -> tuple[int, int] | None:
        """Width and height of the canvas in pixels; None if they depend on the image."""
        width, by, height = self.canvas.partition("x")
        return (int(width), int(height)) if by else None

    @property
    def canvas_shape(self) -> float | None:
        """Width of the canvas divided by its height; None if the option states no shape."""
        width, to, height = self.canvas.partition(":")
        return float(width) / float(height) if to else None

    @property
    def has_outline(self) -> bool:
        """Whether the subject has an outline."""
        return float(self.outline.rstrip("px%")) > 0

    @property
    def blur_share(self) -> float:
        """Standard deviation of the background's blur as a share of the photo's longer side; 0 for no blur."""
        return float((self.background_blur or "0").removesuffix("%")) / 100

    @property
    def background_opacity(self) -> float:
        """Opacity of the background, 0 to 1; 1 if there is none."""
        return int((self.background_color or "")[7:] or "ff", 16) / 255


def read_presets(text: str) -> dict[str, Preset]:
    """Return the presets of a stack by name: the built-in ones, and its own, which take precedence.

    Args:
        text: a JSON object of options by name of the preset; empty for none. The option ``preset`` names a built-in
            preset to start from.

    Raises:
        InvalidOptionsError: the text is not such an object; names the preset and the option.
    """
    presets = dict(BUILT_IN)
    for name, described in _json_object(text).items():
        if not re.fullmatch(_NAME, name):
            raise _bad_presets("This name of a preset is not allowed", name, name)
        if not isinstance(described, dict):
            raise _bad_presets(f"The preset {name} is not a JSON object", name, described)
        try:
            Options.parse(described)
        except InvalidOptionsError as error:
            raise InvalidOptionsError(
                f"The preset {name} is invalid: {error.message}",
                field=f"Presets.{name}.{error.field.removeprefix('options.')}",
                value=error.value,
                remedy=error.remedy,
            ) from None
        base, own = described.get("preset"), {key: value for key, value in described.items() if key != "preset"}
        presets[name] = merge(BUILT_IN[base], own) if base else own
    return presets


def _json_object(text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("a name is repeated")
        return members

    try:
        value = json.loads(text, object_pairs_hook=unique) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _bad_presets(f"The presets are not valid JSON: {error}", "", text) from None
    if not isinstance(value, dict):
        raise _bad_presets("The presets are not a JSON object", "", text)
    return value


def _bad_presets(message: str, name: str, value: object) -> InvalidOptionsError:
    return InvalidOptionsError(
        message,
        field=f"Presets.{name}".rstrip("."),
        value=value,
        remedy='Use a JSON object such as {"catalog": {"preset": "white-square", "quality": 95}}. Names have up to 64 '
        "lowercase letters, digits, hyphens and underscores.",
    )


def _explain(error: ValidationError) -> InvalidOptionsError:
    """Return pydantic's first error as one of ours."""
    errors = error.errors(include_url=False)
    first = errors[0]
    name = str(first["loc"][0])
    # pydantic would quote the regular expression; the remedy describes it in words.
    by_pattern = any(one["loc"][0] == name and one["type"] == "string_pattern_mismatch" for one in errors)
    text = reason(first["msg"])
    why = "" if by_pattern else f": {text[:1].lower()}{text[1:]}"
    return InvalidOptionsError(
        f"This value of {name} is not allowed{why}",
        field=f"options.{name}",
        value=first["input"],
        remedy=f"{name}: {Options.model_fields[name].description}",
    )
