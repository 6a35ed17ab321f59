"""The steps of a rehearsal: deploy, update, fail, delete, and what must be true after each."""

from collections import Counter
from typing import Any, Final

from tests.rehearsal.rehearsal import (
    MAIN,
    PARAMETERS,
    STAND_ALONE,
    Rehearsal,
    RehearsalError,
    Resource,
    stand_alone_templates,
)
from tests.rehearsal.services import NOT_MADE

UPDATED: Final = {"SegmentMemory": "4096", "LogRetentionDays": "30"}
"""Parameters that the update changes."""

BROKEN: Final = ("statemachine/deliver_webhook.asl.yaml", "StartAt: ", "StartAt: Missing")
"""The edit that makes an update fail in the middle: the state machine has no such state."""

VERSIONS: Final = {"AWS::Lambda::Version", "AWS::StepFunctions::StateMachineVersion"}
"""Types that the template retains, but that AWS deletes with their function or state machine."""

Described = dict[Resource, Any]


def rehearse(cloud: Rehearsal) -> None:
    """Run all steps.

    Raises:
        RehearsalError: something is not as it must be.
    """
    print("Only docker is a stand-in: it registers images without layers in ECR.")
    _deploy(cloud)
    cloud.process_image(1)
    _update(cloud)
    cloud.process_image(2)
    _fail(cloud)
    cloud.process_image(3)
    _delete(cloud)


def _deploy(cloud: Rehearsal) -> None:
    zone = cloud.client("route53").create_hosted_zone(Name="example.com", CallerReference="rehearsal")["HostedZone"]
    cloud.facts["zone"] = zone["Id"].rpartition("/")[2]
    if surplus := STAND_ALONE.keys() - set(stand_alone_templates()):
        raise RehearsalError(f"infrastructure/ has no {', '.join(sorted(surplus))}. Remove it from STAND_ALONE.")
    cloud.deploy_alone("key")
    cloud.deploy("1", PARAMETERS)
    for name in stand_alone_templates():
        if name != "key":
            cloud.deploy_alone(name)
    resources = list(cloud.resources())
    _all_exist(cloud.describe(resources))
    listed = Counter(one.type for one in resources if one.type in NOT_MADE)
    if unused := NOT_MADE - listed.keys():
        raise RehearsalError(f"No template has {', '.join(sorted(unused))}. Remove it from NOT_MADE.")
    reasons = {what: why for _logical_id, what, why in cloud.cloud.skipped}
    if made := NOT_MADE - reasons.keys():
        raise RehearsalError(f"The embedded cloud makes {', '.join(sorted(made))}. Move it from NOT_MADE to QUESTIONS.")
    print(f"{len(resources) - listed.total()} resources exist. The embedded cloud cannot make {listed.total()} others:")
    for kind, count in sorted(listed.items()):
        print(f"  {count:2} {kind}: {reasons[kind]}")


def _all_exist(described: Described) -> None:
    if missing := [f"{one.logical_id} ({one.type}) of {one.stack}" for one, found in described.items() if not found]:
        raise RehearsalError(f"The services do not know {', '.join(missing)}.")


def _update(cloud: Rehearsal) -> None:
    before = cloud.describe(cloud.resources())
    cloud.deploy("2", {**PARAMETERS, **UPDATED})
    after = cloud.describe(cloud.resources())
    _all_exist(after)
    segment, retention = _found(after, "SegmentFunction"), _found(after, "SegmentLogs")
    alias, former = _found(after, "SegmentFunctionAliaslive"), _found(before, "SegmentFunctionAliaslive")
    if segment["MemorySize"] != int(UPDATED["SegmentMemory"]) or retention[0][1] != int(UPDATED["LogRetentionDays"]):
        raise RehearsalError("The services do not have the values of the update.")
    if alias["FunctionVersion"] == former["FunctionVersion"]:
        raise RehearsalError("The alias still points to the version before the update.")
    print(f"The services have the values of the update, and the alias points to version {alias['FunctionVersion']}.")


def _found(described: Described, logical_id: str) -> Any:
    [found] = [found for one, found in described.items() if one.logical_id == logical_id]
    return found


def _fail(cloud: Rehearsal) -> None:
    before = _texts(cloud.describe(cloud.resources()))
    path, old, new = cloud.project / BROKEN[0], *BROKEN[1:]
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    output = cloud.deploy("3", {**PARAMETERS, "SegmentMemory": "6144"}, fails=True)
    path.write_text(text)
    status = cloud.status(MAIN)
    if status != "UPDATE_ROLLBACK_COMPLETE":
        raise RehearsalError(f"{output}\nAfter a failed update, the status of the stack is {status}.")
    if "DeliverWebhook (AWS::StepFunctions::StateMachine) UPDATE_FAILED" not in output:
        raise RehearsalError(f"{output}\nmake deploy does not name the resource that failed.")
    after = _texts(cloud.describe(cloud.resources()))
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        details = "\n".join(f"{name}\n  {before.get(name)}\n  {after.get(name)}" for name in changed)
        raise RehearsalError(f"The rollback has not restored\n{details}")
    print("The update that failed was rolled back: the services describe all resources as before.")


def _texts(described: Described) -> dict[str, str]:
    return {f"{one.stack} {one.logical_id}": str(found) for one, found in described.items()}


def _delete(cloud: Rehearsal) -> None:
    resources = list(cloud.resources())
    found = cloud.describe(one for one in resources if one.stack.startswith(MAIN))
    kept = [one for one, is_there in found.items() if is_there and one.is_kept and one.type not in VERSIONS]
    others = [one for one, is_there in found.items() if is_there and one not in kept]
    cloud.run("aws", "cloudformation", "delete-stack", "--stack-name", MAIN)
    if reasons := cloud.failed_deletions():
        raise RehearsalError(f"CloudFormation could not delete\n{reasons}")
    cloud.run("aws", "cloudformation", "wait", "stack-delete-complete", "--stack-name", MAIN)
    if lost := [one.logical_id for one, is_there in cloud.describe(kept).items() if not is_there]:
        raise RehearsalError(f"The template retains {', '.join(lost)}, but they are deleted.")
    if left := [one.logical_id for one, is_there in cloud.describe(others).items() if is_there]:
        raise RehearsalError(f"After the stack is deleted, there are still {', '.join(left)}.")
    print(f"The stack is deleted. {len(kept)} resources remain, as the template says, and {len(others)} are gone.")
