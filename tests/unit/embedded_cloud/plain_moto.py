"""One reproduction per patch in ``embedded_cloud.moto_patches``, on moto without the patches.

Run as a module, it prints a JSON object that maps each patch to an empty string, or to the reason why the reproduction
fails because moto has changed.
"""

import contextlib
import functools
import inspect
import json
import os
import threading
import time
import traceback
import unittest.mock
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/tests"
PASS = {"Pass": {"Type": "Pass", "End": True}}
os.environ |= {"AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

import boto3  # noqa: E402  reads the environment
import requests  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from moto import backends, mock_aws  # noqa: E402
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse  # noqa: E402
from moto.awslambda.models import LambdaFunction, LambdaVersion  # noqa: E402
from moto.awslambda.responses import LambdaResponse  # noqa: E402
from moto.cloudformation import parsing  # noqa: E402
from moto.cloudformation.models import Stack, cloudformation_backends  # noqa: E402
from moto.cloudwatch.models import CloudWatchBackend, MetricDatum  # noqa: E402
from moto.core import routing, utils  # noqa: E402
from moto.dynamodb.models import DynamoDBBackend  # noqa: E402
from moto.dynamodb.models.table import Table  # noqa: E402
from moto.dynamodb.responses import DynamoHandler  # noqa: E402
from moto.ec2.models.flow_logs import FlowLogs  # noqa: E402
from moto.ec2.models.route_tables import RouteTable  # noqa: E402
from moto.ec2.models.vpcs import VPCEndPoint  # noqa: E402
from moto.ecs import models as ecs_models  # noqa: E402
from moto.events.models import Rule  # noqa: E402
from moto.iam.models import iam_backends  # noqa: E402
from moto.logs.models import LogGroup  # noqa: E402
from moto.moto_server.werkzeug_app import DomainDispatcherApplication  # noqa: E402
from moto.route53.models import HealthCheck  # noqa: E402
from moto.s3 import notifications  # noqa: E402
from moto.s3.models import FakeKey  # noqa: E402
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig  # noqa: E402
from moto.sagemaker.responses import SageMakerResponse  # noqa: E402
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse  # noqa: E402
from moto.stepfunctions import models as stepfunctions_models  # noqa: E402
from moto.stepfunctions.models import StateMachine  # noqa: E402
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName  # noqa: E402
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.map_run_record import (  # noqa: E402
    MapRunRecord,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import mock_eval_utils  # noqa: E402
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (  # noqa: E402
    StateTaskServiceAwsSdk,
)
from moto.stepfunctions.parser.asl.eval.callback.callback import (  # noqa: E402
    CallbackEndpoint,
    CallbackOutcomeSuccess,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment  # noqa: E402
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager  # noqa: E402
from moto.stepfunctions.parser.asl.eval.program_state import ProgramError, ProgramStopped  # noqa: E402
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser  # noqa: E402
from moto.stepfunctions.parser.asl.utils import boto_client, json_path  # noqa: E402
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution  # noqa: E402
from moto.stepfunctions.parser.mocking import mock_config  # noqa: E402
from moto.stepfunctions.responses import StepFunctionResponse  # noqa: E402

Case = Callable[[], None]
CASES: dict[str, Case] = {}


def reproduces(*patches: str) -> Callable[[Case], Case]:
    """Register a reproduction for patches, each written as ``module.function``."""

    def register(case: Case) -> Case:
        CASES.update(dict.fromkeys(patches, case))
        return case

    return register


@contextmanager
def raises(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except errors:
        return
    raise AssertionError("no error was raised")


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def create(resources: dict[str, Any], name: str = "stack", outputs: dict[str, Any] | None = None) -> Any:
    """Create a CloudFormation stack and return moto's object."""
    body = json.dumps({"Resources": resources, "Outputs": outputs or {}})
    client("cloudformation").create_stack(StackName=name, TemplateBody=body)
    return cloudformation_backends["123456789012"][REGION].get_stack(name)


def create_machine(states: dict[str, Any], **top: Any) -> str:
    definition = json.dumps({"StartAt": next(iter(states)), "States": states, **top})
    api = client("stepfunctions")
    return str(api.create_state_machine(name=uuid.uuid4().hex, definition=definition, roleArn=ROLE)["stateMachineArn"])


def start(states: dict[str, Any], given: Any = None, **top: Any) -> str:
    api = client("stepfunctions")
    machine = create_machine(states, **top)
    return str(
        api.start_execution(stateMachineArn=machine, name=uuid.uuid4().hex, input=json.dumps(given or {}))[
            "executionArn"
        ]
    )


def end(execution: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while (described := client("stepfunctions").describe_execution(executionArn=execution))["status"] == "RUNNING":
        assert time.monotonic() < deadline, "the execution is still running"
        time.sleep(0.02)
    return dict(described)


def run(states: dict[str, Any], given: Any = None, **top: Any) -> dict[str, Any]:
    return end(start(states, given, **top))


def task(resource: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True, **more}


def start_with_token(**more: Any) -> tuple[str, str, str]:
    """Start an execution that waits for a task token; return execution ARN, token and queue URL."""
    url = client("sqs").create_queue(QueueName="tokens")["QueueUrl"]
    parameters = {"QueueUrl": url, "MessageBody": {"token.$": "$$.Task.Token"}}
    execution = start({"Wait": task("sqs:sendMessage.waitForTaskToken", parameters, **more)})
    return execution, receive(url), url


def receive(url: str) -> str:
    [message] = client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return str(json.loads(message["Body"])["token"])


# ---- Application Auto Scaling, Lambda, DynamoDB, ECS, EventBridge, S3, SageMaker, server


@reproduces("applicationautoscaling.describe_scaling_activities")
def _() -> None:
    assert not hasattr(ApplicationAutoScalingResponse, "describe_scaling_activities")


@reproduces("awslambda.run_the_function")
def _() -> None:
    assert "docker" in inspect.getsource(LambdaFunction._invoke_lambda)


@reproduces("awslambda.keep_the_image")
def _() -> None:
    config: dict[str, Any] = {"PackageType": "Image", "Code": {"ImageUri": "a"}, "ImageConfig": {"Command": ["a.b"]}}
    config["Role"] = {"Fn::GetAtt": ["R", "Arn"]}
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": []}}}
    made = create(
        {
            "R": role,
            "F": {"Type": "AWS::Lambda::Function", "Properties": {**config, "LoggingConfig": {"LogGroup": "g"}}},
        }
    )
    function = made.resource_map["F"]
    assert function.logs_group_name != "g"


@reproduces("awslambda.invoke_as_requested")
def _() -> None:
    source = inspect.getsource(LambdaFunction.invoke)
    assert "_invoke_lambda" in source and "DryRun" not in source and "Thread" not in source


@reproduces("dynamodb.one_request_at_a_time")
def _() -> None:
    assert "lock" not in inspect.getsource(DynamoHandler.call_action).lower()
    source = inspect.getsource(DynamoDBBackend.update_item)
    assert "table.put_item" in source and "lock" not in source.lower()


@reproduces("ecs.start_with_one")
def _() -> None:
    container = {"Name": "a", "Image": "a", "Memory": 1}
    made = create(
        {
            "C": {"Type": "AWS::ECS::Cluster"},
            "T": {"Type": "AWS::ECS::TaskDefinition", "Properties": {"ContainerDefinitions": [container]}},
            "S": {"Type": "AWS::ECS::Service", "Properties": {"Cluster": {"Ref": "C"}, "TaskDefinition": {"Ref": "T"}}},
        }
    )
    assert made.resource_map["S"].desired_count == 0


@reproduces("ecs.start_tasks", "ecs.start_or_stop_tasks")
def _() -> None:
    source = inspect.getsource(ecs_models)
    assert "subprocess" not in source


@reproduces("ecs.list_tasks_of_services", "ecs.describe_tasks_of_services", "ecs.stop_a_task")
def _() -> None:
    container = {"name": "a", "image": "a", "memory": 1}
    ecs = client("ecs")
    ecs.create_cluster(clusterName="tasks")
    ecs.register_task_definition(family="tasks", containerDefinitions=[container])
    ecs.create_service(cluster="tasks", serviceName="s", taskDefinition="tasks", desiredCount=1)
    assert ecs.list_tasks(cluster="tasks")["taskArns"] == []


@reproduces("events.start_machines_and_functions")
def _() -> None:
    rule = SimpleNamespace(
        event_pattern=SimpleNamespace(matches_event=lambda _event: True),
        targets=[{"Arn": f"arn:aws:states:{REGION}:123456789012:stateMachine:m", "Id": "1"}],
    )
    with raises(NotImplementedError):
        Rule.send_to_targets(rule, {"detail": {}}, transform_input=False)


@reproduces("events.match_no_event_without_a_pattern")
def _() -> None:
    events, sqs = client("events"), client("sqs")
    queue = sqs.create_queue(QueueName="hourly")["QueueUrl"]
    events.put_rule(Name="hourly", ScheduleExpression="rate(1 hour)")
    events.put_targets(Rule="hourly", Targets=[{"Id": "1", "Arn": f"arn:aws:sqs:{REGION}:123456789012:hourly"}])
    events.put_events(Entries=[{"Source": "a", "DetailType": "a", "Detail": "{}"}])
    assert len(sqs.receive_message(QueueUrl=queue)["Messages"]) == 1


@reproduces("events.match_the_pattern")
def _() -> None:
    event = dict.fromkeys(("id", "account", "source", "region", "detail-type"), "a")
    text = json.dumps({**event, "time": "2026-01-01T00:00:00Z", "resources": [], "detail": {}})
    assert "Result" not in client("events").test_event_pattern(EventPattern='{"source": ["a"]}', Event=text)


@reproduces("s3.send_the_whole_event")
def _() -> None:
    source = inspect.getsource(notifications._send_event_bridge_message)
    assert '"sequencer": "617f08299329d189"' in source and '"eTag"' in source


@reproduces("s3.keep_contents_on_disk")
def _() -> None:
    assert not FakeKey("key", b"1", "123456789012", REGION)._value_buffer._rolled


@reproduces("s3.share_the_content_with_copies")
def _() -> None:
    assert FakeKey("key", b"1", "123456789012", REGION).__getstate__()["value"] == b"1"


@reproduces("s3.take_the_content_of_the_original")
def _() -> None:
    state = FakeKey("key", b"1", "123456789012", REGION).__getstate__()
    del state["value"]
    with raises(KeyError):
        FakeKey("other", b"2", "123456789012", REGION).__setstate__(state)


@reproduces("s3.return_that_events_are_on")
def _() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="sending", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_notification_configuration(
        Bucket="sending", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket="sending")


@reproduces("s3.send_events_after_the_response")
def _() -> None:
    s3, seen = client("s3"), []
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_notification_configuration(
        Bucket="bucket", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    original = notifications._send_event_bridge_message
    notifications._send_event_bridge_message = lambda _account, _bucket, _name, key: seen.append(dict(key.metadata))
    try:
        s3.put_object(Bucket="bucket", Key="k", Body=b"1", Metadata={"a": "1"})
    finally:
        notifications._send_event_bridge_message = original
    assert "x-amz-meta-a" not in seen[0]


@reproduces("s3.start_after_the_key_marker")
def _() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="listed", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket="listed", VersioningConfiguration={"Status": "Enabled"})
    for key in "acd":
        s3.put_object(Bucket="listed", Key=key)
    assert [one["Key"] for one in s3.list_object_versions(Bucket="listed", KeyMarker="b")["Versions"]] == ["d"]


@reproduces("s3.encode_listed_keys")
def _() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="encoded", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="encoded", Key="\x01")
    with raises(ClientError):  # the answer is not XML
        s3.list_object_versions(Bucket="encoded")


@reproduces("s3.check_the_form")
def _() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="forms", CreateBucketConfiguration={"LocationConstraint": REGION})
    form = s3.generate_presigned_post("forms", "k", Conditions=[["content-length-range", 1, 2]])
    answer = requests.post(form["url"], data=form["fields"], files={"file": b"too long"}, timeout=60)
    assert answer.ok


@reproduces("s3.keep_the_checksum")
def _() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="checked", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="checked", Key="k", Body=b"1", ChecksumSHA256="a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s=")
    assert "ChecksumSHA256" not in s3.head_object(Bucket="checked", Key="k", ChecksumMode="ENABLED")


@reproduces("sagemaker.name_as_the_template_says")
def _() -> None:
    assert FakeEndpoint.cloudformation_name_type() != "EndpointName"


@reproduces("sagemaker.replace_a_renamed_endpoint")
def _() -> None:
    source = inspect.getsource(FakeEndpoint.update_from_cloudformation_json)
    assert "original_resource.endpoint_name" in source and "new_resource_name," not in source.partition("->")[2]


@reproduces("sagemaker.reject_the_arn_of_a_missing_resource")
def _() -> None:
    with raises(AttributeError):
        client("sagemaker").list_tags(ResourceArn=f"arn:aws:sagemaker:{REGION}:123456789012:model/missing")


@reproduces("sagemaker.take_every_instance_type")
def _() -> None:
    with raises(Exception):
        FakeEndpointConfig.validate_instance_type(SimpleNamespace(), "ml.g6.xlarge")


@reproduces("sagemaker.start_the_container", "sagemaker.stop_the_container", "sagemaker.invoke_the_container")
def _() -> None:
    answer = client("sagemaker-runtime").invoke_endpoint(EndpointName="missing", Body=b"{}")
    assert answer["Body"].read() == b"body"


@reproduces("sagemaker.queue_for_the_container")
def _() -> None:
    answer = client("sagemaker-runtime").invoke_endpoint_async(EndpointName="missing", InputLocation="s3://a/b")
    assert answer["OutputLocation"]


@reproduces("sagemaker.use_raw_body")
def _() -> None:
    assert not getattr(SageMakerRuntimeResponse, "use_raw_body", False)


@reproduces("transform.run_the_transform_job")
def _() -> None:
    location = {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://none/"}}}
    sagemaker = client("sagemaker")
    sagemaker.create_transform_job(
        TransformJobName="job",
        ModelName="missing",
        TransformInput=location,
        TransformOutput={"S3OutputPath": "s3://none/"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    assert sagemaker.describe_transform_job(TransformJobName="job")["TransformJobStatus"] == "Completed"


@reproduces("transform.stop_transform_job")
def _() -> None:
    assert not hasattr(SageMakerResponse, "stop_transform_job")


@reproduces("transform.know_sagemaker")
def _() -> None:
    assert run({"Transform": task("sagemaker:createTransformJob.sync", {})})["status"] == "FAILED"


@reproduces("server.list_of_moto_modules", "server.get_backend_for_host")
def _() -> None:
    assert not hasattr(backends.list_of_moto_modules, "cache_info")
    assert not hasattr(DomainDispatcherApplication.get_backend_for_host, "cache_info")


def _times_in_two_threads(owner: Any, name: str, work: Callable[[], Any]) -> int:
    """Do the work in two threads at once, and return how often it called ``owner.name``."""
    both, calls, original = threading.Barrier(2, timeout=2), [], getattr(owner, name)

    def slow(*args: Any) -> Any:
        calls.append(args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait()
        return original(*args)

    with unittest.mock.patch.object(owner, name, slow), ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for _ in range(2)]:
            done.result()
    return len(calls)


@reproduces("server.forget_deleted_objects")
def _() -> None:
    before = len(MetricDatum.instances_tracked)
    put_metric({"Value": 1})
    assert len(MetricDatum.instances_tracked) == before + 1


@reproduces("server.reject_missing_calls")
def _() -> None:
    with raises(NotImplementedError):
        client("cloudwatch").describe_alarm_history()


@reproduces("server.load_a_model_once")
def _() -> None:
    assert _times_in_two_threads(utils, "_load_service_model", lambda: routing.get_service_router("xray")) == 2


@reproduces("server.compile_routes_once")
def _() -> None:
    router = routing.get_service_router("lambda")
    assert _times_in_two_threads(routing, "get_router_class", lambda: router._get_router("rest-json")) == 2


# ---- CloudWatch


def put_metric(*data: dict[str, Any]) -> None:
    """Put data of the metric ``m`` in the namespace ``n``."""
    client("cloudwatch").put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", **datum} for datum in data])


def dimensions(**named: str) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in named.items()]


def metric_values(namespace: str = "n", stat: str = "Sum", **named: str) -> list[float]:
    metric = {"Namespace": namespace, "MetricName": "m", "Dimensions": dimensions(**named)}
    query = {"Id": "q", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": stat}}
    start = time.time() - 60
    response = client("cloudwatch").get_metric_data(MetricDataQueries=[query], StartTime=start, EndTime=start + 120)
    return list(response["MetricDataResults"][0]["Values"])


@reproduces("cloudwatch.extract_metrics")
def _() -> None:
    directive = {"Namespace": "n", "Dimensions": [[]], "Metrics": [{"Name": "m"}]}
    metadata = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    write_log("s", json.dumps({"_aws": metadata, "m": 1}))
    assert client("cloudwatch").list_metrics()["Metrics"] == []


@reproduces("cloudwatch.keep_recent_data", "cloudwatch.copy_all_metrics")
def _() -> None:
    assert isinstance(CloudWatchBackend(REGION, "123456789012").metric_data, list)


@reproduces("cloudwatch.list_each_metric_once")
def _() -> None:
    put_metric({"Value": 1}, {"Value": 2})
    assert len(client("cloudwatch").list_metrics()["Metrics"]) == 2


@reproduces("cloudwatch.match_all_dimensions")
def _() -> None:
    put_metric({"Value": 1, "Dimensions": dimensions(a="1")}, {"Value": 2, "Dimensions": dimensions(b="1")})
    assert metric_values() == [3]
    assert metric_values("another", a="1") == [1]


@reproduces("cloudwatch.compute_percentiles")
def _() -> None:
    put_metric({"Value": 1}, {"Value": 2})
    start = time.time() - 60
    [point] = client("cloudwatch").get_metric_statistics(
        Namespace="n", MetricName="m", StartTime=start, EndTime=start + 120, Period=60, ExtendedStatistics=["p50"]
    )["Datapoints"]
    assert "ExtendedStatistics" not in point


def put_alarm(name: str = "a", **more: Any) -> None:
    api = client("cloudwatch")
    metric = {} if "Metrics" in more else {"Namespace": "n", "MetricName": "m", "Statistic": "Sum", "Period": 60}
    asked = {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "LessThanThreshold", **metric, **more}
    api.put_metric_alarm(AlarmName=name, **asked)


@reproduces("alarms.start_without_data")
def _() -> None:
    put_alarm(Metrics=[{"Id": "a", "Expression": "m1 +"}])
    assert client("cloudwatch").describe_alarms()["MetricAlarms"][0]["StateValue"] == "OK"


@reproduces("alarms.put_composite_alarm")
def _() -> None:
    with raises(NotImplementedError):
        client("cloudwatch").put_composite_alarm(AlarmName="a", AlarmRule="TRUE")


@reproduces("alarms.list_requested_types")
def _() -> None:
    put_alarm()
    listed = client("cloudwatch").describe_alarms(AlarmTypes=["CompositeAlarm"], AlarmNames=["a"], StateValue="ALARM")
    assert len(listed["MetricAlarms"]) == 1


@reproduces("alarms.notify_topics")
def _() -> None:
    sns, sqs = client("sns"), client("sqs")
    topic, url = sns.create_topic(Name="t")["TopicArn"], sqs.create_queue(QueueName="q")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:123456789012:q")
    put_alarm(AlarmActions=[topic])
    client("cloudwatch").set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="r")
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


@reproduces("service_metrics.count_sent", "service_metrics.count_received", "service_metrics.count_deleted")
def _() -> None:
    sqs = client("sqs")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="m")
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert client("cloudwatch").list_metrics(Namespace="AWS/SQS")["Metrics"] == []


# ---- CloudWatch Logs


def write_log(stream: str, *messages: str, age_ms: int = 0) -> None:
    """Write events to a stream of the log group ``g``."""
    logs, timestamp = client("logs"), int(time.time() * 1000) - age_ms
    with contextlib.suppress(ClientError):
        logs.create_log_group(logGroupName="g")
    logs.create_log_stream(logGroupName="g", logStreamName=stream)
    events = [{"timestamp": timestamp, "message": message} for message in messages]
    logs.put_log_events(logGroupName="g", logStreamName=stream, logEvents=events)


@reproduces("logs.EventMessageFilter")
def _() -> None:
    write_log("s", '{"level": "INFO"}')
    found = client("logs").filter_log_events(logGroupName="g", filterPattern='{ $.level = "ERROR" }')
    assert len(found["events"]) == 1


def put_metric_filter(pattern: str) -> None:
    metric = {"metricName": "m", "metricNamespace": "n", "metricValue": "1"}
    client("logs").put_metric_filter(
        logGroupName="g", filterName="f", filterPattern=pattern, metricTransformations=[metric]
    )


@reproduces("logs.replace_the_filter")
def _() -> None:
    put_metric_filter("{ invalid")
    put_metric_filter("ERROR")
    assert len(client("logs").describe_metric_filters(logGroupName="g")["metricFilters"]) == 2


@reproduces("logs.publish_filtered_events")
def _() -> None:
    put_metric_filter("ERROR")
    write_log("s", "ERROR")
    assert client("cloudwatch").list_metrics()["Metrics"] == []


@reproduces("logs.search_the_streams")
def _() -> None:
    write_log("later", "2")
    write_log("earlier", "1", age_ms=1000)
    found = client("logs").filter_log_events(logGroupName="g", logStreamNamePrefix="earlier")
    assert [event["message"] for event in found["events"]] == ["2", "1"]


@reproduces("logs.run_simple_queries")
def _() -> None:
    write_log("s", "a")
    now, query = int(time.time()), 'filter @message like "b" | fields @timestamp'
    started = client("logs").start_query(logGroupName="g", startTime=now - 9, endTime=now + 9, queryString=query)
    [row] = client("logs").get_query_results(queryId=started["queryId"])["results"]
    assert row[-1]["value"].isdecimal()


# ---- CloudFormation


def _lacks(resource_type: str) -> Case:
    def case() -> None:
        assert resource_type not in parsing.get_model_map()

    return case


CASES["cloudformation.support_every_type"] = _lacks("AWS::WAFv2::WebACL")
for _type in (
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::AppConfig::HostedConfigurationVersion",
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::MetricFilter",
    "AWS::SecretsManager::Secret",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::SNS::Subscription",
    "AWS::SQS::QueuePolicy",
    "AWS::StepFunctions::StateMachineAlias",
    "AWS::StepFunctions::StateMachineVersion",
):
    CASES[f"cloudformation.ADDED_TYPES {_type}"] = _lacks(_type)


@reproduces("cloudformation.record_ignored_properties")
def _() -> None:
    made = create(
        {"A": {"Type": "AWS::WAFv2::WebACL", "Properties": {"Scope": "REGIONAL"}}, "T": {"Type": "AWS::SNS::Topic"}}
    )
    assert made.status == "CREATE_COMPLETE" and made.resource_map["A"] is None


@reproduces("cloudformation.compare_numbers_as_texts")
def _() -> None:
    parameter = {"P": 0}
    assert not parsing.parse_condition({"Fn::Equals": [{"Ref": "P"}, "0"]}, parameter, {})


@reproduces("cloudformation.existing_resources")
def _() -> None:
    resources = {"A": {"Type": "AWS::SNS::Topic", "Condition": "Never"}, "B": {"Type": "AWS::SNS::Topic"}}
    body = json.dumps({"Conditions": {"Never": {"Fn::Equals": ["a", "b"]}}, "Resources": resources})
    client("cloudformation").create_stack(StackName="conditional", TemplateBody=body)
    with raises(AttributeError):
        client("cloudformation").describe_stack_resources(StackName="conditional", LogicalResourceId="B")


@reproduces("cloudformation.configure_bucket")
def _() -> None:
    properties = {"BucketName": "bucket", "VersioningConfiguration": {"Status": "Enabled"}}
    create({"B": {"Type": "AWS::S3::Bucket", "Properties": properties}})
    assert "Status" not in client("s3").get_bucket_versioning(Bucket="bucket")


@reproduces("cloudformation.configure_table")
def _() -> None:
    properties = {
        "TableName": "t",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "TimeToLiveSpecification": {"AttributeName": "e", "Enabled": True},
    }
    create({"T": {"Type": "AWS::DynamoDB::Table", "Properties": properties}})
    assert (
        client("dynamodb").describe_time_to_live(TableName="t")["TimeToLiveDescription"]["TimeToLiveStatus"]
        == "DISABLED"
    )


# ---- Templates of SAM, and change sets

SERVERLESS = {
    "Transform": "AWS::Serverless-2016-10-31",
    "Parameters": {"Name": {"Type": "String", "Default": "a"}},
    "Resources": {
        "T": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": {"Ref": "Name"}}},
        "Table": {"Type": "AWS::Serverless::SimpleTable"},
    },
}


def change_set(template: dict[str, Any], name: str = "one", stack: str = "stack", **given: Any) -> dict[str, Any]:
    """Create a change set, and return its description."""
    api = client("cloudformation")
    names = {"StackName": stack, "ChangeSetName": name}
    api.create_change_set(**names, TemplateBody=json.dumps(template), **given)
    return dict(api.describe_change_set(**names))


@reproduces("serverless.read_short_forms")
def _() -> None:
    assert Stack.parse_template("Value: !Condition Some") == {"Value": {"Fn::Condition": "Some"}}


@reproduces("serverless.know_the_parameters_first")
def _() -> None:
    source = inspect.getsource(Stack.__init__)
    assert source.index("self._parse_template()") < source.index("self.parameters = parameters")


@reproduces("serverless.transform_template", "serverless.get_processed_template")
def _() -> None:
    body = json.dumps(SERVERLESS)
    client("cloudformation").create_stack(StackName="stack", TemplateBody=body)
    assert client("dynamodb").list_tables()["TableNames"] == []
    found = client("cloudformation").get_template(StackName="stack", TemplateStage="Processed")["TemplateBody"]
    assert found["Resources"]["Table"]["Type"] == "AWS::Serverless::SimpleTable"


@reproduces("change_sets.require_capabilities")
def _() -> None:
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}}
    assert create({"R": role}).status == "CREATE_COMPLETE"


@reproduces("change_sets.create_change_set")
def _() -> None:
    api = client("cloudformation")
    change_set(SERVERLESS, ChangeSetType="CREATE")
    api.execute_change_set(StackName="stack", ChangeSetName="one")
    given = {"ParameterKey": "Name", "ParameterValue": "a"}
    with raises(ClientError):  # instead of a failed change set
        change_set(SERVERLESS, "two", ChangeSetType="UPDATE", Parameters=[given])


@reproduces("change_sets.plan_changes", "change_sets.describe_changes", "change_sets.transform_template_of_change_set")
def _() -> None:
    api = client("cloudformation")
    assert {
        one["ResourceChange"]["ResourceType"] for one in change_set(SERVERLESS, ChangeSetType="CREATE")["Changes"]
    } == {
        "AWS::SNS::Topic",
        "AWS::Serverless::SimpleTable",
    }
    api.execute_change_set(StackName="stack", ChangeSetName="one")
    given = {"ParameterKey": "Name", "ParameterValue": "b"}
    assert change_set(SERVERLESS, "two", ChangeSetType="UPDATE", Parameters=[given])["Changes"] == []


@reproduces("change_sets.describe_change_set", "change_sets.delete_change_set", "change_sets.list_change_sets")
def _() -> None:
    api = client("cloudformation")
    for stack in ("first", "second"):
        change_set(SERVERLESS, stack=stack, ChangeSetType="CREATE")
    assert api.describe_change_set(StackName="first", ChangeSetName="one")["StackName"] == "second"
    assert len(api.list_change_sets(StackName="first")["Summaries"]) == 2
    api.delete_change_set(StackName="second", ChangeSetName="one")
    [left] = api.list_change_sets(StackName="first")["Summaries"]
    assert left["StackName"] == "second"


@reproduces("change_sets.execute_change_set")
def _() -> None:
    change_set(SERVERLESS, ChangeSetType="CREATE")
    for _again in range(2):
        client("cloudformation").execute_change_set(StackName="stack", ChangeSetName="one")


@reproduces("stepfunctions.complete_the_definition_in_updates")
def _() -> None:
    source = inspect.getsource(StateMachine.update_from_cloudformation_json)
    assert "DefinitionSubstitutions" not in source and "DefinitionS3Location" not in source


# ---- Resources that a deployment needs


@reproduces("ec2.associate_the_route_table", "ec2.association_id", "ec2.disassociate")
def _() -> None:
    vpc = {"Ref": "V"}
    made = create(
        {
            "V": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
            "S": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": vpc, "CidrBlock": "10.0.0.0/24"}},
            "R": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": vpc}},
            "A": {
                "Type": "AWS::EC2::SubnetRouteTableAssociation",
                "Properties": {"RouteTableId": {"Ref": "R"}, "SubnetId": {"Ref": "S"}},
            },
        }
    )
    tables = client("ec2").describe_route_tables(RouteTableIds=[made.resource_map["R"].id])["RouteTables"]
    assert tables[0]["Associations"] == []
    assert made.resource_map["A"].physical_resource_id == made.resource_map["R"].id
    assert not hasattr(made.resource_map["A"], "delete")


@reproduces("ec2.delete_with")
def _() -> None:
    for model in (FlowLogs, RouteTable, VPCEndPoint):
        assert not hasattr(model, "delete")
        assert hasattr(model.delete_from_cloudformation_json, "__isabstractmethod__")


@reproduces("kms.store_the_policy_as_text")
def _() -> None:
    made = create({"K": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Statement": []}}}})
    assert made.resource_map["K"].policy == {"Statement": []}


@reproduces("route53.begin_with_z")
def _() -> None:
    zones = [
        client("route53").create_hosted_zone(Name="example.com", CallerReference=str(count))["HostedZone"]["Id"]
        for count in range(3)
    ]
    assert not all(zone.startswith("/hostedzone/Z") for zone in zones)


@reproduces("route53.delete_health_check")
def _() -> None:
    assert not hasattr(HealthCheck, "delete")
    assert hasattr(HealthCheck.delete_from_cloudformation_json, "__isabstractmethod__")


CHILD = {"Resources": {"T": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"Topic": {"Value": {"Ref": "T"}}}}


def create_nested(outputs: dict[str, Any] | None = None) -> Any:
    s3 = client("s3")
    s3.create_bucket(Bucket="templates", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="templates", Key="child", Body=json.dumps(CHILD))
    properties = {"TemplateURL": "https://s3.amazonaws.com/templates/child"}
    return create({"N": {"Type": "AWS::CloudFormation::Stack", "Properties": properties}}, outputs=outputs)


@reproduces("nested_stacks.create_nested_stack")
def _() -> None:
    with raises(Exception):
        create({"N": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": __file__}}})


@reproduces("nested_stacks.update_nested_stack")
def _() -> None:
    source = inspect.getsource(Stack.update_from_cloudformation_json)
    assert "delete_from_cloudformation_json" in source and "create_from_cloudformation_json" in source


@reproduces("nested_stacks.stack_arn")
def _() -> None:
    nested = create_nested().resource_map["N"]
    assert nested.physical_resource_id == nested.name


@reproduces("nested_stacks.stack_attribute", "nested_stacks.root_stack")
def _() -> None:
    assert not hasattr(Stack, "get_cfn_attribute")
    assert not hasattr(Stack, "root_id")


@reproduces("stack_updates.roll_back_a_failed_creation")
def _() -> None:
    topic = {"Type": "AWS::SNS::Topic"}
    with raises(Exception):
        create({"T": topic, "N": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": __file__}}})
    [stack] = cloudformation_backends["123456789012"][REGION].stacks.values()
    assert stack.status == "CREATE_IN_PROGRESS"
    assert client("sns").list_topics()["Topics"]


def update(resources: dict[str, Any], name: str = "stack") -> None:
    client("cloudformation").update_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))


def named_topic(name: str) -> dict[str, Any]:
    return {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}


@reproduces("stack_updates.take_over_the_former_resource")
def _() -> None:
    def resources(name: str) -> dict[str, Any]:
        reader = {"Type": "AWS::SSM::Parameter", "Properties": {"Name": "p", "Type": "String", "Value": {"Ref": "T"}}}
        return {"Reader": reader, "T": named_topic(name)}

    create(resources("a"))
    with contextlib.suppress(Exception):
        update(resources("b"))
    assert client("ssm").get_parameter(Name="p")["Parameter"]["Value"].endswith(":a")


@reproduces("stack_updates.update")
def _() -> None:
    create({"T": named_topic("a")})
    with raises(Exception):
        update({"T": named_topic("a"), "U": named_topic("b"), "N": {"Type": "AWS::CloudFormation::Stack"}})
    assert len(client("sns").list_topics()["Topics"]) == 2


@reproduces("stack_updates.delete_in_reverse")
def _() -> None:
    create({"T": {**named_topic("kept"), "DeletionPolicy": "RetainExceptOnCreate"}})
    client("cloudformation").delete_stack(StackName="stack")
    assert client("sns").list_topics()["Topics"] == []


@reproduces("cloudformation.keep_a_full_bucket")
def _() -> None:
    create({"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full"}}})
    client("s3").put_object(Bucket="full", Key="a", Body=b"")
    client("cloudformation").delete_stack(StackName="stack")
    assert cloudformation_backends["123456789012"][REGION].deleted_stacks


@reproduces("cloudformation.configure_bucket_anew")
def _() -> None:
    def bucket(**properties: Any) -> dict[str, Any]:
        return {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "bucket", **properties}}}

    create(bucket())
    update(bucket(VersioningConfiguration={"Status": "Enabled"}))
    assert "Status" not in client("s3").get_bucket_versioning(Bucket="bucket")


@reproduces("cloudformation.configure_table_anew")
def _() -> None:
    assert Table.update_from_cloudformation_json.__isabstractmethod__


@reproduces("cloudformation.set_retention")
def _() -> None:
    assert LogGroup.update_from_cloudformation_json.__isabstractmethod__


@reproduces("cloudformation.set_all_attributes")
def _() -> None:
    def queue(seconds: int) -> dict[str, Any]:
        return {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q", "MessageRetentionPeriod": seconds}}}

    create(queue(60))
    update(queue(120))
    url = client("sqs").get_queue_url(QueueName="q")["QueueUrl"]
    attributes = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["MessageRetentionPeriod"] == "60"


@reproduces("awslambda.keep_the_image_in_updates")
def _() -> None:
    source = inspect.getsource(LambdaFunction.update_from_cloudformation_json)
    assert "ImageConfig" not in source + inspect.getsource(LambdaFunction.update_configuration)


@reproduces("awslambda.invoke_the_qualified_version")
def _() -> None:
    assert '_get_param("qualifier")' in inspect.getsource(LambdaResponse.invoke)


@reproduces("nested_stacks.parameters_as_text", "nested_stacks.split_list_defaults")
def _() -> None:
    listed = {"Type": "CommaDelimitedList"}
    body = {"Parameters": {"Given": listed, "Default": {**listed, "Default": "a,b"}}, **CHILD}
    parameters = [{"ParameterKey": "Given", "ParameterValue": "a,b"}]
    client("cloudformation").create_stack(StackName="lists", TemplateBody=json.dumps(body), Parameters=parameters)
    [stack] = cloudformation_backends["123456789012"][REGION].stacks.values()
    assert stack.resource_map.resolved_parameters == {"Given": ["a", "b"], "Default": "a,b"}
    assert {item["ParameterKey"]: item["ParameterValue"] for item in stack.parameter_list}["Given"] == ["a", "b"]


@reproduces("cloudformation.drop_missing_items")
def _() -> None:
    conditions = SimpleNamespace(lazy_condition_map={"C": False})
    assert parsing.clean_json([{"Fn::If": ["C", 1, None]}, 2], conditions) == [None, 2]


@reproduces("nested_stacks.join_attribute_names")
def _() -> None:
    asked: list[str] = []
    nested = SimpleNamespace(get_cfn_attribute=lambda name: asked.append(name) or "value")
    parsing.clean_json({"Fn::Sub": "${N.Outputs.Topic}"}, {"N": nested})
    assert asked == ["Outputs"]


@reproduces("nested_stacks.shorten_resource_name")
def _() -> None:
    assert len(parsing.generate_resource_name("AWS::IAM::Role", "s" * 60, "LogicalId")) > 64


# ---- Step Functions: API and state machines


def create_machine_by_template(**properties: Any) -> Any:
    definition = json.dumps({"StartAt": "Pass", "States": PASS, "Comment": "${Name}"})
    machine = {"DefinitionString": definition, "RoleArn": ROLE, "DefinitionSubstitutions": {"Name": "filled"}}
    return create({"M": {"Type": "AWS::StepFunctions::StateMachine", "Properties": {**machine, **properties}}})


@reproduces("stepfunctions.stepfunctions_backends")
def _() -> None:
    create_machine_by_template()
    assert client("stepfunctions").list_state_machines()["stateMachines"] == []


@reproduces("stepfunctions.complete_the_definition")
def _() -> None:
    create_machine_by_template()
    [machine] = stepfunctions_models.stepfunctions_backends["123456789012"][REGION].state_machines
    assert "${Name}" in machine.definition


@reproduces("stepfunctions.note_when_a_state_was_entered", "stepfunctions.start_time_as_text")
def _() -> None:
    parameters = {"entered.$": "$$.State.EnteredTime"}
    output = json.loads(run({"Pass": {"Type": "Pass", "Parameters": parameters, "End": True}})["output"])
    assert not output["entered"].endswith("Z")
    details = Execution.get_start_execution_details
    assert "isoformat" not in inspect.getsource(details)


@reproduces("stepfunctions.start_without_name")
def _() -> None:
    machine, api = create_machine(PASS), client("stepfunctions")
    api.start_execution(stateMachineArn=machine, input='{"a": 1}')
    with raises(ClientError):
        api.start_execution(stateMachineArn=machine, input='{"a": 2}')


@reproduces("stepfunctions.run_the_test_case")
def _() -> None:
    with raises(ClientError):
        client("stepfunctions").start_execution(stateMachineArn=f"{create_machine(PASS)}#Case", name="a")


@reproduces("stepfunctions.page_the_history")
def _() -> None:
    execution = start(PASS)
    end(execution)
    page = client("stepfunctions").get_execution_history(executionArn=execution, maxResults=2, reverseOrder=True)
    assert len(page["events"]) == 4 and page["events"][0]["type"] == "ExecutionStarted"


@reproduces("stepfunctions.describe_stop_date_and_redrives", "stepfunctions.list_stop_dates")
def _() -> None:
    execution = start({"Wait": {"Type": "Wait", "Seconds": 5, "End": True}}, TimeoutSeconds=1)
    described = end(execution)
    assert described["status"] == "TIMED_OUT" and "stopDate" not in described and "redriveCount" not in described
    [listed] = client("stepfunctions").list_executions(stateMachineArn=described["stateMachineArn"])["executions"]
    assert "stopDate" not in listed


@reproduces("stepfunctions.stop_with_error_and_cause")
def _() -> None:
    execution, _token, _url = start_with_token()
    client("stepfunctions").stop_execution(executionArn=execution, error="Mine", cause="because")
    described = client("stepfunctions").describe_execution(executionArn=execution)
    assert described["status"] == "RUNNING" and "error" not in described


@reproduces("stepfunctions.run_from_the_beginning")
def _() -> None:
    assert "exec_status = None" in inspect.getsource(Execution.__init__)


@reproduces("stepfunctions.send_status_event")
def _() -> None:
    assert "event" not in inspect.getsource(BaseExecutionWorkerCommunication.terminated)


class _Interpreter(SimpleNamespace):
    """A minimal :class:`Environment` that records history events."""

    def __init__(self, state: Any = None) -> None:
        from moto.stepfunctions.parser.asl.eval.program_state import ProgramRunning

        self.events: list[Any] = []
        super().__init__(
            _state_mutex=_Mutex(),
            _program_state=state or ProgramRunning(),
            _frames=[],
            program_state_event=SimpleNamespace(set=lambda: None, clear=lambda: None),
            event_history_context=SimpleNamespace(integrate=lambda _context: None),
            event_manager=SimpleNamespace(add_event=lambda *args, **_more: self.events.append(args)),
        )


class _Mutex:
    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...


@reproduces("stepfunctions.stop_at_once", "stepfunctions.time_out_at_once")
def _() -> None:
    stopped, late = _Interpreter(), _Interpreter()
    Environment.set_stop(stopped, None, None, None)
    Environment.set_timed_out(late)
    assert isinstance(stopped._program_state, ProgramStopped)
    assert stopped.events == late.events == []


@reproduces("stepfunctions.stay_ended")
def _() -> None:
    env = _Interpreter(ProgramStopped(stop_date=None, error=None, cause=None))
    Environment.set_error(env, None)
    assert isinstance(env._program_state, ProgramError)


@reproduces("stepfunctions.close_history_of_timed_out_tasks")
def _() -> None:
    env, frame = _Interpreter(), SimpleNamespace(event_history_context=SimpleNamespace())
    env._frames.append(frame)
    Environment.close_frame(env, frame)
    assert vars(frame.event_history_context) == {}


@reproduces("stepfunctions.add_no_late_event")
def _() -> None:
    source = inspect.getsource(EventManager)
    assert "closed" not in source and "ended" not in source


@reproduces("stepfunctions.take_a_success", "stepfunctions.reject_late_results")
def _() -> None:
    endpoint = CallbackEndpoint("token")
    endpoint.interrupt_all()
    assert endpoint.consumer_error is None


@reproduces("stepfunctions.take_a_failure_with_its_cause")
def _() -> None:
    execution, token, _url = start_with_token()
    client("stepfunctions").send_task_failure(taskToken=token, error="Mine", cause="because")
    assert end(execution).get("cause") != "because"


@reproduces("stepfunctions.take_a_heartbeat")
def _() -> None:
    execution, token, _url = start_with_token()
    client("stepfunctions").send_task_success(taskToken=token, output="{}")
    end(execution)
    with raises(ClientError):
        client("stepfunctions").send_task_heartbeat(taskToken=token)
    assert "TaskTimedOut" not in inspect.getsource(StepFunctionResponse.send_task_heartbeat)


@reproduces("stepfunctions.parse_once", "stepfunctions.parse_path_once")
def _() -> None:
    definition = json.dumps({"StartAt": "Pass", "States": PASS})
    assert AmazonStateLanguageParser.parse(definition)[0] is not AmazonStateLanguageParser.parse(definition)[0]
    assert json_path.parse("$.a") is not json_path.parse("$.a")


@reproduces("stepfunctions.redrive_execution")
def _() -> None:
    assert not hasattr(StepFunctionResponse, "redrive_execution")


@reproduces(
    "state_machines.start_sync_execution",
    "state_machines.test_state",
    "state_machines.validate_state_machine_definition",
)
def _() -> None:
    for call in ("start_sync_execution", "test_state", "validate_state_machine_definition"):
        assert not hasattr(StepFunctionResponse, call)


@reproduces("state_machines.name_a_choice_without_match")
def _() -> None:
    rule = {"Variable": "$.a", "IsPresent": True, "Next": "Pass"}
    ended = run({"Choose": {"Type": "Choice", "Choices": [rule]}, **PASS})
    assert ended["error"] != "States.NoChoiceMatched"


@reproduces("state_machines.AWSError.TYPE")
def _() -> None:
    try:
        create_machine({"Loop": {"Type": "Loop"}})
    except ClientError as error:
        assert error.response["Error"]["Code"] == ""
    else:
        raise AssertionError("no error was raised")


@reproduces("state_machines.reject_missing_states")
def _() -> None:
    create_machine({"Pass": {"Type": "Pass", "Next": "Missing"}})


# ---- Step Functions: tasks


@reproduces("tasks.client_of_the_cloud")
def _() -> None:
    assert boto_client.boto_client_for(REGION, "s3") is not boto_client.boto_client_for(REGION, "s3")


@reproduces("tasks.send_as_the_service_expects")
def _() -> None:
    client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    put = task("aws-sdk:s3:putObject", {"Bucket": "bucket", "Key": "k", "Body": {"a": 1}})
    assert run({"Put": put})["status"] == "FAILED"


@reproduces("tasks.answer_as_states_expect")
def _() -> None:
    describe = task("aws-sdk:sfn:describeExecution", {"ExecutionArn.$": "$$.Execution.Id"})
    ended = run({"Describe": describe})
    assert ended["status"] == "FAILED" or "Status" not in json.loads(ended["output"])


@reproduces("tasks.name_the_service")
def _() -> None:
    assert StateTaskServiceAwsSdk._normalise_service_error_name("sagemakerruntime") == "sagemakerruntime"


@reproduces("tasks.name_the_error")
def _() -> None:
    error = ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
    assert StateTaskServiceAwsSdk._normalise_exception_name("S3", error) == "S3.S3Exception"


@reproduces("tasks.blame_dynamodb_for_its_own_errors")
def _() -> None:
    parameters = {"TableName": "any", "Key": {"key": {"S.$": "$.missing"}}}
    assert run({"Get": task("dynamodb:getItem", parameters)})["error"] != "States.Runtime"


@reproduces("tasks.throw_what_the_service_throws")
def _() -> None:
    mocked = mock_config.MockedResponseThrow(0, 0, "States.Timeout", "")
    with raises(ValueError):
        mock_eval_utils._eval_mocked_response_throw(SimpleNamespace(), mocked)


@reproduces("tasks.run_what_the_case_does_not_mock")
def _() -> None:
    env = SimpleNamespace(mock_test_case=SimpleNamespace(state_mocked_responses={"Ask": None}), next_state_name="Ask")
    assert Environment.is_mocked_mode(env)


@reproduces("tasks.issue_a_token_per_attempt")
def _() -> None:
    retry = [{"ErrorEquals": ["Mine"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution, token, url = start_with_token(Retry=retry)
    client("stepfunctions").send_task_failure(taskToken=token, error="Mine", cause="")
    assert receive(url) == token
    end(execution)


@reproduces("tasks.name_heartbeat_timeouts", "tasks.match_errors")
def _() -> None:
    execution, _token, _url = start_with_token(HeartbeatSeconds=1, TimeoutSeconds=60)
    assert end(execution)["error"] == "States.Timeout"


@reproduces("tasks.retry_at_the_cloud_s_pace")
def _() -> None:
    """Not a difference from AWS: the patch scales delays for tests."""


@reproduces("tasks.name_what_ended_a_branch_or_all")
def _() -> None:
    with raises(ValueError):
        CustomErrorName(error_name="States.Timeout")


@reproduces("tasks.accept_early_results")
def _() -> None:
    endpoint = CallbackEndpoint("token")
    endpoint.notify(CallbackOutcomeSuccess("token", "{}"))
    assert not endpoint.setup_heartbeat_endpoint(0).clear_and_wait()


# ---- Step Functions: Distributed Map


def distributed(**state: Any) -> dict[str, Any]:
    """Return a Distributed Map state whose children fail if their item is not 1."""
    choice = {"Variable": "$", "NumericEquals": 1, "Next": "Yes"}
    states = {
        "One?": {"Type": "Choice", "Choices": [choice], "Default": "No"},
        "Yes": {"Type": "Succeed"},
        "No": {"Type": "Fail", "Error": "NotOne"},
    }
    config = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    processor = {"ProcessorConfig": config, "StartAt": "One?", "States": states}
    return {"Type": "Map", "ItemProcessor": processor, "End": True, **state}


@reproduces("distributed_map.take_distributed_maps_away")
def _() -> None:
    plain = distributed()
    plain["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] = "EXPRESS"
    for state in (plain, distributed(ItemBatcher={"MaxItemsPerBatch": 2}), distributed(ToleratedFailurePercentage=50)):
        with raises(ClientError):
            create_machine({"Map": state})


@reproduces("distributed_map.run_distributed_maps")
def _() -> None:
    ended = run({"Map": distributed(ToleratedFailurePercentage=10.0)}, [1, 1, 0])
    assert ended["status"] == "SUCCEEDED", "a third of the items failed, and a tenth of them may"


@reproduces("distributed_map.count_redrives")
def _() -> None:
    machine = f"arn:aws:states:{REGION}:123456789012:stateMachine:m"
    assert "redriveCount" not in MapRunRecord(machine, f"{machine}:run", 0, 0, 0.0, "Map").describe()


# ---- Versions and aliases


@reproduces("versions.has_arn_and_revision", "versions.get_arn_or_revision")
def _() -> None:
    assert not StateMachine.has_cfn_attr("Arn") or not StateMachine.has_cfn_attr("StateMachineRevisionId")


@reproduces("versions.publish_function_version", "versions.function_version_attribute")
def _() -> None:
    made = LambdaVersion({"Version": "1"})
    assert "FunctionArn" not in inspect.getsource(LambdaVersion) and not hasattr(made, "physical_resource_id")


@reproduces("iam.deny_what_the_role_does_not_allow", "iam.deny_what_the_role_does_not_allow_in_s3")
def _() -> None:
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = client("iam").create_role(RoleName="nothing", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    given = client("sts").assume_role(RoleArn=role, RoleSessionName="tests")["Credentials"]
    session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], REGION)
    session.client("sqs").create_queue(QueueName="queue")
    session.client("s3").list_buckets()


@reproduces("ecs.keep_the_task_role", "ecs.keep_the_task_role_in_updates")
def _() -> None:
    container = {"Name": "worker", "Image": "worker", "Memory": 128}
    properties = {"Family": "worker", "TaskRoleArn": ROLE, "ContainerDefinitions": [container]}
    stack = create({"Definition": {"Type": "AWS::ECS::TaskDefinition", "Properties": properties}})
    properties["ContainerDefinitions"] = [{**container, "Memory": 256}]
    template = {"Resources": {"Definition": {"Type": "AWS::ECS::TaskDefinition", "Properties": properties}}}
    for _ in range(2):
        assert not hasattr(stack.resource_map["Definition"], "task_role_arn")
        client("cloudformation").update_stack(StackName="stack", TemplateBody=json.dumps(template))


@reproduces(
    "ecs.end_all_tasks",
    "ecs.delete_service_of_a_stack",
    "ecs.delete_cluster_of_a_stack",
    "ecs.deregister_definition_of_a_stack",
)
def _() -> None:
    create({"C": {"Type": "AWS::ECS::Cluster", "Properties": {"ClusterName": "c"}}})
    client("cloudformation").delete_stack(StackName="stack")
    assert client("ecs").list_clusters()["clusterArns"]
    assert not hasattr(ecs_models.Service, "delete") and not hasattr(ecs_models.TaskDefinition, "delete")


@reproduces("iam.update_inline_policies")
def _() -> None:
    def template(action: str) -> str:
        document = {"Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}
        policies = [{"PolicyName": "inline", "PolicyDocument": document}]
        properties = {"RoleName": "role", "AssumeRolePolicyDocument": {}, "Policies": policies}
        return json.dumps({"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": properties}}})

    client("cloudformation").create_stack(StackName="stack", TemplateBody=template("s3:GetObject"))
    client("cloudformation").update_stack(StackName="stack", TemplateBody=template("s3:PutObject"))
    [role] = iam_backends["123456789012"]["aws"].roles.values()
    assert "s3:GetObject" in str(role.policies)


@reproduces(
    "versions.start_a_version",
    "versions.run_the_version",
    "versions.describe_the_version",
    "versions.list_executions_of_a_version",
)
def _() -> None:
    api, definition = client("stepfunctions"), json.dumps({"StartAt": "Pass", "States": PASS})
    version = api.create_state_machine(name="a", definition=definition, roleArn=ROLE, publish=True)[
        "stateMachineVersionArn"
    ]
    route = [{"stateMachineVersionArn": version, "weight": 100}]
    alias = api.create_state_machine_alias(name="live", routingConfiguration=route)["stateMachineAliasArn"]
    for arn in (version, alias):
        with raises(Exception):
            api.start_execution(stateMachineArn=arn, name=uuid.uuid4().hex)
    with raises(ClientError):
        api.list_executions(stateMachineArn=alias)


@reproduces("versions.describe_the_definition_that_runs")
def _() -> None:
    execution = start(PASS)
    end(execution)
    api, later = client("stepfunctions"), json.dumps({"StartAt": "Later", "States": {"Later": PASS["Pass"]}})
    machine = api.describe_execution(executionArn=execution)["stateMachineArn"]
    api.update_state_machine(stateMachineArn=machine, definition=later)
    assert api.describe_state_machine_for_execution(executionArn=execution)["definition"] == later


@reproduces(
    "versions.publish_state_machine_version",
    "versions.list_state_machine_versions",
    "versions.delete_state_machine_version",
)
def _() -> None:
    for call in ("publish_state_machine_version", "list_state_machine_versions", "delete_state_machine_version"):
        assert not hasattr(StepFunctionResponse, call)


def main() -> None:
    """Print the result of each case as JSON."""
    results: dict[str, str] = {}
    outcomes: dict[Case, str] = {}
    for patch, case in CASES.items():
        if case not in outcomes:
            try:
                with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
                    case()
                outcomes[case] = ""
            except Exception:
                outcomes[case] = traceback.format_exc(limit=-3)
        results[patch] = outcomes[case]
    print(json.dumps(results), flush=True)
    os._exit(0)  # threads of stopped executions are still waiting for their tasks


if __name__ == "__main__":
    main()
