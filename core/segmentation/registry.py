"""The segmentation networks: what each one takes, and the file that holds its weights.

Every file is pinned by its SHA-256. The files are those of rembg's release; each hash was found, equal, in at least two
unrelated public sources. ``functions.runtime.weights`` finds and downloads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from core.errors import InvalidOptionsError, reason

CLASSICAL: Final = "classical"
"""The built-in segmenter, which needs no weights."""

BUNDLED: Final = "u2netp"
"""The network whose weights come with the installation and with the container image."""

Triple: TypeAlias = tuple[float, float, float]

_GB: Final = 1_000_000_000

_LARGEST_ONNX: Final = 1 << 31
"""The maximum of a protobuf file."""

_FILE_URI: Final = r"^((https?|s3)://[!-.0-~]+|file://)/[!-~]*[!-.0-~]$"
"""Printable ASCII that ends with a file name."""


@dataclass(frozen=True)
class Model:
    """A segmentation network.

    Attributes:
        name: as in rembg, or as the owner of a custom model chose.
        file: file name in rembg's release and on a mirror.
        sha256: hash of the file, lower-case hex.
        bytes: size of the file.
        input_px: side of the network's square input, pixels.
        memory_bytes: upper estimate of the memory of a run on a CPU; 0 if unknown.
        licence: license of the weights, as upstream states it.
        commercial_use: whether the license allows commercial use.
        mean: subtracted from RGB in [0, 1]; ImageNet's by default.
        std: divisor of the difference.
        logits: whether the output needs a sigmoid.
        general: suits any kind of subject and is known to be good.
        uri: URL of the file, if it is neither on a mirror nor in rembg's release.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    input_px: int
    memory_bytes: int
    licence: str
    commercial_use: bool
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    logits: bool = False
    general: bool = True
    uri: str | None = None

    @property
    def identity(self) -> str:
        """64 hexadecimal digits that change with the weights and, for a custom model, with its preprocessing."""
        if self.uri is None:
            return self.sha256
        preprocessing = (self.sha256, self.input_px, self.mean, self.std, self.logits)
        return hashlib.sha256(repr(preprocessing).encode()).hexdigest()


_U2NET: Final = partial(Model, input_px=320, licence="Apache-2.0", commercial_use=True)
# The author licenses code and weights under MIT, and notes that DIS5K, part of the training data, has its own terms.
_BIREFNET: Final = partial(Model, input_px=1024, logits=True, memory_bytes=7 * _GB, licence="MIT", commercial_use=True)

_BEST_FIRST: Final = (
    Model(
        "bria-rmbg",
        "bria-rmbg-2.0.onnx",
        "5b486f08200f513f460da46dd701db5fbb47d79b4be4b708a19444bcd4e79958",
        bytes=1_024_331_469,
        input_px=1024,
        memory_bytes=7 * _GB,
        licence="CC BY-NC 4.0; commercial use by agreement with BRIA",
        commercial_use=False,
    ),
    _BIREFNET(
        "birefnet-general",
        "BiRefNet-general-epoch_244.onnx",
        "58f621f00f5d756097615970a88a791584600dcf7c45b18a0a6267535a1ebd3c",
        bytes=972_666_916,
    ),
    _BIREFNET(
        "birefnet-general-lite",
        "BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx",
        "5600024376f572a557870a5eb0afb1e5961636bef4e1e22132025467d0f03333",
        bytes=224_005_088,
    ),
    _BIREFNET(
        "birefnet-portrait",
        "BiRefNet-portrait-epoch_150.onnx",
        "1ba1c8ff5a7bbfadc8d8d13fb11d7be793f91f23d9d466549e37a854f6668f99",
        bytes=972_666_916,
        general=False,
    ),
    Model(
        "isnet-general-use",
        "isnet-general-use.onnx",
        "60920e99c45464f2ba57bee2ad08c919a52bbf852739e96947fbb4358c0d964a",
        bytes=178_648_008,
        input_px=1024,
        mean=(0.5, 0.5, 0.5),
        std=(1.0, 1.0, 1.0),
        memory_bytes=3 * _GB,
        licence="none stated; trained on DIS5K, non-commercial",
        commercial_use=False,
    ),
    Model(
        "isnet-anime",
        "isnet-anime.onnx",
        "f15622d853e8260172812b657053460e20806f04b9e05147d49af7bed31a6e99",
        bytes=176_069_933,
        input_px=1024,
        std=(1.0, 1.0, 1.0),
        memory_bytes=3 * _GB,
        licence="Apache-2.0",
        commercial_use=True,
        general=False,
    ),
    _U2NET(
        "u2net",
        "u2net.onnx",
        "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        bytes=175_997_641,
        memory_bytes=_GB,
    ),
    _U2NET(
        "u2net_human_seg",
        "u2net_human_seg.onnx",
        "01eb6a29a5c4d8edb30b56adad9bb3a2a0535338e480724a213e0acfd2d1c73c",
        bytes=175_997_641,
        memory_bytes=_GB,
        general=False,
    ),
    Model(
        "silueta",
        "silueta.onnx",
        "75da6c8d2f8096ec743d071951be73b4a8bc7b3e51d9a6625d63644f90ffeedb",
        bytes=44_173_029,
        input_px=320,
        memory_bytes=_GB,
        licence="none stated; made smaller from u2net (Apache-2.0)",
        commercial_use=False,
    ),
    _U2NET(
        "u2netp",
        "u2netp.onnx",
        "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        bytes=4_574_861,
        memory_bytes=_GB // 2,
    ),
)

MODELS: Final[dict[str, Model]] = {model.name: model for model in _BEST_FIRST}
"""The networks by name, best first."""


class _Custom(BaseModel):
    """A custom model in PBR_CUSTOM_MODELS."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    uri: Annotated[str, Field(pattern=_FILE_URI, max_length=1024)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0, le=_LARGEST_ONNX)]
    input_px: Annotated[int, Field(ge=32, le=4096)]
    licence: Annotated[str, Field(pattern=r"^[^\p{C}]+$", max_length=200)] = "not stated"
    commercial_use: bool = False
    memory_bytes: Annotated[int, Field(ge=0, lt=1 << 50)] = 0
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        0.229,
        0.224,
        0.225,
    )
    logits: bool = False


_CUSTOM: Final = TypeAdapter(list[_Custom])


def with_custom(text: str) -> dict[str, Model]:
    """Return the registry followed by the custom models of a JSON list; an empty text has none.

    Raises:
        InvalidOptionsError: the list does not follow docs/how-to/models.md, or a name is taken.
    """
    try:
        # Python represents invalid UTF-8 in the environment as lone surrogates.
        described = _CUSTOM.validate_json(text.encode(errors="surrogatepass")) if text else []
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, value = ".".join(map(str, first["loc"])), first["input"]
        raise _bad_custom(reason(first["msg"]), where, value if where else text) from None
    registry = dict(MODELS)
    for index, model in enumerate(described):
        if model.name in [*registry, CLASSICAL, "auto"]:
            raise _bad_custom("This name is taken", f"{index}.name", model.name)
        registry[model.name] = Model(**model.model_dump(), file=model.uri.rpartition("/")[2], general=False)
    return registry


def _bad_custom(what: str, where: str, value: object) -> InvalidOptionsError:
    return InvalidOptionsError(
        f"The custom models are invalid: {what}",
        field=f"PBR_CUSTOM_MODELS.{where}".rstrip("."),
        value=value,
        remedy="docs/how-to/models.md shows what describes a model.",
    )


def names() -> list[str]:
    """Return the names of the models that every stack has: the networks, best first, and ``classical``."""
    return [*MODELS, CLASSICAL]


def check_name(name: str, registry: Mapping[str, Model]) -> None:
    """Validate the name of a model.

    Raises:
        InvalidOptionsError: neither ``registry`` nor the built-in segmenter has that name.
    """
    if name not in registry and name != CLASSICAL:
        raise _unknown(name, [*registry, CLASSICAL])


def network(name: str, registry: Mapping[str, Model]) -> Model:
    """Return a network's entry.

    Raises:
        InvalidOptionsError: ``registry`` has no such network; ``classical`` is not one.
    """
    if name not in registry:
        raise _unknown(name, registry)
    return registry[name]


def _unknown(name: str, accepted: Iterable[str]) -> InvalidOptionsError:
    return InvalidOptionsError(
        "Unknown model",
        field="options.model",
        value=name,
        remedy=f"The models are: {', '.join(accepted)}.",
    )
