"""Measure the peak memory of Refine and Encode: the function's process, from its start to the end of one image.

Each case runs the real handler in an interpreter of its own, with S3 in memory, on the photograph of ``bench.speed``.
``functions.validate.memory`` has the resulting estimates. Usage:
``python -m bench.studies.stage_memory [--megapixels 12 48 100]``.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from botocore.exceptions import ClientError

from bench import markdown
from bench.measure import peak_bytes
from core.image.encode import encode_plane

_EVENTS: Final = Path(__file__).parents[2] / "events"
_MASK_PX: Final = {"mask 320 px": 320, "mask 1024 px": 1024}
_BASE: Final = {"source": "jpeg", "mask": "mask 320 px", "alpha": "alpha", "options": {}}

_REFINE: Final[Mapping[str, dict[str, Any]]] = {
    "standard": {"options": {"precision_level": "standard"}},
    "high": {"options": {"precision_level": "high"}},
    "high, mask of 1024 px": {"mask": "mask 1024 px"},
    "high, PNG with alpha": {"source": "rgba"},
    "ultra_high": {"options": {"precision_level": "ultra_high"}},
}
_ENCODE: Final[Mapping[str, dict[str, Any]]] = {
    "png": {},
    "png, PNG with alpha": {"source": "rgba"},
    "png, ultra_high": {"options": {"precision_level": "ultra_high"}},
    "png, scaled": {"options": {"scale": "90%"}},
    "png, on an image": {"background": True},
    "png, scaled, on an image": {"options": {"scale": "90%"}, "background": True},
    "png, blurred": {"options": {"background_blur": "0.5%"}},
    "png, PNG with alpha, blurred": {"source": "rgba", "options": {"background_blur": "0.5%"}},
    "png, scaled, blurred": {"options": {"scale": "90%", "background_blur": "0.5%"}},
    "png, blurred, on a canvas": {"options": {"canvas": "2000x2000", "background_blur": "0.5%"}},
    "zip": {"options": {"format": "zip"}},
    "jpeg": {"options": {"format": "jpeg"}},
    "webp": {"options": {"format": "webp"}},
    "webp_lossless": {"options": {"format": "webp_lossless"}},
    "avif": {"options": {"format": "avif"}},
    "avif, scaled, on an image": {"options": {"format": "avif", "scale": "90%"}, "background": True},
    "mask": {"options": {"output": "mask"}},
    "jpeg, on a canvas": {"options": {"format": "jpeg", "canvas": "2000x2000", "scale": "85%"}},
    "png, on a canvas": {"options": {"canvas": "2000x2000"}},
    "png, on a canvas of 36 MP": {"options": {"canvas": "6000x6000"}},
    "png, outlined, on a canvas": {"options": {"canvas": "2000x2000", "outline": "8px"}},
    "png, outlined": {"options": {"outline": "8px"}},
    "png, opaque": {"alpha": "opaque"},
    "webp, opaque": {"options": {"format": "webp"}, "alpha": "opaque"},
    "webp_lossless, opaque": {"options": {"format": "webp_lossless"}, "alpha": "opaque"},
    "avif, opaque": {"options": {"format": "avif"}, "alpha": "opaque"},
    "avif, at most 12 MP": {"options": {"format": "avif", "max_megapixels": 12}},
}
CASES: Final = {"refine": _REFINE, "encode": _ENCODE}


class Bucket:
    """A fake S3 client over the files of a folder; discards what is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: D102, N803
        if not (self._folder / Key).is_file():
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        data = (self._folder / Key).read_bytes()
        return {"Body": io.BytesIO(data), "ContentLength": len(data), "ETag": '"etag"', "Metadata": {}}

    def put_object(self, **_: Any) -> dict[str, Any]:  # noqa: D102
        return {}

    def get_paginator(self, _name: str) -> Any:  # noqa: D102
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:  # noqa: D102
        return iter(())


def main() -> None:
    """Print a table of peaks in MB for each stage."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.stage_memory", description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=(12, 24, 48, 100), help="Sizes, e.g. 12 48.")
    parser.add_argument("--only", nargs="+", help="Cases to run, by name, e.g. high avif.")
    parser.add_argument("--threads", type=int, default=1, help="OpenCV threads, e.g. 6. Lambda has 2 to 6.")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS, metavar=("STAGE", "CASE", "FOLDER", "THREADS"))
    arguments = parser.parse_args()
    if arguments.one:
        stage, case, folder, threads = arguments.one
        print(_peak(stage, case, Path(folder), int(threads)))
        return
    peaks: dict[str, dict[str, dict[float, str]]] = {stage: {} for stage in CASES}
    for megapixels in arguments.megapixels:
        with tempfile.TemporaryDirectory() as folder:
            _draw(Path(folder), megapixels)
            for stage, cases in CASES.items():
                for case in cases:
                    if arguments.only and case not in arguments.only:
                        continue
                    peak = _measured(stage, case, folder, arguments.threads)
                    peaks[stage].setdefault(case, {})[megapixels] = peak
                    print(f"{stage}, {case}, {megapixels:g} MP: {peak}", file=sys.stderr, flush=True)
    for stage, rows in peaks.items():
        if rows:
            heads = ["", *(f"{size:g} MP" for size in arguments.megapixels)]
            lines = [[case, *by_size.values()] for case, by_size in rows.items()]
            print(markdown.table(f"Peak memory of {stage}, MB", heads, lines), end="\n\n")


def _draw(folder: Path, megapixels: float) -> None:
    """Write the photograph, its masks and its alpha."""
    from bench import masks
    from bench.speed import portrait  # the measured processes import neither

    rgb, alpha = portrait(megapixels)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    (folder / "jpeg").write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    opaque = np.full(alpha.shape, 255, np.uint8)
    opaque[0] = 0
    cut = cv2.merge([*cv2.split(cv2.blur(bgr, (15, 15))), opaque])  # with noise, 100 MP would be more than 100 MiB
    (folder / "rgba").write_bytes(cv2.imencode(".png", cut, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    (folder / "alpha").write_bytes(encode_plane(alpha))
    (folder / "opaque").write_bytes(encode_plane(np.ones_like(alpha)))
    for name, side_px in _MASK_PX.items():
        (folder / name).write_bytes(encode_plane(masks.mask(alpha, side_px, masks.Fault.JITTERED)))


def _measured(stage: str, case: str, folder: str, threads: int) -> str:
    run = subprocess.run(  # noqa: S603  the command is trusted
        [sys.executable, "-m", "bench.studies.stage_memory", "--one", stage, case, folder, str(threads)],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip().splitlines()[-1] if run.returncode == 0 else f"failed: {run.stderr.strip()[-200:]}"


def _peak(stage: str, case: str, folder: Path, threads: int) -> str:
    """Run the handler on one image and return the process's peak in MB."""
    os.environ |= {"WORK_BUCKET": "work", "RESULTS_BUCKET": "results", "AWS_DEFAULT_REGION": "eu-west-1"}
    os.environ |= {"POWERTOOLS_SERVICE_NAME": stage, "POWERTOOLS_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    from functions.encode import app as encode_app
    from functions.encode.work import Delivery
    from functions.refine import app as refine_app
    from functions.runtime.outcomes import Outcomes
    from functions.runtime.store import Store

    cv2.setNumThreads(threads)
    app: Any = {"refine": refine_app, "encode": encode_app}[stage]
    app.STORE = Store(Bucket(folder))  # type: ignore[arg-type]
    encode_app.DELIVERY = Delivery(Outcomes(app.STORE, "results"), "work")
    setting = {**_BASE, **CASES[stage][case]}
    job = json.loads((_EVENTS / f"{stage}.json").read_text())
    job["source"]["key"] = setting["source"]
    job["options"] |= setting["options"]
    job["segment"]["mask"]["key"] = setting["mask"]
    if stage == "encode":
        job["refine"]["alpha"]["key"] = setting["alpha"]
        job["background"] = {**job["source"], "key": "jpeg"} if setting.get("background") else None
    app.handler(job, _Context())
    return f"{peak_bytes() / 1e6:,.0f}"


class _Context:
    function_name, memory_limit_in_mb, aws_request_id = "function", 3008, "request"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:function"


if __name__ == "__main__":
    main()
