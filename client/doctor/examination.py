"""Run all checks at the same time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from client import resources
from client.doctor import account, deployment, services
from client.doctor.findings import RESULTS, Check, Finding, Patient
from client.errors import sdk_errors
from client.local_cloud import ROOT
from client.stack import Stack
from core.errors import BackgroundRemoverError

_THREADS: Final = 8
_NO_ACCOUNT: Final = "Not available on the embedded cloud"

_DENIED: Final = (
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "UnauthorizedOperation",
    "403",
)

CHECKS: Final = (
    Check("credentials", account.credentials),
    Check(
        "stack",
        deployment.status,
        permissions=("cloudformation:DescribeStacks", "cloudformation:ListStackResources"),
    ),
    Check(
        "template",
        deployment.template,
        "The embedded cloud deploys the files of this clone; pbr warns if they have changed since",
        ("cloudformation:GetTemplate",),
    ),
    Check("parameters", deployment.parameters),
    Check(
        "images",
        deployment.images,
        "The embedded cloud runs the code of this clone",
        ("ecr:DescribeImages", "lambda:GetFunction"),
    ),
    Check("weights", deployment.weights, permissions=("s3:GetObject", "s3:ListBucket")),
    Check("functions", services.functions, permissions=("lambda:GetFunctionConfiguration",)),
    Check("state machines", services.machines, permissions=("states:DescribeStateMachine",)),
    Check(
        "events",
        services.events,
        permissions=("events:DescribeRule", "events:ListTargetsByRule", "s3:GetBucketNotification"),
    ),
    Check("storage", services.storage, permissions=("s3:GetBucketVersioning",)),
    Check("worker", services.worker, permissions=("ecs:DescribeServices", "autoscaling:DescribeScalingActivities")),
    Check("endpoint", services.endpoint, permissions=("sagemaker:DescribeEndpoint",)),
    Check("executions", services.executions, permissions=("states:ListExecutions", "states:DescribeExecution")),
    Check(
        "dead letters", services.dead_letters, permissions=("sqs:GetQueueAttributes", "cloudwatch:GetMetricStatistics")
    ),
    Check("alarms", services.alarms, permissions=("cloudwatch:DescribeAlarms",)),
    Check("subscriptions", services.subscriptions, permissions=("sns:ListSubscriptionsByTopic",)),
    Check("log groups", services.log_groups, permissions=("logs:DescribeLogGroups",)),
    Check("Lambda concurrency", account.concurrency, _NO_ACCOUNT, ("lambda:GetAccountSettings",)),
    Check("worker quota", account.worker_quota, _NO_ACCOUNT, ("servicequotas:GetServiceQuota",)),
    Check("endpoint quota", account.endpoint_quota, _NO_ACCOUNT, ("servicequotas:ListServiceQuotas",)),
    Check("service-linked roles", account.roles, _NO_ACCOUNT, ("iam:GetRole",)),
)

DRIFT: Final = Check(
    "drift",
    deployment.drift,
    "The embedded cloud cannot detect drift",
    (
        "cloudformation:DetectStackDrift",
        "cloudformation:DescribeStackDriftDetectionStatus",
        "cloudformation:DescribeStackResourceDrifts",
    ),
)
"""Only with ``--drift``. CloudFormation needs permission to read each type of resource."""


def examine(stack: Stack, *, drift: bool = False) -> list[Finding]:
    """Return what all checks find, in the order of the checks.

    Args:
        stack: the stack.
        drift: also let CloudFormation detect drift, which takes minutes.

    Raises:
        ClientError, BotoCoreError: the resources of the stack cannot be listed.
    """
    patient = Patient(stack, resources.read(stack), partial(local_templates, ROOT))
    return run(patient, [*CHECKS, *([DRIFT] if drift else [])])


def run(patient: Patient, checks: Sequence[Check]) -> list[Finding]:
    """Return what these checks find, in their order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return [finding for found in pool.map(lambda check: _run_one(patient, check), checks) for finding in found]


def worst(findings: Sequence[Finding]) -> str:
    """Return the most severe result."""
    return min((finding.result for finding in findings), key=RESULTS.index, default="ok")


def _run_one(patient: Patient, check: Check) -> list[Finding]:
    if patient.stack.endpoint_url and check.only_aws:
        return [Finding(check.name, "not checked", check.only_aws)]
    found: list[Finding] = []
    try:
        found.extend(check.look(patient))
    except sdk_errors() as error:
        found.append(_of_error(patient, check, error))
    except BackgroundRemoverError as error:
        found.append(Finding(check.name, "problem", error.message, error.remedy))
    except Exception as error:  # the other checks still help
        what = f"This check of pbr has failed: {type(error).__name__}: {error}"
        found.append(Finding(check.name, "not checked", what, "Report this line with the output of pbr --version."))
    return found


def _of_error(patient: Patient, check: Check, error: Exception) -> Finding:
    """Return the finding of a call that failed: without permission nothing is known, otherwise something is wrong."""
    facts = getattr(error, "response", {}).get("Error", {})
    code, message = facts.get("Code", ""), facts.get("Message") or str(error)
    if code in _DENIED:
        allow = f"Allow {', '.join(check.permissions)}, see docs/how-to/doctor.md." if check.permissions else ""
        return Finding(check.name, "not checked", f"Access is denied: {error}", allow)
    missing = "NotFound" in code or "DoesNotExist" in code or "NonExistent" in code or code.startswith("NoSuch")
    if missing:
        found = f"A resource of the stack was deleted: {message}"
        return Finding(check.name, "problem", found, patient.restore)
    return Finding(check.name, "not checked", str(error), "Try again later.")


def local_templates(directory: Path) -> dict[str, Any]:
    """Return the templates of a clone: that of the main stack, and those of nested stacks by logical ID."""
    from samtranslator.yaml_helper import yaml_parse

    if not (directory / "template.yaml").is_file():
        return {}
    main = yaml_parse((directory / "template.yaml").read_text())
    places = {
        logical_id: resource["Properties"].get("Location") or resource["Properties"].get("TemplateURL")
        for logical_id, resource in main["Resources"].items()
        if resource["Type"] in ("AWS::Serverless::Application", "AWS::CloudFormation::Stack")
    }
    return {"": main, **{name: yaml_parse((directory / place).read_text()) for name, place in places.items()}}
