import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = ("numba", "onnxruntime", "pymatting", "rembg", "scipy", "skimage")

LOADED = f"import sys; print(*sorted(set(sys.modules) & set({HEAVY})))"

CUT_OUT = """
import numpy as np
from core import pipeline
from core.matting.refine import refine
from core.options import Options
from core.arrays import Picture
from core.types import ImageInfo, Precision
mask = np.zeros((24, 32), np.float32)
mask[6:18, 8:24] = 1
rgb = np.full((96, 128, 3), 90, np.uint8)
for precision in (Precision.DRAFT, Precision.STANDARD, Precision.HIGH):
    alpha = refine(rgb, mask, precision=precision).alpha
    pipeline.finish(Picture(rgb, None, ImageInfo("png", 128, 96, 0)), alpha, Options(precision_level=precision), None)
"""


@pytest.mark.parametrize(
    "code",
    ["import core.pipeline", "import functions.refine.app, functions.encode.app", CUT_OUT],
    ids=["pipeline", "handlers", "cut-out"],
)
def test_the_fast_path_imports_nothing_heavy(code):
    environment = os.environ | {"WORK_BUCKET": "work", "RESULTS_BUCKET": "results", "AWS_DEFAULT_REGION": "eu-west-1"}
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LOADED}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split() == []
