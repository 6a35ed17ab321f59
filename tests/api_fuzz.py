"""Fuzz the API with schemathesis: ``make api-fuzz``.

Requests are generated from docs/reference/openapi.json, valid and invalid ones, and sent with a real key to an embedded
cloud. Failures are a status of 500 or above, a response that the document does not describe, an invalid request that is
accepted, and a response to a request without a key.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from client import api_keys
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import MAX_RATE_PER_MINUTE, Scope
from tests.conftest import ROOT

DOCUMENT: Final = ROOT / "docs/reference/openapi.json"
CONFIG: Final = ROOT / "tests/api_fuzz.toml"

_UNLIMITED: Final = 10**9
_JOBS: Final = 20


def main() -> int:
    """Return schemathesis' exit status; 1 if it found a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="maximum requests per route and phase")
    parser.add_argument("--seed", type=int, help="repeat the requests of an earlier run, which printed its seed")
    arguments = parser.parse_args()
    with EmbeddedCloud(
        ROOT / "template.yaml", {"DefaultModel": "classical", "ApiJobsInFlight": "500"}, retry_pace=0.01
    ) as cloud:
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        issued = api_keys.create(
            stack,
            "api-fuzz",
            Scope,
            rate_per_minute=MAX_RATE_PER_MINUTE,
            monthly_quota=_UNLIMITED,
            lifetime=None,
            now=datetime.now(UTC),
        )
        url, headers = cloud.outputs["ApiUrl"], {"X-API-Key": issued.key.reveal()}
        with TemporaryDirectory() as folder:
            config = Path(folder, "config.toml")
            config.write_text(CONFIG.read_text() + _jobs(url, headers))
            command = [
                *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)),
                *("run", str(DOCUMENT), "--url", url, "--header", f"X-API-Key: {headers['X-API-Key']}"),
                *("--max-examples", str(arguments.examples)),
                *(("--seed", str(arguments.seed)) if arguments.seed else ()),
            ]
            return subprocess.run(command, cwd=ROOT, check=False).returncode


def _jobs(url: str, headers: Mapping[str, str]) -> str:
    """Run some jobs and return the configuration that lets generated requests use their ids."""
    [image] = tomllib.loads(CONFIG.read_text())["dictionaries"]["images"]["values"]
    body = {"image": image, "model": "classical", "precision_level": "draft"}
    responses = [httpx.post(f"{url}/process", json=body, headers=headers, timeout=40) for _ in range(_JOBS)]
    job_ids = json.dumps([response.raise_for_status().json()["job_id"] for response in responses])
    return f"""
"path.job_id" = {{ dictionary = "jobs", probability = 0.5 }}

[dictionaries.jobs]
values = {job_ids}
"""


if __name__ == "__main__":
    sys.exit(main())
