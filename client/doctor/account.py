"""Checks of the account: credentials, clock, quotas, service-linked roles."""

from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from client.doctor.findings import Finding, Patient
from client.errors import client_error

_SKEW_WARNED: Final = timedelta(seconds=30)
_SKEW_REJECTED: Final = timedelta(minutes=5)  # AWS rejects signatures that are older

_VCPUS: Final = {  # quota codes of https://docs.aws.amazon.com/general/latest/gr/ec2-service.html and ecs-service.html
    "FARGATE": ("fargate", "L-3032A538", "Fargate On-Demand vCPUs"),
    "FARGATE_SPOT": ("fargate", "L-36FBB829", "Fargate Spot vCPUs"),
    "GPU": ("ec2", "L-DB2E81BA", "vCPUs of running On-Demand G and VT instances"),
    "GPU_SPOT": ("ec2", "L-3819A6DF", "vCPUs of G and VT Spot instances"),
}
_TASK_VCPUS: Final = 4  # WorkerTaskDefinition, and the smallest GPU instance
_MOST_PAGES: Final = 40
_MORE_CONCURRENCY: Final = "Request more at Service Quotas (Lambda, Concurrent executions, L-B99A9384), or deploy"

_ROLES: Final = {
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_ECSService": "ecs.application-autoscaling.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint": "sagemaker.application-autoscaling.amazonaws.com",
    "AWSServiceRoleForAutoScaling": "autoscaling.amazonaws.com",
    "AWSServiceRoleForEC2Spot": "spot.amazonaws.com",
}


def credentials(patient: Patient) -> Iterator[Finding]:
    """Find whose credentials are used, and whether this machine's clock agrees with that of AWS."""
    answer = patient.stack.client("sts").get_caller_identity()
    yield Finding("credentials", "ok", f"{answer['Arn']}, Region {patient.stack.region}")
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        yield Finding("clock", "not checked", "The answer of AWS has no date")
        return
    skew = abs(patient.now() - parsedate_to_datetime(date))
    found = f"This machine's clock differs from that of AWS by {skew.total_seconds():.0f} s"
    if skew < _SKEW_WARNED:
        yield Finding("clock", "ok", found)
        return
    remedy = "Synchronize the clock of this machine, e.g. with NTP. AWS rejects requests that differ by 5 minutes."
    yield Finding("clock", "problem" if skew >= _SKEW_REJECTED else "warning", found, remedy)


def concurrency(patient: Patient) -> Iterator[Finding]:
    """Compare the concurrency of Lambda in this account with what the stack may use."""
    limits = patient.stack.functions.get_account_settings()["AccountLimit"]
    total, free = limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]
    wanted = {name: patient.number(name) for name in ("BulkConcurrency", "ApiJobsInFlight")}
    found = f"The account has {total} concurrent executions of Lambda, {free} of them not reserved"
    if reserved := patient.number("FunctionConcurrency"):
        found += f"; each function may use {reserved} (FunctionConcurrency)"
    over = [f"{name}={value}" for name, value in wanted.items() if value > (reserved or free)]
    if not over:
        yield Finding("Lambda concurrency", "ok", found)
        return
    yield Finding(
        "Lambda concurrency",
        "warning",
        f"{found}, which is less than {' and '.join(over)}. Further calls are throttled and retried",
        f"{'Deploy with a higher FunctionConcurrency, or' if reserved else _MORE_CONCURRENCY} with lower values of "
        f"{' and '.join(one.partition('=')[0] for one in over)}.",
    )


def worker_quota(patient: Patient) -> Iterator[Finding]:
    """Compare the quota of vCPUs with what WorkerMaxCount workers need."""
    if "WorkerServiceName" not in patient.stack.outputs:
        yield Finding("worker quota", "ok", "The stack has no worker")
        return
    capacity = patient.parameter("SegmentationCapacity", "FARGATE")
    service, code, name = _VCPUS[capacity]
    count = patient.number("WorkerMaxCount", 1)
    vcpus = count * (instance_vcpus(patient.parameter("GpuInstanceType")) if capacity == "GPU" else _TASK_VCPUS)
    quotas = patient.stack.client("service-quotas")
    quota = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
    found = f"The quota is {quota:.0f} {name}; {count} workers (WorkerMaxCount) need {vcpus}"
    if quota >= vcpus:
        yield Finding("worker quota", "ok", found)
        return
    remedy = (
        f"aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} "
        f"--desired-value {vcpus} --region {patient.stack.region}, or deploy with a lower WorkerMaxCount."
    )
    yield Finding("worker quota", "problem" if quota < vcpus / count else "warning", found, remedy)


def instance_vcpus(kind: str) -> int:
    """Return the number of vCPUs of an instance type of the families g4dn, g5, g6 and g6e, e.g. g5.2xlarge."""
    size = kind.rpartition(".")[2].removesuffix("xlarge")
    return 4 * int(size or 1)


def endpoint_quota(patient: Patient) -> Iterator[Finding]:
    """Compare the quota of SageMaker instances with SageMakerMaxCount."""
    if "SageMakerEndpoint" not in patient.stack.outputs:
        yield Finding("endpoint quota", "ok", "The stack has no endpoint")
        return
    name = f"{patient.parameter('SageMakerInstanceType')} for endpoint usage"
    count = patient.number("SageMakerMaxCount", 1)
    quota = _named_quota(patient.stack.client("service-quotas"), "sagemaker", name)
    if quota is None:
        yield Finding("endpoint quota", "not checked", f"Service Quotas does not list {name}")
        return
    found = f"The quota is {quota['Value']:.0f} {name}; SageMakerMaxCount is {count}"
    if quota["Value"] >= count:
        yield Finding("endpoint quota", "ok", found)
        return
    remedy = (
        f"aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code "
        f"{quota['QuotaCode']} --desired-value {count} --region {patient.stack.region}, or deploy with a lower "
        "SageMakerMaxCount."
    )
    yield Finding("endpoint quota", "warning" if quota["Value"] else "problem", found, remedy)


def _named_quota(quotas: Any, service: str, name: str) -> Any:
    """Return a quota by its name; SageMaker has one for each instance type, whose codes are not documented."""
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode=service)
    for number, page in enumerate(pages):
        if number == _MOST_PAGES:
            break
        if found := next((quota for quota in page["Quotas"] if quota["QuotaName"] == name), None):
            return found
    return None


def roles(patient: Patient) -> Iterator[Finding]:
    """Find the service-linked roles that the hosts of the stack need."""
    capacity = patient.parameter("SegmentationCapacity")
    needed = []
    if "WorkerServiceName" in patient.stack.outputs:
        needed += ["AWSServiceRoleForECS", "AWSServiceRoleForApplicationAutoScaling_ECSService"]
        needed += ["AWSServiceRoleForAutoScaling"] if capacity.startswith("GPU") else []
        needed += ["AWSServiceRoleForEC2Spot"] if capacity == "GPU_SPOT" else []
    if "SageMakerEndpoint" in patient.stack.outputs:
        needed.append("AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")
    missing = [name for name in needed if not _exists(patient.stack.client("iam"), name)]
    for name in missing:
        remedy = f"aws iam create-service-linked-role --aws-service-name {_ROLES[name]}"
        yield Finding("service-linked roles", "warning", f"The account has no role {name}", remedy)
    if not missing:
        yield Finding("service-linked roles", "ok", ", ".join(needed) or "The stack needs none")


def _exists(iam: Any, role: str) -> bool:
    try:
        iam.get_role(RoleName=role)
    except client_error() as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":  # type: ignore[attr-defined]
            raise
        return False
    return True
