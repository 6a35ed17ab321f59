"""Check that the functions that process an image after Validate have the memory for it."""

from dataclasses import dataclass
from typing import Final

from core import layout
from core.errors import TooManyPixelsError
from core.options import ORIGINAL, Options, Output, OutputFormat
from core.types import ImageInfo, Precision


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a function's process: bytes, and bytes per pixel.

    Upper estimates of the peaks that ``python -m bench.studies.stage_memory`` measures at 12 to 100 MP, and for Segment
    of those in docs/how-to/models.md.

    Attributes:
        process: the interpreter, libraries and tiles in progress.
        ultra_high: in addition, the larger tiles of the closed form at full scale.
        image: per pixel of the image; Encode also holds the alpha and the foreground.
        own_alpha: per pixel of an image that can have transparency.
        moved: per pixel of an image that is scaled, moved or shrunk.
        canvas: per pixel of the result of such an image.
        background: per pixel of a background image.
        covered: per pixel of the result, the background scaled to its size.
        outline: per pixel of the result, the outline drawn on it.
        outline_grid: in addition, per pixel of a result of up to 4 MP, the grid of the outline.
    """

    process: int = 200_000_000
    ultra_high: int = 350_000_000
    image: float = 12.0
    own_alpha: float = 9.0
    moved: float = 7.0
    canvas: float = 10.0
    background: float = 3.0
    covered: float = 4.5
    outline: float = 5.0
    outline_grid: float = 50.0


_PEAK: Final = PeakMemory()

_RESULT: Final = {
    OutputFormat.PNG: 4.0,
    OutputFormat.JPEG: 9.5,
    OutputFormat.ZIP: 11.0,
    OutputFormat.WEBP: 25.0,
    OutputFormat.WEBP_LOSSLESS: 30.0,
    OutputFormat.AVIF: 45.0,
}
"""Bytes per pixel of the result: its encoder and its file. Measured with those above."""

_DECODED: Final = {"jpeg": 1.0, "heic": 20.0, "webp": 17.0, "avif": 13.0}
_DECODED_OTHERS: Final = 9.0
"""Bytes per pixel of the image in Segment, which decodes JPEG at reduced scale and other formats in full."""

_OUTLINE_GRID_PIXELS: Final = 4_000_000

_OPAQUE: Final = "jpeg"
"""The only input format without transparency."""


def segment_bytes(image: ImageInfo, model_bytes: int) -> float:
    """Return the peak memory of Segment, with a model that takes ``model_bytes``."""
    return model_bytes + _DECODED.get(image.format, _DECODED_OTHERS) * image.width * image.height


def refine_bytes(image: ImageInfo, precision: Precision) -> float:
    """Return the peak memory of Refine."""
    return _process(precision) + _per_pixel(image) * image.width * image.height


def encode_bytes(image: ImageInfo, options: Options, background: ImageInfo | None) -> float:
    """Return the peak memory of Encode. ``crop`` is taken to remove nothing: what it removes depends on the subject."""
    pixels = image.width * image.height
    result = layout.largest_canvas(image.width, image.height, options)
    share = 1 / 3 if options.output is Output.MASK else 1  # one channel
    needed = _PEAK.process + _per_pixel(image) * pixels + share * _RESULT[options.format] * result
    is_fitted = options.canvas != ORIGINAL or options.has_outline
    if result < pixels or is_fitted or options.scale != ORIGINAL or options.position not in (None, ORIGINAL):
        needed += _PEAK.moved * pixels + _PEAK.canvas * result
    if options.has_outline:
        needed += _PEAK.outline * result + _PEAK.outline_grid * min(result, _OUTLINE_GRID_PIXELS)
    if options.background_blur:
        background = image
    if background and options.output is not Output.MASK:
        needed += _PEAK.background * background.width * background.height + _PEAK.covered * result
    return needed


def _process(precision: Precision) -> int:
    return _PEAK.process + (_PEAK.ultra_high if precision is Precision.ULTRA_HIGH else 0)


def _per_pixel(image: ImageInfo) -> float:
    return _PEAK.image + (0 if image.format == _OPAQUE else _PEAK.own_alpha)


@dataclass(frozen=True)
class FunctionMemory:
    """Memory of the functions in MB, as Lambda counts them: 2**20 bytes. ``segment_mb`` is None for other hosts."""

    segment_mb: int | None
    refine_mb: int
    encode_mb: int


def check_image(
    image: ImageInfo, options: Options, background: ImageInfo | None, model_bytes: int, functions: FunctionMemory
) -> None:
    """Check that all functions can hold an image.

    Args:
        image: the validated image.
        options: of the job.
        background: the background image, if any.
        model_bytes: memory of the segmentation model; 0 if unknown.
        functions: memory of the functions.

    Raises:
        TooManyPixelsError: a function has too little memory for the image with these options.
    """
    smaller = "Scale it down before the upload"
    if functions.segment_mb is not None:
        _check("Segment", segment_bytes(image, model_bytes), functions.segment_mb, image, smaller)
    _check("Refine", refine_bytes(image, options.precision_level), functions.refine_mb, image, smaller)
    smaller += ", set max_megapixels or a smaller canvas, or set format to png, jpeg or zip"
    _check("Encode", encode_bytes(image, options, background), functions.encode_mb, image, smaller)


def check_process(
    image: ImageInfo, options: Options, background: ImageInfo | None, model_bytes: int, memory_mb: int
) -> None:
    """Check that one process can run all stages for an image; the model stays in memory.

    Raises:
        TooManyPixelsError: the function has too little memory for the image with these options.
    """
    stages = {
        "Segment": segment_bytes(image, 0) + _PEAK.process,
        "Refine": refine_bytes(image, options.precision_level),
        "Encode": encode_bytes(image, options, background),
    }
    stage = max(stages, key=lambda name: stages[name])
    needed = stages[stage] + image.bytes + model_bytes
    if needed > memory_mb << 20:
        raise TooManyPixelsError(
            f"{stage} and the model need {needed / 2**20:,.0f} MB of memory for this image; the bulk function has "
            f"{memory_mb:,} MB",
            field="image.pixels",
            value=f"{image.width} x {image.height}",
            remedy="Scale it down, set max_megapixels, upload it outside bulk/, or deploy with a larger BulkMemory.",
        )


def _check(stage: str, needed_bytes: float, memory_mb: int, image: ImageInfo, smaller: str) -> None:
    if needed_bytes > memory_mb << 20:
        raise TooManyPixelsError(
            f"{stage} needs {needed_bytes / 2**20:,.0f} MB of memory for this image; its function has {memory_mb:,} MB",
            field="image.pixels",
            value=f"{image.width} x {image.height}",
            remedy=f"{smaller}; or deploy with a larger {stage}Memory.",
        )
