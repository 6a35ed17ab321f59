"""What a user can ask for, the same from S3 metadata, from an API body and from the command line."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import InvalidOptionsError
from core.types import Precision


class OutputFormat(StrEnum):
    """How the result is encoded."""

    PNG = "png"
    WEBP = "webp"
    WEBP_LOSSLESS = "webp_lossless"
    AVIF = "avif"
    JPEG = "jpeg"

    @property
    def extension(self) -> str:
        """File name extension, without the dot."""
        return {"webp_lossless": "webp", "jpeg": "jpg"}.get(self.value, self.value)

    @property
    def content_type(self) -> str:
        """MIME type."""
        return "image/webp" if self is OutputFormat.WEBP_LOSSLESS else f"image/{self.value}"


class Output(StrEnum):
    """What the result shows."""

    CUTOUT = "cutout"
    MASK = "mask"


class Metadata(StrEnum):
    """How much of the photograph's EXIF data the result carries; see :func:`core.metadata.kept`."""

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

    precision_level: Precision = Field(
        default=Precision.HIGH, description="draft, standard, high or ultra_high, the work put into the edge"
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="auto", description="a segmentation model's rembg name, classical, or auto: the stack's default"
    )
    segmentation_host: Host = Field(
        default=Host.AUTO, description="lambda, ecs, sagemaker, or auto: where the stack segments by default"
    )
    output: Output = Field(default=Output.CUTOUT, description="cutout, or mask: the alpha alone, as a grey picture")
    format: OutputFormat = Field(
        default=OutputFormat.PNG,
        description="png, webp, webp_lossless, avif, or jpeg (on white unless a background is given)",
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(default=90, description="1 to 100, of webp, avif and jpeg")
    background_color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = Field(
        default=None, description="#rrggbb, a colour to put the subject on; jpeg takes white if none is given"
    )
    background_key: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="a key in the uploads bucket: a picture to put the subject on; best under backgrounds/",
    )
    crop: bool = Field(default=False, description="true or false, whether to crop to the subject")
    crop_margin: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="0 to 1, the room that crop leaves around the subject as a share of its longer side"
    )
    metadata: Metadata = Field(
        default=Metadata.NO_LOCATION,
        description="no_location, all or none, what the result carries of the photograph's EXIF data",
    )

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "Options":
        """Validate options as they came, values as strings or in JSON types.

        Raises:
            InvalidOptionsError: a name is unknown, a value is not allowed, or two options contradict each other.
        """
        for name, value in raw.items():
            if name not in cls.model_fields:
                raise InvalidOptionsError(
                    "Unknown option",
                    field=f"options.{name}",
                    value=value,
                    remedy=f"The options are: {', '.join(cls.model_fields)}.",
                )
        try:
            options = cls.model_validate(dict(raw))
        except ValidationError as error:
            raise _explain(error) from None
        if options.background_color and options.background_key:
            raise InvalidOptionsError(
                "A result has one background",
                field="options.background_key",
                value=options.background_key,
                remedy="Give background_color or background_key, not both.",
            )
        if options.output is Output.MASK and (background := options.background_color or options.background_key):
            raise InvalidOptionsError(
                "A mask has no background",
                field="options.output",
                value=f"mask, with the background {background}",
                remedy="Leave the background out, or ask for output=cutout.",
            )
        return options


def _explain(error: ValidationError) -> InvalidOptionsError:
    """Turn pydantic's first complaint into ours."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    return InvalidOptionsError(
        f"This value is not allowed: {first['msg'][:1].lower()}{first['msg'][1:]}",
        field=f"options.{name}",
        value=first["input"],
        remedy=f"Allowed is: {Options.model_fields[name].description}.",
    )
