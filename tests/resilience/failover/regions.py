"""Embedded clouds as Regions, each in a process of its own: a process can run one cloud."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client

PARAMETERS = {"DefaultModel": "classical"}


@dataclass
class Region:
    """A Region. Its data is in the memory of its process, and is lost with it.

    Attributes:
        name: of the Region.
        outputs: of the stack.
        endpoint_url: of AWS.
    """

    name: str
    outputs: dict[str, str] = field(default_factory=dict)
    endpoint_url: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start an empty Region with a deployed stack, on free ports.

        Raises:
            RuntimeError: the cloud did not start.
        """
        parameters = [f"--parameter={name}={value}" for name, value in PARAMETERS.items()]
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "embedded_cloud", "--port=0", *parameters],
            cwd=ROOT,
            env={**os.environ, "AWS_DEFAULT_REGION": self.name},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().removeprefix("# ").partition(": ")
            if line.startswith("# ") and name != "Ignored":
                self.outputs[name] = value
            elif line.startswith("export AWS_ENDPOINT_URL="):
                self.endpoint_url = line.strip().partition("=")[2]
                return
        raise RuntimeError(f"The embedded cloud of {self.name} ended with status {process.wait()}.")

    def kill(self) -> None:
        """Kill the Region with SIGKILL, as if it were lost: no request ends, nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def stack(self) -> Stack:
        """The deployed stack."""
        return Stack.connect(EmbeddedCloud.stack_name, region=self.name, endpoint_url=self.endpoint_url)

    def items(self, table: str) -> list[Mapping[str, Any]]:
        """Return the items of a table, named by the stack's output."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self.outputs[table])
        return [item for page in pages for item in page["Items"]]

    def executions(self) -> list[str]:
        """Return the names of all executions of the state machine."""
        machine = self.outputs["StateMachineArn"]
        pages = client("stepfunctions", self.endpoint_url, self.name).get_paginator("list_executions")
        return [
            execution["name"] for page in pages.paginate(stateMachineArn=machine) for execution in page["executions"]
        ]

    def copy_keys(self, other: "Region") -> None:
        """Copy the API keys of another Region, as a DynamoDB global table does."""
        for item in other.items("ApiKeysTable"):
            self._dynamodb.put_item(TableName=self.outputs["ApiKeysTable"], Item=item)

    @property
    def _dynamodb(self) -> Any:
        return client("dynamodb", self.endpoint_url, self.name)
