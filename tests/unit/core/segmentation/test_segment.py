from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.arrays import Mask, Rgb
from core.errors import InvalidOptionsError, UnknownForegroundError
from core.image.decode import decode
from core.segmentation.registry import CLASSICAL, MODELS
from core.segmentation.segment import segment, sufficient_px
from core.segmentation.sessions import Networks
from tests.conftest import file_of
from tests.fakes.tiny_networks import Directory, without_weights

NO_NETWORKS = without_weights()


def classical(rgb: Rgb) -> Mask:
    return segment(rgb, CLASSICAL, NO_NETWORKS).mask


def iou(mask: Mask, truth: NDArray[np.bool_]) -> float:
    height, width = truth.shape
    found = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return float((found & truth).sum() / (found | truth).sum())


def meadow(height: int = 300, width: int = 400) -> Rgb:
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(1)
    shade = 90 + 40 * x / width + 30 * y / height + rng.normal(0, 6, (height, width))
    return np.stack([0.5 * shade, shade, 0.4 * shade], axis=-1).clip(0, 255).astype(np.uint8)


def ellipse(rgb: Rgb, center: tuple[int, int], axes: tuple[int, int]) -> NDArray[np.bool_]:
    canvas = np.zeros(rgb.shape[:2], np.uint8)
    cv2.ellipse(canvas, center, axes, 20, 0, 360, 1, -1)
    return canvas > 0


SCENES = {
    "centred": [((200, 150), (90, 60))],
    "off centre": [((110, 190), (60, 45))],
    "cut off by the lower edge": [((200, 250), (90, 120))],
    "cut off at the left": [((30, 150), (90, 60))],
    "two parts": [((140, 150), (50, 70)), ((270, 150), (50, 60))],
    "small": [((200, 150), (32, 28))],
}


@pytest.mark.parametrize("parts", SCENES.values(), ids=SCENES.keys())
@pytest.mark.parametrize("colour", [(200, 60, 40), (240, 240, 235), (40, 50, 160)])
def test_a_coloured_subject_is_found_to_its_outline(
    parts: list[tuple[tuple[int, int], tuple[int, int]]], colour: tuple[int, int, int]
) -> None:
    rgb = meadow()
    truth = np.any([ellipse(rgb, *part) for part in parts], axis=0)
    rgb[truth] = np.clip(np.array(colour) + np.random.default_rng(2).normal(0, 6, (truth.sum(), 3)), 0, 255)
    assert iou(classical(rgb), truth) > 0.93


def test_a_subject_of_several_colours_is_found_whole() -> None:
    rgb = meadow()
    truth = ellipse(rgb, (200, 150), (110, 80))
    bands = np.array([(200, 60, 40), (240, 230, 220), (50, 50, 150)], np.uint8)
    rgb[truth] = bands[(np.mgrid[:300, :400][0] // 40) % 3][truth]
    assert iou(classical(rgb), truth) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("x", [120, 200, 280])
@pytest.mark.parametrize("y", [110, 190])
@pytest.mark.parametrize(("width", "height"), [(40, 40), (100, 43), (60, 90)])
def test_the_outline_is_found_wherever_the_subject_is(x: int, y: int, width: int, height: int) -> None:
    rgb = meadow()
    truth = ellipse(rgb, (x, y), (width, height))
    rgb[truth] = (210, 70, 50)
    assert iou(classical(rgb), truth) > 0.9


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (300, 90), (1200, 1600)])
def test_the_mask_keeps_the_aspect_and_is_soft_only_at_the_edge(size: tuple[int, int]) -> None:
    height, width = size
    rgb = np.full((height, width, 3), 250, np.uint8)
    rgb[height // 4 : -height // 4, width // 4 : -width // 4] = (190, 30, 30)
    mask = classical(rgb)
    scale = min(1.0, 512 / max(size))
    assert mask.shape == (round(height * scale), round(width * scale))
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() == 1
    assert mask[mask.shape[0] // 2, mask.shape[1] // 2] == 1
    assert 0 < np.mean((mask > 0.05) & (mask < 0.95)) < 0.5


@pytest.mark.parametrize(("name", "least", "most"), [("astronaut", 0.3, 0.6), ("coffee", 0.4, 0.6)])
def test_a_photograph_gives_a_plausible_cut_out(name: str, least: float, most: float) -> None:
    from skimage import data

    rgb = getattr(data, name)()
    height, width = rgb.shape[:2]
    mask = cv2.resize(classical(rgb), (width, height))
    assert least < mask.mean() < most
    corners = mask[[0, 0], [0, -1]]
    assert corners.max() < 0.5
    assert mask[height // 2 :, width // 4 : width // 2].mean() > 0.7


def test_the_same_picture_gives_the_same_mask_whatever_ran_before() -> None:
    from skimage import data

    rgb = data.coffee()
    first = classical(rgb)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        cv2.setRNGSeed(99)
        classical(meadow_with_ball())
        assert np.array_equal(classical(rgb), first)
    finally:
        cv2.setNumThreads(threads)


def meadow_with_ball() -> Rgb:
    rgb = meadow()
    rgb[ellipse(rgb, (200, 150), (60, 60))] = (220, 40, 40)
    return rgb


def empty_pictures() -> dict[str, Rgb]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:300, :400]
    vignette = 1 - 0.6 * np.hypot((x - 200) / 200, (y - 150) / 150)[..., None] / np.sqrt(2)
    return {
        "black": np.zeros((300, 400, 3), np.uint8),
        "white": np.full((300, 400, 3), 255, np.uint8),
        "smallest": np.full((16, 16, 3), 128, np.uint8),
        "noise": rng.integers(0, 256, (300, 400, 3), dtype=np.uint8),
        "fine noise": rng.integers(0, 256, (1200, 1600, 3), dtype=np.uint8),
        "clouds": cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 4),
        "gradient": np.broadcast_to((x * 255 // 400)[..., None], (300, 400, 3)).astype(np.uint8),
        "slanted gradient": np.broadcast_to(((x + y) * 255 // 700)[..., None], (300, 400, 3)).astype(np.uint8),
        "vignette": (vignette * (200, 180, 160)).astype(np.uint8),
    }


EMPTY = empty_pictures()


@pytest.mark.parametrize("rgb", EMPTY.values(), ids=EMPTY.keys())
def test_a_picture_of_nothing_has_no_subject(rgb: Rgb) -> None:
    with pytest.raises(UnknownForegroundError) as caught:
        classical(rgb)
    assert caught.value.field == "image"


def test_the_built_in_segmenter_has_no_weights() -> None:
    found = segment(meadow_with_ball(), CLASSICAL, NO_NETWORKS)
    assert (found.model, found.weights_sha256) == (CLASSICAL, None)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InvalidOptionsError):
        segment(meadow(), "u3net", NO_NETWORKS)


def small_network(side: int, *, gain: float = 1.0, shift: float = 0.0) -> bytes:
    """A network whose prediction is ``gain`` times the mean of the normalised channels, plus ``shift``."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
            onnx.helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
            onnx.helper.make_node("Add", ["scaled", "shift"], ["mask"]),
        ],
        "brightness",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1, 1, side, side])],
        [
            onnx.numpy_helper.from_array(np.float32(gain), "gain"),
            onnx.numpy_helper.from_array(np.float32(shift), "shift"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def installed(directory: Path, name: str, content: bytes) -> Networks:
    (directory / f"{name}.onnx").write_bytes(content)
    entry = replace(MODELS[name], sha256=sha256(content).hexdigest(), bytes=len(content))
    return Networks(Directory(directory, {name: entry}), threads=1)


def bright_disc(height: int, width: int) -> tuple[Rgb, NDArray[np.bool_]]:
    rgb = np.full((height, width, 3), 10, np.uint8)
    truth = np.zeros((height, width), np.uint8)
    cv2.circle(truth, (width // 2, height // 2), min(height, width) // 3, 1, -1)
    rgb[truth > 0] = 250
    return rgb, truth > 0


@pytest.mark.parametrize("size", [(480, 640), (900, 300), (120, 160)])
def test_a_network_gives_a_mask_at_its_own_resolution(tmp_path: Path, size: tuple[int, int]) -> None:
    networks = installed(tmp_path, "u2net", small_network(320, gain=0.2, shift=0.5))
    rgb, truth = bright_disc(*size)
    found = segment(rgb, "u2net", networks)
    scale = min(1.0, 320 / max(size))
    assert found.mask.shape == (round(size[0] * scale), round(size[1] * scale))
    assert found.mask.dtype == np.float32
    assert found.mask.max() == 1
    assert found.mask.min() >= 0
    assert (found.model, found.weights_sha256) == ("u2net", networks.source.registry["u2net"].sha256)
    assert iou(found.mask, truth) > 0.95


@pytest.mark.parametrize("name", MODELS)
def test_a_network_is_fed_and_read_as_rembg_does_it(tmp_path: Path, name: str) -> None:
    import onnxruntime
    from PIL import Image
    from rembg.sessions import sessions

    side = MODELS[name].input_px
    networks = installed(tmp_path, name, small_network(side, gain=0.25, shift=0.5))
    shade = np.linspace(0, 255, side).astype(np.uint8)
    rgb = np.stack(np.broadcast_arrays(shade, shade[:, None], shade[::-1]), axis=-1).copy()
    ours = segment(rgb, name, networks).mask

    class Theirs(sessions[name]):
        @classmethod
        def download_models(cls, *_args: object, **_kwargs: object) -> str:
            return str(tmp_path / f"{name}.onnx")

    (picture,) = Theirs(name, onnxruntime.SessionOptions()).predict(Image.fromarray(rgb))
    theirs = np.asarray(picture, np.float32) / 255
    unclipped = (ours > 0.01) & (ours < 0.99)
    assert unclipped.mean() > 0.3
    slope, offset = np.polyfit(theirs[unclipped], ours[unclipped], 1)
    assert np.abs(slope * theirs + offset - ours)[unclipped].max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3000, 4000), (2993, 4007)])
@pytest.mark.parametrize("model", [CLASSICAL, "u2net"])
def test_a_picture_of_sufficient_size_gives_the_mask_of_the_full_one(
    tmp_path: Path, model: str, size: tuple[int, int]
) -> None:
    networks = installed(tmp_path, "u2net", small_network(320, gain=0.2, shift=0.5))
    rgb, _ = bright_disc(*size)
    rgb += np.random.default_rng(4).integers(0, 6, rgb.shape, dtype=np.uint8)
    data = file_of(Image.fromarray(rgb), "JPEG", quality=92)
    full = decode(data)
    reduced = decode(data, at_least_px=sufficient_px(model, networks.source.registry))
    assert reduced.rgb.shape[0] < full.rgb.shape[0]
    expected, found = (segment(p.rgb, model, networks).mask for p in (full, reduced))
    assert np.abs(cv2.resize(found, expected.shape[::-1]) - expected).mean() < 0.002


def test_an_unknown_model_has_no_sufficient_size() -> None:
    with pytest.raises(InvalidOptionsError):
        sufficient_px("u3net", MODELS)


def test_a_network_that_is_sure_of_nothing_finds_no_subject(tmp_path: Path) -> None:
    networks = installed(tmp_path, "u2net", small_network(320, gain=0.05, shift=0.2))
    with pytest.raises(UnknownForegroundError):
        segment(bright_disc(300, 400)[0], "u2net", networks)


def test_a_changed_network_is_loaded_anew(tmp_path: Path) -> None:
    rgb, truth = bright_disc(320, 320)
    networks = installed(tmp_path, "u2net", small_network(320, gain=0.2, shift=0.5))
    assert iou(segment(rgb, "u2net", networks).mask, truth) > 0.95
    networks = installed(tmp_path, "u2net", small_network(320, gain=-0.2, shift=0.5))
    assert iou(segment(rgb, "u2net", networks).mask, ~truth) > 0.95
