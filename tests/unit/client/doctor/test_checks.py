from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from client.doctor import account, deployment, services
from client.doctor.examination import CHECKS, DRIFT, run, worst
from client.doctor.findings import Check, Finding, Patient
from client.resources import Resource
from core.segmentation.registry import MODELS
from tests.conftest import ROOT
from tests.fakes import stack_in_memory
from tests.fakes.aws_account import Answers, refusal
from tests.fakes.stack_in_memory import NOW, OUTPUTS, RECOVERY_OUTPUTS

WORKER = {"WorkerServiceName": "service/worker", "WorkerClusterName": "cluster"}
RUNBOOK = "https://example.com/runbook.md#failure-rate"


def patient(
    clients: dict[str, Any] | None = None,
    resources: Iterable[Resource] = (),
    outputs: dict[str, str] | None = None,
    **parameters: str,
) -> Patient:
    stack = replace(
        stack_in_memory.stack(),
        client=(clients or {}).__getitem__,
        outputs={**OUTPUTS, **RECOVERY_OUTPUTS, **(outputs or {})},
        parameters={"DefaultModel": "u2netp", "SegmentMemory": "3008", **parameters},
    )
    return Patient(stack, list(resources), now=lambda: NOW)


def resource(kind: str, logical_id: str = "Thing", **facts: str) -> Resource:
    return replace(Resource("pbr", logical_id, kind, "thing", "CREATE_COMPLETE", ""), **facts)


def seen(look: Callable[[Patient], Iterable[Finding]], of: Patient) -> list[tuple[str, str, str]]:
    return [(finding.result, finding.found, finding.remedy) for finding in look(of)]


@pytest.mark.parametrize(("skew_s", "result"), [(2, "ok"), (-45, "warning"), (400, "problem")])
def test_the_clock_is_compared_with_that_of_aws(skew_s: int, result: str) -> None:
    date = format_datetime(NOW + timedelta(seconds=skew_s), usegmt=True)
    identity = {"Arn": "arn:aws:iam::1:user/me", "ResponseMetadata": {"HTTPHeaders": {"date": date}}}
    who, clock = account.credentials(patient({"sts": Answers(get_caller_identity=identity)}))
    assert (who.result, clock.result) == ("ok", result)
    assert f"{abs(skew_s)} s" in clock.found and bool(clock.remedy) == (result != "ok")


def test_less_concurrency_than_the_stack_may_use_is_a_warning() -> None:
    limits = {"AccountLimit": {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}}
    client = {"lambda": Answers(get_account_settings=limits)}
    [(result, found, remedy)] = seen(account.concurrency, patient(client, BulkConcurrency="10", ApiJobsInFlight="20"))
    assert result == "warning" and "ApiJobsInFlight=20" in found and "BulkConcurrency" not in found
    assert "L-B99A9384" in remedy
    [(result, _, _)] = seen(account.concurrency, patient(client, BulkConcurrency="10", ApiJobsInFlight="5"))
    assert result == "ok"


@pytest.mark.parametrize(
    ("capacity", "quota", "result", "code"),
    [
        ("FARGATE", 40, "ok", "L-3032A538"),
        ("FARGATE_SPOT", 39, "warning", "L-36FBB829"),
        ("GPU", 0, "problem", "L-DB2E81BA"),
        ("GPU", 79, "warning", "L-DB2E81BA"),
        ("GPU_SPOT", 40, "ok", "L-3819A6DF"),
    ],
)
def test_the_quota_of_vcpus_is_compared_with_the_workers(capacity: str, quota: int, result: str, code: str) -> None:
    quotas = Answers(get_service_quota={"Quota": {"Value": float(quota)}})
    sick = patient(
        {"service-quotas": quotas},
        outputs=WORKER,
        SegmentationCapacity=capacity,
        WorkerMaxCount="10",
        GpuInstanceType="g5.2xlarge",
    )
    [(found, _, remedy)] = seen(account.worker_quota, sick)
    assert found == result and quotas.requests[0][1]["QuotaCode"] == code
    assert (code in remedy) == (result != "ok")


@pytest.mark.parametrize(
    ("kind", "vcpus"), [("g4dn.xlarge", 4), ("g5.2xlarge", 8), ("g6e.12xlarge", 48), ("g4dn.16xlarge", 64)]
)
def test_vcpus_follow_from_the_size_of_an_instance(kind: str, vcpus: int) -> None:
    assert account.instance_vcpus(kind) == vcpus


def test_the_quota_of_the_endpoint_is_found_by_its_name() -> None:
    listed = {"Quotas": [{"QuotaName": "ml.g5.xlarge for endpoint usage", "QuotaCode": "L-1", "Value": 0.0}]}
    clients = {"service-quotas": Answers(list_service_quotas=listed)}
    one = {"outputs": {"SageMakerEndpoint": "e"}, "SageMakerMaxCount": "4"}
    [(result, _, remedy)] = seen(account.endpoint_quota, patient(clients, **one, SageMakerInstanceType="ml.g5.xlarge"))
    assert result == "problem" and "--quota-code L-1" in remedy
    [(result, _, _)] = seen(account.endpoint_quota, patient(clients, **one, SageMakerInstanceType="ml.c6i.xlarge"))
    assert result == "not checked"


def test_missing_service_linked_roles_are_created_with_a_command() -> None:
    iam = Answers(get_role=lambda RoleName: refusal("NoSuchEntity") if "Spot" in RoleName else {})  # noqa: N803
    found = seen(account.roles, patient({"iam": iam}, outputs=WORKER, SegmentationCapacity="GPU_SPOT"))
    assert [(result, remedy.rpartition(" ")[2]) for result, _, remedy in found] == [("warning", "spot.amazonaws.com")]
    assert len(iam.requests) == 4


@pytest.mark.parametrize(
    ("state", "results"),
    [
        ("UPDATE_COMPLETE", ["ok"]),
        ("UPDATE_IN_PROGRESS", ["warning"]),
        ("UPDATE_ROLLBACK_COMPLETE", ["warning"]),
        ("UPDATE_ROLLBACK_FAILED", ["problem"]),
    ],
)
def test_the_status_of_the_stack_is_reported(state: str, results: list[str]) -> None:
    cloudformation = Answers(describe_stacks={"Stacks": [{"StackStatus": state}]})
    assert [one[0] for one in seen(deployment.status, patient({"cloudformation": cloudformation}))] == results


def test_a_memory_that_the_account_refuses_has_its_remedy() -> None:
    reason = "Value '8192' at 'memorySize' failed: 'MemorySize' value failed to satisfy constraint: 3008 MB"
    failed = resource("AWS::Lambda::Function", "SegmentFunction", status="UPDATE_FAILED", reason=reason)
    cloudformation = Answers(describe_stacks={"Stacks": [{"StackStatus": "UPDATE_COMPLETE"}]})
    [(result, found, remedy)] = seen(deployment.status, patient({"cloudformation": cloudformation}, [failed]))
    assert result == "problem" and "SegmentFunction" in found and "3,008 MB" in remedy


def test_templates_are_compared_without_what_sam_package_replaces() -> None:
    local = {"Resources": {"F": {"Metadata": {"a": 1}, "Properties": {"X": {"Fn::GetAtt": ["A", "Arn"]}, "N": 5}}}}
    packaged = {"Resources": {"F": {"Properties": {"X": {"Fn::GetAtt": "A.Arn"}, "N": "5", "ImageUri": "1.dkr/x"}}}}
    assert deployment.differences(packaged, local) == []
    assert deployment.differences({"Parameters": {"P": {"Default": 1}}}, local) == ["P", "F"]


def test_an_older_template_is_a_warning() -> None:
    cloudformation = Answers(get_template={"TemplateBody": "Resources: {Old: {Type: 'AWS::SNS::Topic'}}"})
    old = replace(patient({"cloudformation": cloudformation}), templates={"": {"Resources": {}}})
    [(result, found, remedy)] = seen(deployment.template, old)
    assert result == "warning" and "Old" in found and "upgrade.md" in remedy


def test_drift_is_detected_in_nested_stacks_too() -> None:
    drifts = {"StackResourceDrifts": [{"LogicalResourceId": "Rule", "StackResourceDriftStatus": "MODIFIED"}]}

    def drifts_of(StackName: str, **_: Any) -> Any:  # noqa: N803
        return drifts if StackName == "nested" else {"StackResourceDrifts": []}

    cloudformation = Answers(
        detect_stack_drift=lambda StackName: {"StackDriftDetectionId": StackName},  # noqa: N803
        describe_stack_drift_detection_status={"DetectionStatus": "DETECTION_COMPLETE"},
        describe_stack_resource_drifts=drifts_of,
    )
    nested = resource("AWS::CloudFormation::Stack", id="nested")
    [(result, found, _)] = seen(deployment.drift, patient({"cloudformation": cloudformation}, [nested]))
    assert result == "problem" and "Rule (modified)" in found


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"DefaultModel": "u3net"}, "DefaultModel=u3net is not a model"),
        ({"DefaultModel": "birefnet-general"}, "SegmentMemory is 3008"),
        ({"EscalateOnReview": "true", "EscalationModel": "nope"}, "EscalationModel=nope"),
        ({"Presets": "{"}, "Presets: "),
        ({"CustomModels": "["}, "CustomModels: "),
    ],
)
def test_a_wrong_parameter_is_a_problem(parameters: dict[str, str], part: str) -> None:
    [(result, found, remedy)] = seen(deployment.parameters, patient(**parameters))
    assert result == "problem" and part in found and remedy


@pytest.mark.parametrize(
    ("answer", "result", "part"),
    [
        ({"ContentLength": MODELS["u2netp"].bytes}, "ok", "u2netp"),
        ({"ContentLength": 7}, "problem", "has 7 bytes instead of"),
        (refusal("404"), "problem", "does not exist"),
    ],
)
def test_weights_are_looked_for_in_the_bucket(answer: Any, result: str, part: str) -> None:
    [(found, text, remedy)] = seen(deployment.weights, patient({"s3": Answers(head_object=answer)}, ModelBucket="m"))
    assert found == result and part in text
    assert remedy == ("" if result == "ok" else "pbr models fetch u2netp --to s3://m")


@pytest.mark.parametrize(
    ("facts", "result"),
    [
        ({"State": "Active", "LastUpdateStatus": "Successful"}, "ok"),
        ({"State": "Inactive"}, "warning"),
        ({"State": "Failed", "StateReason": "image"}, "problem"),
        ({"State": "Active", "LastUpdateStatus": "Failed", "LastUpdateStatusReason": "role"}, "problem"),
    ],
)
def test_functions_that_cannot_be_called_are_found(facts: dict[str, str], result: str) -> None:
    client = {"lambda": Answers(get_function_configuration=facts)}
    [(found, text, _)] = seen(services.functions, patient(client, [resource("AWS::Lambda::Function")]))
    assert found == result and facts.get("StateReason", "") in text


@pytest.mark.parametrize(
    ("service", "result"),
    [
        ({"desiredCount": 0, "runningCount": 0}, "ok"),
        ({"desiredCount": 2, "runningCount": 1}, "warning"),
        ({"desiredCount": 2, "runningCount": 0}, "problem"),
        ({"desiredCount": 1, "runningCount": 1, "deployments": [{"rolloutState": "FAILED"}]}, "problem"),
    ],
)
def test_workers_that_do_not_run_are_found_with_the_latest_events(service: dict[str, Any], result: str) -> None:
    described = {"services": [{"pendingCount": 0, "events": [{"message": "unable to place a task"}], **service}]}
    sick = patient({"ecs": Answers(describe_services=described)}, outputs=WORKER)
    [(found, text, _)] = seen(services.worker, sick)
    assert found == result and ("unable to place a task" in text) == (result != "ok")


def test_failed_starts_of_gpu_instances_are_found() -> None:
    ecs = Answers(describe_services={"services": [{"desiredCount": 0, "runningCount": 0, "pendingCount": 0}]})
    launch = {"StatusCode": "Failed", "StartTime": NOW - timedelta(hours=1), "StatusMessage": "VcpuLimitExceeded"}
    scaling = Answers(describe_scaling_activities={"Activities": [launch]})
    group = resource("AWS::AutoScaling::AutoScalingGroup")
    _, (result, found, _) = seen(
        services.worker, patient({"ecs": ecs, "autoscaling": scaling}, [group], outputs=WORKER)
    )
    assert result == "problem" and "VcpuLimitExceeded" in found


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"EndpointStatus": "InService"}, "ok"),
        ({"EndpointStatus": "Creating"}, "warning"),
        ({"EndpointStatus": "Failed", "FailureReason": "no such image"}, "problem"),
        (refusal("ValidationException", 'Could not find endpoint "e".'), "problem"),
    ],
)
def test_an_endpoint_that_is_not_in_service_is_found(answer: Any, result: str) -> None:
    sick = patient({"sagemaker": Answers(describe_endpoint=answer)}, outputs={"SageMakerEndpoint": "e"})
    [(found, _, remedy)] = seen(services.endpoint, sick)
    assert found == result and bool(remedy) == (result != "ok")


def test_dead_letters_are_counted_with_age_and_command() -> None:
    def attributes(QueueUrl: str, **_: Any) -> Any:  # noqa: N803
        count = "2" if "webhooks" in QueueUrl else "0"
        return {"Attributes": {"ApproximateNumberOfMessages": count, "ApproximateNumberOfMessagesNotVisible": "0"}}

    ages = {"Datapoints": [{"Timestamp": NOW, "Maximum": 7260.0}]}
    clients = {"sqs": Answers(get_queue_attributes=attributes), "cloudwatch": Answers(get_metric_statistics=ages)}
    [(result, found, remedy)] = seen(services.dead_letters, patient(clients))
    assert (result, found) == ("problem", "2 messages in the queue webhooks, the oldest for 2:01:00")
    assert remedy == "pbr replay-dlq webhooks --stack pbr --region eu-west-1"


@pytest.mark.parametrize(
    ("configured", "state", "targets", "part"),
    [
        ({"EventBridgeConfiguration": {}}, "ENABLED", [1], None),
        ({}, "ENABLED", [1], "put-bucket-notification-configuration"),
        ({"EventBridgeConfiguration": {}}, "DISABLED", [1], "aws events enable-rule --name thing"),
        ({"EventBridgeConfiguration": {}}, "ENABLED", [], "Deploy the stack again."),
    ],
)
def test_uploads_that_start_nothing_are_found(configured: Any, state: str, targets: list[int], part: str) -> None:
    clients = {
        "s3": Answers(get_bucket_notification_configuration=configured),
        "events": Answers(describe_rule={"State": state}, list_targets_by_rule={"Targets": targets}),
    }
    [(result, _, remedy)] = seen(services.events, patient(clients, [resource("AWS::Events::Rule")]))
    assert (result == "ok" and not remedy) if part is None else (result == "problem" and part in remedy)


def test_a_bucket_without_versions_is_a_problem() -> None:
    s3 = Answers(get_bucket_versioning=lambda Bucket: {"Status": "Enabled"} if Bucket == "results" else {})  # noqa: N803
    [(result, found, _)] = seen(services.storage, patient({"s3": s3}))
    assert (result, found) == ("problem", "Versioning of s3://uploads is off")


@pytest.mark.parametrize(("severity", "result"), [("Critical", "problem"), ("Warning", "warning")])
def test_alarms_lead_to_their_section_of_the_runbook(severity: str, result: str) -> None:
    loud = {
        "AlarmName": "pbr-failure-rate",
        "AlarmDescription": f"{severity}. Too many. Runbook: {RUNBOOK}",
        "StateValue": "ALARM",
        "StateReason": "5 > 1",
        "StateUpdatedTimestamp": NOW,
    }
    scaling = {"AlarmName": "pbr-WorkerWakeUp", "AlarmDescription": "Requests are waiting", "StateValue": "ALARM"}
    cloudwatch = Answers(describe_alarms={"MetricAlarms": [loud, scaling, {**loud, "StateValue": "OK"}]})
    [(found, text, remedy)] = seen(services.alarms, patient({"cloudwatch": cloudwatch}))
    assert (found, remedy) == (result, RUNBOOK) and "5 > 1" in text


def test_a_subscription_that_waits_for_its_confirmation_is_a_warning() -> None:
    listed = {"Subscriptions": [{"SubscriptionArn": "PendingConfirmation", "Endpoint": "a@example.com"}]}
    sns = Answers(list_subscriptions_by_topic=listed)
    [(result, found, _)] = seen(services.subscriptions, patient({"sns": sns}, [resource("AWS::SNS::Topic")]))
    assert result == "warning" and "a@example.com" in found


def test_log_groups_that_are_missing_or_kept_for_ever_are_found() -> None:
    groups = [resource("AWS::Logs::LogGroup", id=f"/aws/lambda/{name}") for name in ("a", "b", "c")]
    listed = {
        "logGroups": [{"logGroupName": "/aws/lambda/a", "retentionInDays": 30}, {"logGroupName": "/aws/lambda/b"}]
    }
    found = seen(services.log_groups, patient({"logs": Answers(describe_log_groups=listed)}, groups))
    assert [(result, text.partition(" ")[0]) for result, text, _ in found] == [
        ("warning", "/aws/lambda/c"),
        ("warning", "/aws/lambda/b"),
    ]


def test_a_denied_call_is_not_checked_and_names_the_permission() -> None:
    def denied(_patient: Patient) -> Iterable[Finding]:
        raise refusal("AccessDenied")

    [finding] = run(patient(), [Check("quota", denied, permissions=("servicequotas:GetServiceQuota",))])
    assert finding.result == "not checked" and "servicequotas:GetServiceQuota" in finding.remedy


def test_a_resource_that_does_not_exist_is_a_problem_and_does_not_end_the_other_checks() -> None:
    def deleted(_patient: Patient) -> Iterable[Finding]:
        yield Finding("queue", "ok", "the first")
        raise refusal("AWS.SimpleQueueService.NonExistentQueue")

    checks = [Check("queue", deleted), Check("parameters", deployment.parameters)]
    findings = run(patient(), checks)
    assert [finding.result for finding in findings] == ["ok", "problem", "ok"]
    assert worst(findings) == "problem"


def test_what_an_embedded_cloud_lacks_is_not_checked_with_the_reason() -> None:
    embedded = replace(patient(), stack=replace(patient().stack, endpoint_url="http://localhost:5555"))
    only_aws = [check for check in (*CHECKS, DRIFT) if check.only_aws]
    assert [(one.result, one.found) for one in run(embedded, only_aws)] == [
        ("not checked", check.only_aws) for check in only_aws
    ]


def test_the_documentation_lists_each_permission() -> None:
    text = (ROOT / "docs/how-to/doctor.md").read_text()
    assert [name for check in (*CHECKS, DRIFT) for name in check.permissions if f'"{name}"' not in text] == []
