"""The project's template, deployed once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT
from tests.integration.deployment import Crashes, Deployed
from tests.integration.state_machine.mocks import MOCK_FILE


@pytest.fixture(scope="package")
def stack() -> Iterator[Deployed]:
    """All three segmentation hosts with the default model, and mocks for executions that name a test case."""
    parameters = {
        "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "WorkerSubnets": "subnet-0a1b2c3d",
        "WorkerSecurityGroups": "sg-0a1b2c3d",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "BulkSourceBuckets": "theirs,absent",
        "Presets": '{"card": {"preset": "white-square", "canvas": "300x300"}}',
    }
    crashes = Crashes()
    with EmbeddedCloud(
        ROOT / "template.yaml",
        parameters,
        mock_config=MOCK_FILE,
        retry_pace=0.1,
        faults=crashes,
        alarm_interval_s=None,  # the digest lists the alarms that these tests would set off
    ) as cloud:
        yield Deployed(cloud, crashes)
