"""Check a deployed stack with two images, as its users would send them: ``make smoke``.

One image is uploaded to S3, one goes through the HTTP API with a key that expires within the hour. Behind an edge, the
API of a Region accepts no such request, so it is only called. Both images are drawn with random noise, so no cached
result answers. Then ``pbr doctor`` examines the stack, alarms included. The key is revoked, and everything that was
stored is deleted, as with ``pbr forget``; also if a check has failed.
"""

import argparse
import base64
import io
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from PIL import Image

from client import api_keys
from client.commands.connect import connect
from client.commands.forget import erasure_of
from client.doctor.examination import examine
from client.errors import sdk_errors
from client.jobs import JobClient
from client.stack import Stack
from core.errors import BackgroundRemoverError
from functions.contracts.api_key import Scope
from functions.contracts.review import API_FOLDER
from infrastructure.deployment.settings import DeployError, read_settings

WIDTH_PX: Final = 480
HEIGHT_PX: Final = 360
FOLDER: Final = "smoke/"
"""Prefix of the upload's key."""

KEY_NAME: Final = "make smoke"
"""Name of the API key. Revoked keys stay in the list."""

_TIMEOUT_S: Final = 600.0  # a first image can wait for an instance of a worker or endpoint
_NAME: Final = "disc.png"
_KEY_LIFETIME: Final = timedelta(hours=1)
_OPAQUE: Final = 200
_TRANSPARENT: Final = 50


class SmokeError(Exception):
    """The stack does not work; the message says what was expected."""


class Smoke:
    """The checks of one stack.

    Args:
        stack: the stack.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._keys: list[str] = []
        self._folders: list[str] = []

    def run(self) -> bool:
        """Run all checks, print what each has found, and return whether all have passed."""
        checks = {
            "image through S3": self._upload,
            "image through the API": self._request,
            "doctor": self._examine,
            "deletion": self._delete,
        }
        passed = [_passes(name, check) for name, check in checks.items()]
        return all(passed)

    def _upload(self) -> str:
        jobs = JobClient(self._stack)
        upload = jobs.upload(_NAME, picture(), folder=FOLDER)
        self._keys.append(upload.key)
        execution = jobs.execution_of(upload)
        for _ in jobs.follow(execution, timeout_s=_TIMEOUT_S):
            pass
        result = jobs.result(execution)
        check_cutout(result.data)
        return f"execution {execution.rpartition(':')[2]}, model {result.sidecar['model']['name']}"

    def _request(self) -> str:
        if self._stack.parameters.get("EdgeDomain"):
            return self._probe()
        issued = api_keys.create(
            self._stack,
            KEY_NAME,
            [Scope.PROCESS],
            rate_per_minute=None,
            monthly_quota=None,
            lifetime=_KEY_LIFETIME,
            now=now(),
        )
        self._folders.append(f"{API_FOLDER}{issued.key.key_id}/")
        try:
            return self._process(issued.key.reveal())
        finally:
            api_keys.revoke(self._stack, issued.key.key_id, now())

    def _probe(self) -> str:
        """Call the API of this Region. It rejects other requests: CloudFront sends those to the nearest Region."""
        for path, expected in (("/health", httpx.codes.OK), ("/ready", httpx.codes.FORBIDDEN)):
            response = httpx.get(f"{self._url}{path}", timeout=40)
            if response.status_code != expected:
                raise SmokeError(
                    f"GET {response.url} returned {response.status_code} instead of {expected}: {response.text[:500]}"
                )
        if response.json().get("code") != "not_through_edge":
            raise SmokeError(f"GET {response.url} is not rejected for bypassing the edge: {response.text[:500]}")
        return "responds, and rejects requests that bypass the edge. No image was sent: the edge chooses the Region"

    @property
    def _url(self) -> str:
        """The API of this Region, not of the nearest one."""
        return self._stack.outputs.get("ApiRegionalUrl") or self._stack.output("ApiUrl")

    def _process(self, key: str) -> str:
        # The same job answers until it has ended: the gateway waits for 30 s at most.
        headers = {"X-API-Key": key, "Idempotency-Key": secrets.token_hex(16)}
        url, files = f"{self._url}/process", {"image": (_NAME, picture(), "image/png")}
        deadline = time.monotonic() + _TIMEOUT_S
        while (
            response := httpx.post(url, headers=headers, files=files, timeout=40)
        ).status_code == httpx.codes.ACCEPTED:
            if time.monotonic() > deadline:
                raise SmokeError(f"The job did not end within {_TIMEOUT_S:.0f} s: {response.text}")
        if response.status_code != httpx.codes.OK:
            raise SmokeError(f"POST {url} returned {response.status_code} instead of 200: {response.text[:500]}")
        answer = response.json()
        check_cutout(base64.b64decode(answer["image"]))
        return f"job {answer['job_id']}, model {answer['metrics']['model']['name']}"

    def _examine(self) -> str:
        found = [one for one in examine(self._stack) if one.result in ("problem", "warning")]
        text = "".join(f"\n  {one.result}: {one.check}: {one.found} {one.remedy}" for one in found)
        if any(one.result == "problem" for one in found):
            raise SmokeError(f"pbr doctor finds problems.{text}")
        return f"no problems{text}"

    def _delete(self) -> str:
        erasure = erasure_of(self._stack)
        for traces in erasure.find(self._keys, self._folders):
            erasure.erase(traces)
        if left := [one.key for one in erasure.find(self._keys, self._folders) if not one.is_empty]:
            raise SmokeError(f"Data of {', '.join(left)} is left. Delete it with pbr forget.")
        return ", ".join([*self._keys, *self._folders])


def _passes(name: str, check: Callable[[], str]) -> bool:
    started_at = time.monotonic()
    try:
        result, text = "ok", check()
    except (SmokeError, BackgroundRemoverError, httpx.HTTPError, *sdk_errors()) as error:
        result, text = "FAILED", str(error) or type(error).__name__
    print(f"{result:<6} {name} ({time.monotonic() - started_at:.1f} s): {text}", flush=True)
    return result == "ok"


def now() -> datetime:
    """Return the current time in whole seconds, as keys have it."""
    return datetime.now(UTC).replace(microsecond=0)


def picture() -> bytes:
    """Return a PNG file of a disc before a gradient. The noise differs each time, so that no cached result answers."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    background = np.array([40, 70, 120]) + (x / WIDTH_PX)[..., None] * np.array([30, 40, 50])
    is_inside = np.hypot(x - WIDTH_PX / 2, y - HEIGHT_PX / 2) < HEIGHT_PX / 3
    noise = np.random.default_rng().normal(0, 4, (HEIGHT_PX, WIDTH_PX, 3))
    rgb = np.where(is_inside[..., None], np.array([235, 140, 40]), background) + noise
    file = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def check_cutout(data: bytes) -> None:
    """Check the result of :func:`picture`.

    Raises:
        SmokeError: it is no image of the same size with an opaque disc before a transparent background.
    """
    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except OSError as error:
        raise SmokeError(f"The result is no image: {error}") from error
    if image.size != (WIDTH_PX, HEIGHT_PX):
        raise SmokeError(f"The result has {image.width} x {image.height} pixels, not {WIDTH_PX} x {HEIGHT_PX}.")
    alpha = np.asarray(image)[..., 3]
    center, corners = int(alpha[HEIGHT_PX // 2, WIDTH_PX // 2]), alpha[[0, 0, -1, -1], [0, -1, 0, -1]]
    if center < _OPAQUE or corners.max() > _TRANSPARENT:
        raise SmokeError(
            f"The disc is not cut out: alpha is {center} at its center and up to {corners.max()} in the corners. "
            f"At least {_OPAQUE} and at most {_TRANSPARENT} were expected."
        )


def main(words: Sequence[str] | None = None) -> None:
    """Check the stack that the command line names. Exit status 1 means that a check has failed."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config-env", help="Environment of samconfig.toml that has the stack's name and Region.")
    parser.add_argument("--stack", help="Name of the stack. Default: the running embedded cloud.")
    parser.add_argument("--region", help="Region of the stack, e.g. eu-west-1.")
    arguments = parser.parse_args(words)
    name, region = arguments.stack, arguments.region
    try:
        if arguments.config_env:
            settings = read_settings(arguments.config_env, Path())
            name, region = name or settings.stack, region or settings.region
        stack = connect(name, region)
    except (DeployError, BackgroundRemoverError, *sdk_errors()) as error:
        sys.exit(f"smoke: {error}")
    if not Smoke(stack).run():
        sys.exit(1)


if __name__ == "__main__":
    main()
