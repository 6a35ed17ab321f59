from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from samcli.lib.package.image_utils import tag_translation
from samcli.yamlhelper import yaml_dump as sam_dump
from samcli.yamlhelper import yaml_parse as sam_parse
from samtranslator.yaml_helper import yaml_parse

from client.doctor import account, deployment, services
from client.doctor.examination import CHECKS, DRIFT, local_templates, run, worst
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


def test_a_reservation_that_is_less_than_the_stack_may_use_is_a_warning() -> None:
    limits = {"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 760}}
    client = {"lambda": Answers(get_account_settings=limits)}
    given = {"BulkConcurrency": "10", "ApiJobsInFlight": "30", "FunctionConcurrency": "20"}
    [(result, found, remedy)] = seen(account.concurrency, patient(client, **given))
    assert result == "warning" and "each function may use 20" in found and "less than ApiJobsInFlight=30" in found
    assert remedy == "Deploy with a higher FunctionConcurrency, or with lower values of ApiJobsInFlight."
    [(result, _, _)] = seen(account.concurrency, patient(client, **{**given, "FunctionConcurrency": "30"}))
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


def test_our_template_does_not_differ_from_what_sam_makes_of_it() -> None:
    local = yaml_parse((ROOT / "template.yaml").read_text())
    packaged = sam_parse(sam_dump(sam_parse((ROOT / "template.yaml").read_text())))
    assert deployment.differences(packaged, local) == []
    packaged["Globals"]["Function"]["Timeout"] = 1
    del packaged["Rules"]["EcsNeedsWorker"]
    assert deployment.differences(packaged, local) == ["Rules.EcsNeedsWorker", "Globals.Function"]


def test_an_older_template_is_a_warning() -> None:
    cloudformation = Answers(get_template={"TemplateBody": "Resources: {Old: {Type: 'AWS::SNS::Topic'}}"})
    old = replace(patient({"cloudformation": cloudformation}), templates=lambda: {"": {"Resources": {}}})
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


REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
BUILD = "1.4.0-abc"


def function_with(repository: str, tag: str, digest: str = "1") -> dict[str, Any]:
    """The answer of GetFunction. sam deploy alone pushes to a repository per function, with the tag it derives."""
    uri = f"{REGISTRY}/{repository}"
    return {"Code": {"ImageUri": f"{uri}:{tag}", "ResolvedImageUri": f"{uri}@sha256:{digest * 64}"}}


def with_functions(*answers: dict[str, Any], ecr: Answers | None = None, **parameters: str) -> Patient:
    numbered = {f"F{number}": answer for number, answer in enumerate(answers)}
    client = {"lambda": Answers(get_function=lambda FunctionName: numbered[FunctionName]), "ecr": ecr}  # noqa: N803
    return patient(client, [resource("AWS::Lambda::Function", name, id=name) for name in numbered], **parameters)


def test_functions_of_one_image_under_the_tags_of_sam_are_one_build() -> None:
    first = function_with("stack/validatefunction1a2b", tag_translation("validatefunction:cpu", f"sha256:{'ab' * 32}"))
    second = function_with("stack/bulk3c4d", tag_translation("preparebulkfunction:cpu", f"sha256:{'ab' * 32}"), "2")
    [(result, found, _)] = seen(deployment.images, with_functions(first, second))
    assert result == "ok" and "abababababab" in found
    other = function_with("stack/bulk3c4d", tag_translation("preparebulkfunction:cpu", f"sha256:{'cd' * 32}"))
    [(result, found, remedy)] = seen(deployment.images, with_functions(first, first, other))
    assert result == "warning" and "cdcdcdcdcdcd (F2)" in found and "make deploy" in remedy


def test_functions_with_other_tags_are_compared_by_digest() -> None:
    moved = with_functions(function_with("mine", "latest", "1"), function_with("mine", "latest", "2"))
    assert [one[0] for one in seen(deployment.images, moved)] == ["warning"]
    same = with_functions(function_with("mine", "a", "1"), function_with("theirs", "b", "1"))
    assert [one[0] for one in seen(deployment.images, same)] == ["ok"]


@pytest.mark.parametrize(
    ("tags", "result", "part"),
    [
        ([f"cpu-{BUILD}-0123abcd"], "ok", "The worker runs build 1.4.0-abc"),
        (["cpu-1.3.0-abc-0123abcd"], "warning", "The worker runs build 1.3.0-abc, the functions run 1.4.0-abc"),
        (["mine"], "not checked", "no tag of make deploy"),
    ],
)
def test_the_build_of_the_worker_is_compared_with_that_of_the_functions(
    tags: list[str], result: str, part: str
) -> None:
    ecr = Answers(describe_images={"imageDetails": [{"imageTags": tags}]})
    uri = f"{REGISTRY}/stack@sha256:{'1' * 64}"
    _, (found, text, _) = seen(
        deployment.images, with_functions(function_with("a", "b"), ecr=ecr, WorkerImageUri=uri, Build=BUILD)
    )
    assert found == result and part in text
    assert ecr.requests[0][1] == {
        "registryId": "123456789012",
        "repositoryName": "stack",
        "imageIds": [{"imageDigest": f"sha256:{'1' * 64}"}],
    }


def test_the_build_of_an_image_in_another_registry_is_not_known() -> None:
    of = with_functions(function_with("a", "b"), SageMakerImageUri="example.com/mine:1", Build=BUILD)
    _, (result, found, _) = seen(deployment.images, of)
    assert result == "not checked" and "The endpoint" in found


def test_another_version_of_pbr_than_that_of_the_stack_is_a_warning() -> None:
    own = version("precision-background-remover")
    _, (result, found, remedy) = seen(
        deployment.images, with_functions(function_with("a", "b"), Build="0.0.1-ab12cd34ef56")
    )
    assert result == "warning" and "0.0.1" in found and own in found and "make deploy" in remedy
    same = with_functions(function_with("a", "b"), Build=f"{own}-ab12cd34ef56")
    assert [one[0] for one in seen(deployment.images, same)] == ["ok"]


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
    ("endpoint_url", "part"), [(None, "doctor.md#restore-deleted-resources"), ("http://localhost:1", "pbr restart")]
)
def test_deleted_resources_are_named_with_what_creates_them_again(endpoint_url: str | None, part: str) -> None:
    clients = {
        "lambda": Answers(get_function_configuration=refusal("ResourceNotFoundException")),
        "ecs": Answers(describe_services={"services": [{"status": "INACTIVE"}]}),
        "sagemaker": Answers(describe_endpoint=refusal("ValidationException", 'Could not find endpoint "e".')),
        "sqs": Answers(get_queue_attributes=refusal("QueueDoesNotExist", "The queue does not exist.")),
    }
    functions = [resource("AWS::Lambda::Function", name) for name in ("Encode", "Refine")]
    one = patient(clients, functions, outputs={**WORKER, "SageMakerEndpoint": "e"})
    one = replace(one, stack=replace(one.stack, endpoint_url=endpoint_url))
    looks = (services.functions, services.worker, services.endpoint, services.dead_letters)
    findings = run(one, [Check("check", look) for look in looks])
    assert [finding.found for finding in findings] == [
        "The function Encode does not exist",
        "The function Refine does not exist",
        "The service service/worker does not exist",
        "The endpoint e does not exist",
        "A resource of the stack was deleted: The queue does not exist.",
    ]
    assert all(finding.result == "problem" and part in finding.remedy for finding in findings)


def test_commands_of_aws_select_the_region_of_the_stack() -> None:
    rule = Answers(describe_rule={"State": "DISABLED"})
    s3 = Answers(get_bucket_notification_configuration={}, get_bucket_versioning={})
    logs = Answers(describe_log_groups={"logGroups": []})
    things = [resource("AWS::Events::Rule"), resource("AWS::Logs::LogGroup", id="/aws/lambda/a")]
    one = patient({"s3": s3, "events": rule, "logs": logs}, things)
    remedies = [
        remedy for look in (services.events, services.storage, services.log_groups) for _, _, remedy in seen(look, one)
    ]
    commands = [command for remedy in remedies for command in remedy.split("aws ")[1:]]
    assert len(commands) == 6 and all("--region eu-west-1" in command for command in commands)


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
    assert (result, found) == ("problem", "2 messages in the queue webhooks, the oldest is 2 h old")
    assert remedy == "pbr replay-dlq webhooks --stack pbr --region eu-west-1"


@pytest.mark.parametrize(("seconds", "text"), [(50, "50 s"), (299, "4 min"), (3600, "1 h"), (172_801, "2 d")])
def test_an_age_has_its_largest_unit(seconds: float, text: str) -> None:
    assert services.age_text(seconds) == text


@pytest.mark.parametrize(
    ("succeeded", "failed", "old", "result"),
    [(3, 2, 0, "ok"), (0, 0, 2, "ok"), (2, 2, 0, "warning"), (0, 1, 0, "warning")],
)
def test_half_of_the_executions_failing_is_a_warning_with_the_most_common_error(
    succeeded: int, failed: int, old: int, result: str
) -> None:
    found = {
        "SUCCEEDED": [{"startDate": NOW}] * succeeded,
        "FAILED": [{"startDate": NOW, "executionArn": "a"}] * failed,
        "TIMED_OUT": [{"startDate": NOW - timedelta(hours=2)}] * old,
    }
    client = Answers(
        list_executions=lambda statusFilter, **_: {"executions": found[statusFilter]},  # noqa: N803
        describe_execution={"status": "FAILED", "error": "NoSubjectError"},
    )
    [(got, text, _)] = seen(services.executions, patient({"stepfunctions": client}))
    assert got == result
    assert (f"NoSubjectError, {failed} of the latest {failed}" in text) == (result == "warning")


@pytest.mark.parametrize(
    ("configured", "state", "targets", "part"),
    [
        ({"EventBridgeConfiguration": {}}, "ENABLED", [1], None),
        ({}, "ENABLED", [1], "put-bucket-notification-configuration"),
        ({"EventBridgeConfiguration": {}}, "DISABLED", [1], "aws events enable-rule --name thing"),
        ({"EventBridgeConfiguration": {}}, "ENABLED", [], "drift-aware change set"),
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
    of = patient({"cloudwatch": cloudwatch}, [resource("AWS::CloudWatch::Alarm")])
    [(found, text, remedy)] = seen(services.alarms, of)
    assert (found, remedy) == (result, RUNBOOK) and "5 > 1" in text


def test_only_the_alarms_of_the_stack_are_read() -> None:
    names = [f"pbr-{number}" for number in range(101)]
    cloudwatch = Answers(describe_alarms={"MetricAlarms": []})
    [(result, found, _)] = seen(
        services.alarms,
        patient({"cloudwatch": cloudwatch}, [resource("AWS::CloudWatch::Alarm", id=name) for name in names]),
    )
    assert (result, found) == ("warning", "The stack has no alarms")
    assert [request["AlarmNames"] for _, request in cloudwatch.requests] == [names[:100], names[100:]]
    silent = Answers()
    assert [one[0] for one in seen(services.alarms, patient({"cloudwatch": silent}))] == ["warning"]


def test_a_subscription_that_waits_for_its_confirmation_is_a_warning() -> None:
    listed = {"Subscriptions": [{"SubscriptionArn": "PendingConfirmation", "Endpoint": "a@example.com"}]}
    sns = Answers(list_subscriptions_by_topic=listed)
    [(result, found, _)] = seen(services.subscriptions, patient({"sns": sns}, [resource("AWS::SNS::Topic")]))
    assert result == "warning" and "a@example.com" in found


@pytest.mark.parametrize(
    ("arn", "endpoint_url", "result", "part"),
    [
        (None, None, "warning", "AlertEmail="),
        (None, "http://localhost:1", "ok", ""),
        ("arn:aws:sns:eu-west-1:123456789012:alerts:1", None, "ok", ""),
    ],
)
def test_alarms_without_a_receiver_are_a_warning_on_aws(
    arn: str | None, endpoint_url: str | None, result: str, part: str
) -> None:
    listed = {"Subscriptions": [{"SubscriptionArn": arn, "Endpoint": "a@example.com"}] if arn else []}
    topics = [resource("AWS::SNS::Topic", "AlertsTopic"), resource("AWS::SNS::Topic", "FailuresTopic", id="other")]
    sns = Answers(list_subscriptions_by_topic=lambda TopicArn: listed if TopicArn == "thing" else {"Subscriptions": []})  # noqa: N803
    one = patient({"sns": sns}, topics)
    [(found, _, remedy)] = seen(
        services.subscriptions, replace(one, stack=replace(one.stack, endpoint_url=endpoint_url))
    )
    assert found == result and part in remedy and bool(remedy) == (result != "ok")


def test_log_groups_that_are_missing_or_kept_for_ever_are_found() -> None:
    groups = [resource("AWS::Logs::LogGroup", id=f"/aws/lambda/{name}") for name in ("a", "b", "c")]
    listed = {
        "logGroups": [{"logGroupName": "/aws/lambda/a", "retentionInDays": 30}, {"logGroupName": "/aws/lambda/b"}]
    }
    found = seen(services.log_groups, patient({"logs": Answers(describe_log_groups=listed)}, groups))
    assert [(result, text) for result, text, _ in found] == [
        ("warning", "/aws/lambda/c does not exist"),
        ("warning", "The lines of /aws/lambda/b never expire"),
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


def test_a_fault_of_a_check_does_not_end_the_other_checks() -> None:
    def faulty(_patient: Patient) -> Iterable[Finding]:
        yield Finding("queue", "ok", "the first")
        raise KeyError("serviceName")

    findings = run(patient(), [Check("queue", faulty), Check("parameters", deployment.parameters)])
    assert [finding.result for finding in findings] == ["ok", "not checked", "ok"]
    assert "KeyError: 'serviceName'" in findings[1].found and "pbr --version" in findings[1].remedy


def test_a_template_of_this_clone_that_cannot_be_read_does_not_end_the_other_checks(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("Resources: {")
    sick = replace(patient(), templates=lambda: local_templates(tmp_path))
    findings = run(sick, [Check("template", deployment.template), Check("parameters", deployment.parameters)])
    assert [finding.result for finding in findings] == ["not checked", "ok"]


def test_what_an_embedded_cloud_lacks_is_not_checked_with_the_reason() -> None:
    embedded = replace(patient(), stack=replace(patient().stack, endpoint_url="http://localhost:5555"))
    only_aws = [check for check in (*CHECKS, DRIFT) if check.only_aws]
    assert [(one.result, one.found) for one in run(embedded, only_aws)] == [
        ("not checked", check.only_aws) for check in only_aws
    ]


def test_the_documentation_lists_each_permission() -> None:
    text = (ROOT / "docs/how-to/doctor.md").read_text()
    assert [name for check in (*CHECKS, DRIFT) for name in check.permissions if f'"{name}"' not in text] == []
