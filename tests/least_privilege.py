"""Compare what the roles of the stack allow with the calls that tests made: ``make least-privilege``.

Embedded clouds deny each call that the caller's role does not allow. If ``PBR_CALLS_DIR`` is set, as ``make test`` and
``make test-slow`` do, they also write there what calls used. This reports each action and resource of a role that no
call used. It needs the records of all tests.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from embedded_cloud.cloud import CALLS_VARIABLE, EmbeddedCloud
from tests.conftest import ROOT

IMAGE: Final = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1"
_HOSTS: Final = {"WorkerImageUri": IMAGE, "SegmentationCapacity": "GPU", "SageMakerImageUri": IMAGE}
_BUCKETS: Final = {
    "ModelBucket": "weights",
    "BulkSourceBuckets": "theirs",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
}
_WEB: Final = {
    "WebImageUri": IMAGE,
    "WebDomain": "cutouts.example.com",
    "WebCertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "WebVpc": "vpc-1",
    "WebSubnets": "subnet-1,subnet-2",
}
DEPLOYMENTS: Final[Sequence[Mapping[str, str]]] = (
    {**_HOSTS, **_BUCKETS, **_WEB},
    {**_HOSTS, **_BUCKETS, "SageMakerMode": "async"},
    {**_HOSTS, **_BUCKETS, "SageMakerMode": "transform"},
)
"""Parameters of deployments that together have all roles and statements."""


class Grant(NamedTuple):
    """An action that a role may perform on a resource. Generated names are replaced by logical ids."""

    role: str
    action: str
    resource: str

    def __str__(self) -> str:
        """Return it as a line of the report."""
        return f"{self.role}: {self.action} on {self.resource}"


@dataclass(frozen=True)
class Exempt:
    """Grants that no call of a test can use: patterns of role, actions and resource, and the reason."""

    reason: str
    role: str
    actions: tuple[str, ...]
    resource: str = "*"

    def covers(self, grant: Grant) -> bool:
        """Return whether a grant is one of them."""
        return (
            fnmatchcase(grant.role, self.role)
            and any(fnmatchcase(grant.action, action) for action in self.actions)
            and fnmatchcase(grant.resource, self.resource)
        )


EXEMPT: Final = (
    Exempt(
        "Step Functions delivers logs", "*", ("logs:*LogDeliver*", "logs:*ResourcePolic*", "logs:DescribeLogGroups")
    ),
    Exempt("Step Functions sends traces", "*", ("xray:*",)),
    Exempt("Step Functions manages the rules of .sync tasks", "BulkStack/BulkRole", ("events:*",)),
    Exempt("Step Functions tags the transform jobs that it waits for", "BulkStack/BulkRole", ("sagemaker:*Tags",)),
    Exempt(
        "Step Functions starts, stops and redrives the children of a Distributed Map",
        "BulkStack/BulkRole",
        ("states:*Execution",),
        "*-bulk*",
    ),
    Exempt("Step Functions stops the executions of .sync tasks", "BulkStack/BulkRole", ("states:StopExecution",)),
    Exempt(
        "Step Functions writes large result files in parts", "BulkStack/BulkRole", ("s3:*MultipartUpload*",), "*/bulk/*"
    ),
    Exempt(
        "executions may have begun before their functions had versions", "*", ("lambda:InvokeFunction",), "*Function}"
    ),
    Exempt("the agent of ECS protects the tasks of workers", "WorkerStack/WorkerRole", ("ecs:UpdateTaskProtection",)),
    Exempt(
        "services call KMS; tests/unit/template/test_data_protection.py has its permissions",
        "*",
        ("kms:*",),
    ),
    Exempt("VPC Flow Logs writes logs", "NetworkStack/FlowLogRole", ("logs:*",)),
    Exempt(
        "Lambda sends an event to the dead-letter queue of its function after the last retry",
        "ReconcileFunctionRole",
        ("sqs:SendMessage",),
        "*:${ReconcileDeadLetterQueue}",
    ),
    Exempt("ECS pulls images and writes logs", "*Stack/*ExecutionRole", ("ecr:*", "logs:*")),
    Exempt(
        "SageMaker pulls images, and writes logs and metrics",
        "EndpointStack/EndpointRole",
        ("ecr:*", "logs:*", "cloudwatch:PutMetricData"),
    ),
    Exempt("the agent of an EC2 instance calls ECS", "WorkerStack/GpuInstanceRole", ("ecs:*",)),
    Exempt("the list has up to five buckets; a hyphen is the name of none", "*", ("s3:*",), "arn:aws:s3:::-*"),
)


def unused(grants: Iterable[Grant], used: Iterable[Grant]) -> list[Grant]:
    """Return the grants that no call used and that are not exempt."""
    return [grant for grant in sorted(set(grants) - set(used)) if not any(item.covers(grant) for item in EXEMPT)]


def stale(grants: Iterable[Grant], used: Iterable[Grant]) -> list[Exempt]:
    """Return the exemptions that no unused grant needs."""
    left = set(grants) - set(used)
    return [item for item in EXEMPT if not any(item.covers(grant) for grant in left)]


def recorded(folder: Path) -> set[Grant]:
    """Return the grants that calls used.

    Raises:
        FileNotFoundError: there are no records.
    """
    files = list(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"No records in {folder}. Run make test-all first.")
    return {Grant(*json.loads(line)) for file in files for line in file.read_text().splitlines()}


def deployed() -> set[Grant]:
    """Return what the roles allow in all deployments."""
    found: set[Grant] = set()
    for parameters in DEPLOYMENTS:
        with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
            found |= {Grant(*grant) for grant in cloud.grants()}
    return found


def main() -> None:
    """Report unused grants and stale exemptions, and exit with status 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.least_privilege", description=__doc__)
    parser.add_argument("folder", type=Path, help="Folder with the records of tests, e.g. out/calls.")
    folder = parser.parse_args().folder
    try:
        used = recorded(folder)
    except FileNotFoundError as error:
        sys.exit(str(error))
    os.environ.pop(CALLS_VARIABLE, None)
    grants = deployed()
    lines = [f"no call used {grant}" for grant in unused(grants, used)]
    lines += [f"no unused grant needs the exemption: {item.reason}" for item in stale(grants, used)]
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(grants)} grants, {len(grants & used)} used, {len(lines)} to mend")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
