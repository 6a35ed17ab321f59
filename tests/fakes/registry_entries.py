"""Entries of the model registry."""

from hashlib import sha256
from typing import Any, Final

from core.segmentation.registry import Model

CONTENT: Final = b"the weights of a small network" * 100

CUSTOM: Final[dict[str, Any]] = {
    "name": "products-v2",
    "uri": "s3://models/products-v2.onnx",
    "sha256": "0" * 64,
    "bytes": 1000,
    "input_px": 512,
}
"""A custom model as its owner describes it."""


def model(name: str = "small", content: bytes = CONTENT, **changes: Any) -> Model:
    """A general model under a free license whose weights are ``content``."""
    return Model(
        **{
            "name": name,
            "file": f"{name}-epoch_7.onnx",
            "sha256": sha256(content).hexdigest(),
            "bytes": len(content),
            "input_px": 32,
            "memory_bytes": 1,
            "licence": "MIT",
            "commercial_use": True,
            **changes,
        }
    )
