"""Licenses of the locked packages, and bills of materials of the images."""

import json
import tomllib
from pathlib import Path

import pytest
from cyclonedx.output.json import JsonV1Dot6

from core.segmentation.registry import BUNDLED, MODELS
from infrastructure import licenses, sbom
from tests.conftest import ROOT

RULES = """
allowed = ["MIT"]
[names]
"License :: OSI Approved :: MIT License" = "MIT"
[[packages]]
name = "codespell"
license = "GPL-2.0-only"
reason = "A command."
"""


def problems(folder: Path, dev: str, rules: str = RULES) -> list[str]:
    (folder / "licenses.toml").write_text(rules)
    for name in (*licenses.IMAGES, "dev"):
        (folder / f"{name}.lock").write_text(dev if name == "dev" else "")
    return licenses.problems(folder)


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        ("pluggy==1.6.0", ""),
        ("httpx==0.28.1", "httpx 0.28.1 has the license BSD-3-Clause. Use another package, or add a reason"),
        ("no-such-package==1.0", "no-such-package 1.0 is not installed"),
        ("sortedcontainers==2.4.0", "sortedcontainers 2.4.0 has no known license: ['Apache 2.0', "),
    ],
)
def test_a_license_must_be_allowed_or_have_a_reason(tmp_path: Path, package: str, problem: str) -> None:
    found = problems(tmp_path, f"codespell==2.4.1 \\\n    --hash=sha256:00\n{package} \\\n    --hash=sha256:00\n")
    assert len(found) == bool(problem)
    assert not problem or found[0].startswith(problem)


def test_a_reason_for_a_package_that_is_gone_must_be_removed(tmp_path: Path) -> None:
    assert problems(tmp_path, "pluggy==1.6.0\n") == ["codespell: no package has this name. Remove it."]


def test_packages_of_other_systems_are_not_in_an_image(tmp_path: Path) -> None:
    lock = tmp_path / "runtime.lock"
    lock.write_text(
        "one==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:0a\n"
        "two==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:0b \\\n    --hash=sha256:0c\n"
    )
    assert list(licenses.locked(lock)) == [licenses.Package("two", "2.0", ("0b", "0c"))]


@pytest.mark.parametrize("lock", licenses.IMAGES)
def test_the_bill_of_an_image_has_all_that_is_put_into_it(lock: str) -> None:
    bill = json.loads(JsonV1Dot6(sbom.bill(lock, ROOT)).output_as_string())
    parts = {part["bom-ref"]: part for part in bill["components"]}
    packages = {f"pkg:pypi/{one.name}@{one.version}" for one in licenses.locked(ROOT / f"requirements/{lock}.lock")}
    assert len(packages) > 40 and packages < parts.keys()
    assert all(part["licenses"] for part in parts.values() if part["type"] != "container")
    [base] = parts.keys() - packages - {"u2netp.onnx"}
    assert base.startswith("pkg:oci/python@sha256")
    weights = [part["hashes"][0]["content"] for part in parts.values() if part["type"] == "machine-learning-model"]
    assert weights == ([] if lock == "web" else [MODELS[BUNDLED].sha256])
    assert (
        bill["metadata"]["component"]["version"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
