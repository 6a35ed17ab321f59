"""Checks of what runs: functions, worker, endpoint, queues, events, alarms, subscriptions, logs."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from client.dead_letters import Queue, replay_command
from client.doctor.findings import Finding, Patient
from client.errors import client_error

_LISTED: Final = 3
_ALARMS_PER_CALL: Final = 100  # AlarmNames of DescribeAlarms
_LINK: Final = re.compile(r"Runbook: (\S+)")
_RUNBOOK: Final = "docs/how-to/runbook.md"
_FAILED_LAUNCHES_SINCE: Final = timedelta(hours=6)
_WITHOUT_CONFIRMATION: Final = "PendingConfirmation"
_ALERTS: Final = "AlertsTopic"
_DELETED_SERVICE: Final = ("DRAINING", "INACTIVE")
_DESCRIBED: Final = 10  # failed executions
_GROUPS: Final = ("/aws/lambda/", "/aws/vendedlogs/")


def functions(patient: Patient) -> Iterator[Finding]:
    """Find functions that cannot be called, and those whose last update failed."""
    lambda_, healthy = patient.stack.functions, 0
    existing = patient.of_type("AWS::Lambda::Function")
    for one in existing:
        try:
            facts = lambda_.get_function_configuration(FunctionName=one.id)
        except client_error() as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":  # type: ignore[attr-defined]
                raise
            found = f"The function {one.logical_id} does not exist"
            yield Finding("functions", "problem", found, patient.restore)
            continue
        state, update = facts.get("State", "Active"), facts.get("LastUpdateStatus", "Successful")
        if state in ("Active", "Pending") and update != "Failed":
            healthy += 1
        elif state == "Inactive":
            yield Finding(
                "functions",
                "warning",
                f"{one.logical_id} is inactive, because it was not called for weeks",
                "The next call starts it and fails; the state machine retries it.",
            )
        else:
            reason = facts.get("StateReason") or facts.get("LastUpdateStatusReason") or "no reason given"
            what = (
                f"{one.logical_id} is {state}" if state == "Failed" else f"The last update of {one.logical_id} failed"
            )
            yield Finding("functions", "problem", f"{what}: {reason}", "Remove the cause, and deploy the stack again.")
    if healthy == len(existing):
        yield Finding("functions", "ok", f"{healthy} functions can be called")


def worker(patient: Patient) -> Iterator[Finding]:
    """Compare the running workers with the desired ones, and find failed starts of GPU instances."""
    outputs = patient.stack.outputs
    if "WorkerServiceName" not in outputs:
        yield Finding("worker", "ok", "The stack has no worker")
        return
    cluster, service = outputs["WorkerClusterName"], outputs["WorkerServiceName"]
    described = patient.stack.client("ecs").describe_services(cluster=cluster, services=[service])
    existing = [one for one in described["services"] if one.get("status") not in _DELETED_SERVICE]
    if not existing:
        yield Finding("worker", "problem", f"The service {service} does not exist", patient.restore)
        return
    [facts] = existing
    desired, running, pending = (facts[name] for name in ("desiredCount", "runningCount", "pendingCount"))
    counts = f"{desired} desired, {running} running, {pending} pending"
    latest = [event["message"] for event in facts.get("events", [])[:_LISTED]]
    failed = [one for one in facts.get("deployments", []) if one.get("rolloutState") == "FAILED"]
    if failed or running < desired:
        found = f"{counts}. Latest events: {' | '.join(latest) or 'none'}"
        if failed:
            found = f"A deployment failed: {failed[0].get('rolloutStateReason', 'no reason given')}. {found}"
        name = service.rpartition("/")[2]
        remedy = (
            f"aws ecs describe-services --cluster {cluster} --services {name}{patient.region} has all events; "
            f"pbr logs shows those of an execution. See {_RUNBOOK}."
        )
        yield Finding("worker", "problem" if failed or not running else "warning", found, remedy)
    else:
        yield Finding("worker", "ok", counts)
    yield from _gpu_capacity(patient)


def _gpu_capacity(patient: Patient) -> Iterator[Finding]:
    for group in patient.of_type("AWS::AutoScaling::AutoScalingGroup"):
        activities = patient.stack.client("autoscaling").describe_scaling_activities(
            AutoScalingGroupName=group.id, MaxRecords=10
        )["Activities"]
        since = patient.now() - _FAILED_LAUNCHES_SINCE
        failed = [one for one in activities if one["StatusCode"] == "Failed" and one["StartTime"] > since]
        if failed:
            yield Finding(
                "GPU capacity",
                "problem",
                f"{len(failed)} starts of GPU instances failed: {failed[0].get('StatusMessage', 'no reason given')}",
                "If capacity is missing, deploy with another GpuInstanceType, with WorkerSubnets in more zones, or "
                "with SegmentationCapacity=GPU_SPOT, which uses all types. If a quota is reached, see worker quota. "
                "Lambda segments the images meanwhile.",
            )
        else:
            yield Finding("GPU capacity", "ok", "No start of a GPU instance failed in the last 6 hours")


def endpoint(patient: Patient) -> Iterator[Finding]:
    """Check that the SageMaker endpoint is in service."""
    name = patient.stack.outputs.get("SageMakerEndpoint") or patient.parameter("SageMakerEndpointName")
    if not name:
        yield Finding("endpoint", "ok", "The stack has no endpoint")
        return
    try:
        facts = patient.stack.client("sagemaker").describe_endpoint(EndpointName=name)
    except client_error() as error:
        if "Could not find" not in str(error):
            raise
        own = "SageMakerEndpoint" in patient.stack.outputs
        remedy = patient.restore if own else "Deploy with another SageMakerEndpointName."
        remedy += " Lambda segments the images meanwhile."
        yield Finding("endpoint", "problem", f"The endpoint {name} does not exist", remedy)
        return
    state = facts["EndpointStatus"]
    if state == "InService":
        yield Finding("endpoint", "ok", f"{name} is InService")
    elif state in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
        yield Finding("endpoint", "warning", f"{name} is {state}", "Wait until it is InService.")
    else:
        reason = facts.get("FailureReason", "no reason given")
        remedy = (
            f"Its log group is /aws/sagemaker/Endpoints/{name}. Remove the cause, and deploy the stack again. Lambda "
            "segments the images meanwhile."
        )
        yield Finding("endpoint", "problem", f"{name} is {state}: {reason}", remedy)


def dead_letters(patient: Patient) -> Iterator[Finding]:
    """Count the messages of each dead-letter queue."""
    stack, found = patient.stack, 0
    for queue in Queue:
        if queue.output not in stack.outputs:
            continue
        waiting, received = stack.messages(queue.output)
        if count := waiting + received:
            found += 1
            age = _oldest(patient, stack.outputs[queue.output].rpartition("/")[2])
            oldest = f", the oldest is {age} old" if age else ""
            what = f"{count} message{'' if count == 1 else 's'} in the queue {queue}{oldest}"
            yield Finding("dead letters", "problem", what, f"{replay_command(stack, queue)}")
    if not found:
        yield Finding("dead letters", "ok", "All dead-letter queues are empty")


def _oldest(patient: Patient, queue: str) -> str:
    """Return how long the oldest message has waited, as text; empty if CloudWatch does not know."""
    points = patient.stack.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        StartTime=patient.now() - timedelta(minutes=15),
        EndTime=patient.now(),
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    if not points:
        return ""
    newest = max(points, key=lambda point: point["Timestamp"])["Maximum"]
    return age_text(newest)


def age_text(seconds: float) -> str:
    """Return an age in its largest unit, e.g. ``4 min``."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60))
    return next((f"{seconds // size:.0f} {unit}" for unit, size in units if seconds >= size), f"{seconds:.0f} s")


def events(patient: Patient) -> Iterator[Finding]:
    """Check that uploads start executions: events of the bucket, and rules with a target."""
    problems = 0
    bucket = patient.stack.outputs["UploadsBucket"]
    if "EventBridgeConfiguration" not in patient.stack.s3.get_bucket_notification_configuration(Bucket=bucket):
        problems += 1
        yield Finding(
            "events",
            "problem",
            f"s3://{bucket} sends no events to EventBridge, so uploads start no execution",
            f"aws s3api put-bucket-notification-configuration --bucket {bucket}{patient.region} "
            "--notification-configuration "
            "'{\"EventBridgeConfiguration\": {}}'",
        )
    rules, client = patient.of_type("AWS::Events::Rule"), patient.stack.client("events")
    for rule in rules:
        name = rule.id.rpartition("/")[2].rpartition("|")[2]
        if client.describe_rule(Name=name)["State"] == "DISABLED":
            problems += 1
            yield Finding(
                "events",
                "problem",
                f"The rule {rule.logical_id} is disabled",
                f"aws events enable-rule --name {name}{patient.region}",
            )
        elif not client.list_targets_by_rule(Rule=name)["Targets"]:
            problems += 1
            yield Finding("events", "problem", f"The rule {rule.logical_id} has no target", patient.restore)
    if not problems:
        yield Finding("events", "ok", f"{len(rules)} rules are enabled, and s3://{bucket} sends events")


def storage(patient: Patient) -> Iterator[Finding]:
    """Check that the versions of uploads and results are kept: executions read the version that was uploaded."""
    problems = 0
    for output in ("UploadsBucket", "ResultsBucket"):
        bucket = patient.stack.outputs[output]
        if patient.stack.s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
            problems += 1
            remedy = (
                f"aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"
                f"{patient.region}"
            )
            yield Finding("storage", "problem", f"Versioning of s3://{bucket} is off", remedy)
    if not problems:
        yield Finding("storage", "ok", "The buckets of uploads and results keep versions")


def alarms(patient: Patient) -> Iterator[Finding]:
    """List the alarms of the stack that are in ALARM, with the sections of the runbook."""
    names = [one.id for one in patient.of_type("AWS::CloudWatch::Alarm")]
    paginator = patient.stack.client("cloudwatch").get_paginator("describe_alarms")
    pages = (
        page
        for first in range(0, len(names), _ALARMS_PER_CALL)
        for page in paginator.paginate(AlarmNames=names[first : first + _ALARMS_PER_CALL], AlarmTypes=["MetricAlarm"])
    )
    # Alarms of scaling policies have no section in the runbook.
    own = [
        (alarm, link[1])
        for page in pages
        for alarm in page["MetricAlarms"]
        if (link := _LINK.search(alarm.get("AlarmDescription", "")))
    ]
    if not own:
        remedy = "Deploy with Operations=true."
        yield Finding("alarms", "warning", "The stack has no alarms", remedy)
        return
    loud = [(alarm, runbook) for alarm, runbook in own if alarm["StateValue"] == "ALARM"]
    for alarm, runbook in loud:
        critical = alarm["AlarmDescription"].startswith("Critical")
        since = alarm["StateUpdatedTimestamp"].astimezone(UTC)
        found = f"{alarm['AlarmName']} since {since:%Y-%m-%d %H:%M} UTC: {alarm['StateReason']}"
        yield Finding("alarms", "problem" if critical else "warning", found, runbook)
    if not loud:
        yield Finding("alarms", "ok", f"None of {len(own)} alarms is in ALARM")


def subscriptions(patient: Patient) -> Iterator[Finding]:
    """Find subscriptions that are not confirmed, whose emails are not sent, and a topic of alarms without any."""
    sns, pending, count = patient.stack.client("sns"), 0, 0
    for topic in patient.of_type("AWS::SNS::Topic"):
        confirmed = waiting = 0
        for page in sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic.id):
            for one in page["Subscriptions"]:
                if one["SubscriptionArn"] != _WITHOUT_CONFIRMATION:
                    confirmed += 1
                    continue
                waiting += 1
                yield Finding(
                    "subscriptions",
                    "warning",
                    f"{one['Endpoint']} gets no message of {topic.logical_id}: its subscription is not confirmed",
                    "Open the link in the mail from AWS Notifications, which is valid for 2 days. Afterwards "
                    "deploy without AlertEmail, then with it.",
                )
        if topic.logical_id == _ALERTS and not confirmed and not waiting and not patient.stack.endpoint_url:
            waiting += 1
            remedy = f"Deploy with AlertEmail=<address> and confirm the email, or subscribe to {topic.id}."
            yield Finding("subscriptions", "warning", "No one receives alarms: AlertsTopic has no subscription", remedy)
        pending, count = pending + waiting, count + confirmed
    if not pending:
        mail = ". The embedded cloud sends no email" if patient.stack.endpoint_url else ""
        yield Finding("subscriptions", "ok", f"Confirmed subscriptions: {count}{mail}")


def machines(patient: Patient) -> Iterator[Finding]:
    """Check the state machines."""
    found = patient.of_type("AWS::StepFunctions::StateMachine")
    states = {
        one.logical_id: patient.stack.stepfunctions.describe_state_machine(stateMachineArn=one.id).get(
            "status", "ACTIVE"
        )
        for one in found
    }
    broken = [f"{name} is {state}" for name, state in states.items() if state != "ACTIVE"]
    if broken:
        yield Finding("state machines", "problem", ", ".join(broken), patient.restore)
    else:
        yield Finding("state machines", "ok", f"{len(states)} state machines are active")


def log_groups(patient: Patient) -> Iterator[Finding]:
    """Check that the log groups exist: without one, Lambda creates it anew, and its lines never expire."""
    logs, existing = patient.stack.client("logs"), dict[str, int | None]()
    for prefix in _GROUPS:
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            existing.update((one["logGroupName"], one.get("retentionInDays")) for one in page["logGroups"])
    wanted = [one.id for one in patient.of_type("AWS::Logs::LogGroup") if one.id.startswith(_GROUPS)]
    missing = [name for name in wanted if name not in existing]
    endless = [name for name in wanted if name in existing and existing[name] is None]
    days = patient.parameter("LogRetentionDays", "30")
    for name in missing:
        create = f"aws logs create-log-group --log-group-name {name}{patient.region}"
        yield Finding("log groups", "warning", f"{name} does not exist", f"{create} && {_retention(patient, name)}")
    for name in endless:
        yield Finding("log groups", "warning", f"The lines of {name} never expire", _retention(patient, name))
    if not missing and not endless:
        yield Finding("log groups", "ok", f"{len(wanted)} log groups keep lines for {days} days")


def _retention(patient: Patient, group: str) -> str:
    days = patient.parameter("LogRetentionDays", "30")
    return f"aws logs put-retention-policy --log-group-name {group} --retention-in-days {days}{patient.region}"


def executions(patient: Patient) -> Iterator[Finding]:
    """Compare the executions of the last hour that failed with those that succeeded."""
    client, since, recent = patient.stack.stepfunctions, patient.now() - timedelta(hours=1), dict[str, list[Any]]()
    for state in ("SUCCEEDED", "FAILED", "TIMED_OUT"):
        page: Any = client.list_executions(
            stateMachineArn=patient.stack.outputs["StateMachineArn"],
            statusFilter=state,
            maxResults=100,
        )
        recent[state] = [one for one in page["executions"] if _utc(one["startDate"]) > since]
    failed, succeeded = recent["FAILED"] + recent["TIMED_OUT"], len(recent["SUCCEEDED"])
    found = f"{succeeded} succeeded and {len(failed)} failed in the last hour (of the latest 100 each)"
    if not failed or len(failed) < succeeded:
        yield Finding("executions", "ok", found)
        return
    latest = sorted(failed, key=lambda one: _utc(one["startDate"]), reverse=True)[:_DESCRIBED]
    ended = [client.describe_execution(executionArn=one["executionArn"]) for one in latest]
    [(error, count)] = Counter(one.get("error") or one["status"] for one in ended).most_common(1)
    found += f". Most common error: {error}, {count} of the latest {len(latest)}"
    yield Finding("executions", "warning", found, f"pbr history --status failed --since 1h{patient.place}")


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)
