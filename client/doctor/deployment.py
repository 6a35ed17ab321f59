"""Checks of the deployment: status and drift of the stack, its template and parameters, images and weights."""

import re
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from client.doctor.findings import Finding, Patient
from client.errors import client_error
from core.errors import BackgroundRemoverError
from core.segmentation.registry import CLASSICAL, MODELS, Model, with_custom

_STACK: Final = "AWS::CloudFormation::Stack"
_LISTED: Final = 5
_MEGABYTE: Final = 1024**2
_DRIFT_POLL_S: Final = 5.0
_MOST_POLLS: Final = 120

_HINTS: Final = {  # parts of CloudFormation's reasons, with what helps
    "MemorySize": "New accounts refuse more than 3,008 MB. Deploy with a memory of 3008, or ask AWS Support for more.",
    "UnreservedConcurrentExecution": "Reservations must leave 100 to the account; new accounts can reserve none. "
    "Deploy with lower values of ApiConcurrency and FunctionConcurrency, or with 0.",
    "service-linked role": "Create the role, see the check service-linked roles.",
    "already exists": "Another stack has this name. Set another SegmentationQueueName.",
    "ResourceLimitExceeded": "Request a higher quota at Service Quotas.",
}
_DEPLOY: Final = "Run make deploy, which deploys one build everywhere, see docs/how-to/containers.md."
_PARTS: Final = {
    "WorkerImageUri": "The worker",
    "SageMakerImageUri": "The endpoint",
    "WebImageUri": "The web page",
}
_SAM_TAG: Final = re.compile(r":[\w.]+-(?P<id>[0-9a-f]{12})-[\w.]+$")
"""Tag of sam deploy: name of the local image, start of its ID, its tag."""
_DEPLOYED_TAG: Final = re.compile(r"(?:cpu|gpu|web)-(?P<build>.+)-[0-9a-f]{8}")
"""Tag of make deploy."""
_VERSION: Final = re.compile(r"(?P<version>\d+\.\d+\.\d+\w*)-[0-9a-f]{12,40}(?:-[0-9a-f]{8})?")
"""Build that make deploy derives from version and commit; others are the caller's."""
_ECR_IMAGE: Final = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)

_PACKAGED: Final = {"ImageUri", "Location", "DefinitionUri", "Definition", "DefinitionString", "CodeUri"}
"""Properties that sam package replaces."""


def status(patient: Patient) -> Iterator[Finding]:
    """Find failed and unfinished deployments."""
    [found] = patient.stack.client("cloudformation").describe_stacks(StackName=patient.stack.name)["Stacks"]
    state = found["StackStatus"]
    failed = [one for one in patient.resources if one.status.endswith("_FAILED")]
    for one in failed[:_LISTED]:
        hint = next((text for part, text in _HINTS.items() if part in one.reason), "Deploy the stack again.")
        yield Finding("stack", "problem", f"{one.logical_id} ({one.type}) is {one.status}: {one.reason}", hint)
    if state.endswith("_IN_PROGRESS"):
        yield Finding("stack", "warning", f"The stack is {state}", "Wait until the deployment has ended.")
    elif state.endswith("_FAILED") or "ROLLBACK" in state:
        reason = found.get("StackStatusReason") or "see its events"
        remedy = (
            f"aws cloudformation describe-stack-events --stack-name {patient.stack.name}{patient.region} has the "
            "reasons of the failure. Remove the cause, and deploy again."
        )
        yield Finding("stack", "problem" if "FAILED" in state else "warning", f"The stack is {state}: {reason}", remedy)
    elif not failed:
        yield Finding("stack", "ok", f"The stack is {state}")


def template(patient: Patient) -> Iterator[Finding]:
    """Compare the deployed templates with those of this version."""
    from samtranslator.yaml_helper import yaml_parse

    if not (templates := patient.templates()):
        yield Finding("template", "not checked", "pbr is not installed from a clone, so it has no template to compare")
        return
    cloudformation = patient.stack.client("cloudformation")
    places = {"": patient.stack.name, **{one.logical_id: one.id for one in patient.of_type(_STACK)}}
    changed = []
    for logical_id, local in templates.items():
        if logical_id in places:
            body = cloudformation.get_template(StackName=places[logical_id], TemplateStage="Original")["TemplateBody"]
            deployed = yaml_parse(body) if isinstance(body, str) else body
            prefix = f"{logical_id}." if logical_id else ""
            changed += [f"{prefix}{name}" for name in differences(deployed, local)]
    if not changed:
        yield Finding("template", "ok", "The stack has the templates of this version")
        return
    more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
    yield Finding(
        "template",
        "warning",
        f"The stack was deployed from another version. These differ: {', '.join(changed[:_LISTED])}{more}",
        "Deploy this version, or use pbr of the version that was deployed. See docs/how-to/upgrade.md.",
    )


def differences(deployed: Mapping[str, Any], local: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs in two templates, without what sam package replaces."""
    changed = []
    for section in ("Parameters", "Rules", "Conditions", "Globals", "Resources", "Outputs"):
        one, other = deployed.get(section, {}), local.get(section, {})
        prefix = f"{section}." if section in ("Rules", "Globals") else ""
        changed += [
            f"{prefix}{name}"
            for name in sorted({*one, *other})
            if _plain(one.get(name, {})) != _plain(other.get(name, {}))
        ]
    return changed


def _plain(value: Any) -> Any:
    """Return a part of a template in the form that does not depend on who wrote it."""
    if isinstance(value, Mapping):
        if value.keys() == {"Fn::GetAtt"} and isinstance(value["Fn::GetAtt"], list):
            return {"Fn::GetAtt": ".".join(value["Fn::GetAtt"])}
        return {name: _plain(item) for name, item in value.items() if name not in _PACKAGED | {"Metadata"}}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value).casefold() if isinstance(value, bool | int | float) else value


def drift(patient: Patient) -> Iterator[Finding]:
    """Let CloudFormation compare the resources with the template, which takes minutes."""
    cloudformation = patient.stack.client("cloudformation")
    names = [patient.stack.name, *(one.id for one in patient.of_type(_STACK))]
    detections = [(name, cloudformation.detect_stack_drift(StackName=name)["StackDriftDetectionId"]) for name in names]
    drifted = []
    for name, detection in detections:
        if not _detected(cloudformation, detection):
            yield Finding("drift", "not checked", f"CloudFormation could not detect drift of {name}")
            continue
        found = cloudformation.describe_stack_resource_drifts(
            StackName=name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"]
        )["StackResourceDrifts"]
        drifted += [f"{one['LogicalResourceId']} ({one['StackResourceDriftStatus'].lower()})" for one in found]
    if drifted:
        remedy = (
            "Undo these changes by hand or with a drift-aware change set, see "
            "docs/how-to/doctor.md#restore-deleted-resources."
        )
        yield Finding("drift", "problem", f"Changed outside of CloudFormation: {', '.join(drifted)}", remedy)
    else:
        yield Finding("drift", "ok", "No resource was changed outside of CloudFormation")


def _detected(cloudformation: Any, detection: str) -> bool:
    for _ in range(_MOST_POLLS):
        state = cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=detection)["DetectionStatus"]
        if state != "DETECTION_IN_PROGRESS":
            return bool(state == "DETECTION_COMPLETE")
        time.sleep(_DRIFT_POLL_S)
    return False


def parameters(patient: Patient) -> Iterator[Finding]:
    """Check parameters whose values the template cannot check: models, presets, and memory for the models."""
    problems = []
    try:
        patient.stack.presets  # noqa: B018  reads them
    except BackgroundRemoverError as error:
        problems.append((f"Presets: {error.message}", error.remedy))
    try:
        registry = _registry(patient)
    except BackgroundRemoverError as error:
        problems.append((f"CustomModels: {error.message}", error.remedy))
        registry = MODELS
    for parameter, name in _models(patient).items():
        if name not in registry and name != CLASSICAL:
            names = ", ".join((*registry, CLASSICAL))
            problems.append((f"{parameter}={name} is not a model", f"Deploy with one of: {names}."))
        elif name in registry and registry[name].memory_bytes > (memory := patient.number("SegmentMemory")) * _MEGABYTE:
            least = -(-registry[name].memory_bytes // _MEGABYTE)
            problems.append(
                (
                    f"{parameter}={name} needs {least} MB, but SegmentMemory is {memory}",
                    f"Deploy with SegmentMemory of at least {least}.",
                )
            )
    for found, remedy in problems:
        yield Finding("parameters", "problem", found, remedy)
    if not problems:
        yield Finding("parameters", "ok", ", ".join(f"{name}={value}" for name, value in _models(patient).items()))


def weights(patient: Patient) -> Iterator[Finding]:
    """Check that the weights of the models are in ModelBucket."""
    bucket, problems = patient.parameter("ModelBucket"), 0
    if not bucket:
        yield Finding("weights", "ok", "The container image includes the weights (no ModelBucket)")
        return
    registry = _registry(patient)
    for name in dict.fromkeys(_models(patient).values()):
        if name in registry and (found := _fault(patient.stack.s3, bucket, registry[name])):
            problems += 1
            yield Finding("weights", "problem", found, f"pbr models fetch {name} --to s3://{bucket}")
    if not problems:
        yield Finding("weights", "ok", f"s3://{bucket} has the weights of {', '.join(_models(patient).values())}")


def _fault(s3: Any, bucket: str, model: Model) -> str | None:
    """Return what is wrong with the weights of a model in a bucket; None if their size is right."""
    place = f"s3://{bucket}/{model.file}"
    try:
        size = s3.head_object(Bucket=bucket, Key=model.file)["ContentLength"]
    except client_error() as error:
        code = error.response["Error"]["Code"]  # type: ignore[attr-defined]
        if code not in ("404", "NoSuchKey", "NoSuchBucket"):
            raise
        return f"{place} does not exist"
    return None if size == model.bytes else f"{place} has {size:,} bytes instead of {model.bytes:,}"


def images(patient: Patient) -> Iterator[Finding]:
    """Compare the builds of functions, worker, endpoint and web page with each other, and with this version of pbr."""
    running: dict[str, list[str]] = {}
    for one in patient.of_type("AWS::Lambda::Function"):
        code = patient.stack.functions.get_function(FunctionName=one.id).get("Code", {})
        running.setdefault(_image(code), []).append(one.logical_id)
    if len(running) > 1:
        most = max(running, key=lambda image: len(running[image]))
        others = "; ".join(f"{image} ({', '.join(names)})" for image, names in running.items() if image != most)
        found = f"The functions run different images: most of them {most}, but {others}"
        yield Finding("images", "warning", found, _DEPLOY)
    else:
        yield Finding("images", "ok", f"The functions run one image: {next(iter(running), 'none')}")
    build = patient.parameter("Build")
    own = version("precision-background-remover")
    if (named := _VERSION.fullmatch(build)) and named["version"] != own:
        found = f"The stack runs version {named['version']}, and this is pbr {own}"
        yield Finding("images", "warning", found, f"{_DEPLOY} Or use pbr of version {named['version']}.")
    for parameter, part in _PARTS.items():
        if uri := patient.parameter(parameter):
            yield _of_part(patient, part, uri, build)


def _image(code: Mapping[str, Any]) -> str:
    """Return what identifies the image of a function: its ID in the tag of sam, which has one per function."""
    tagged = _SAM_TAG.search(code.get("ImageUri", ""))
    return tagged["id"] if tagged else code.get("ResolvedImageUri", "").rpartition("@")[2]


def _of_part(patient: Patient, part: str, uri: str, functions_build: str) -> Finding:
    """Compare the build of a part with that of the functions."""
    place = _ECR_IMAGE.fullmatch(uri)
    if not functions_build:
        found = f"{part} runs {uri}. Its build cannot be compared, because the parameter Build is empty"
        return Finding("images", "not checked", found, "make deploy names the build.")
    if not place or place["region"] != patient.stack.region:
        found = f"{part} runs {uri}, which is not in ECR of this Region, so its build is unknown"
        return Finding("images", "not checked", found)
    image = {"imageDigest": place["digest"]} if place["digest"] else {"imageTag": place["tag"] or "latest"}
    details = patient.stack.client("ecr").describe_images(
        registryId=place["account"], repositoryName=place["repository"], imageIds=[image]
    )["imageDetails"]
    tags = [tag for detail in details for tag in detail.get("imageTags", ())]
    builds = {match["build"] for tag in tags if (match := _DEPLOYED_TAG.fullmatch(tag))}
    if not builds:
        return Finding("images", "not checked", f"{part} runs {uri}, which has no tag of make deploy")
    if functions_build in builds:
        return Finding("images", "ok", f"{part} runs build {functions_build}")
    found = f"{part} runs build {', '.join(sorted(builds))}, the functions run {functions_build}"
    return Finding("images", "warning", found, _DEPLOY)


def _registry(patient: Patient) -> Mapping[str, Model]:
    return with_custom(patient.parameter("CustomModels"))


def _models(patient: Patient) -> dict[str, str]:
    """Return the models of the stack by parameter."""
    found = {"DefaultModel": patient.parameter("DefaultModel")}
    if patient.parameter("EscalateOnReview") == "true":
        found["EscalationModel"] = patient.parameter("EscalationModel")
    return {name: value for name, value in found.items() if value}
