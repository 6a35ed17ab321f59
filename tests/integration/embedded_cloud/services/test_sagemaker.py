"""SageMaker endpoints run their containers as processes."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import create_stack, translate
from tests.conftest import ROOT
from tests.integration.embedded_cloud.services.testbed import Machines, client, task, until

pytestmark = pytest.mark.slow  # tests/integration/state_machine runs the endpoint


ENDPOINT = "segmenter"
ASYNC_ENDPOINT = "queued"


@pytest.fixture(scope="module")
def queued(cloud: EmbeddedCloud) -> Iterator[str]:
    """An asynchronous endpoint with the model of the template's endpoint."""
    sagemaker, bucket = client(cloud, "sagemaker"), cloud.outputs["PlainBucket"]
    variant = {"VariantName": "AllTraffic", "ModelName": cloud.outputs["EndpointModel"]}
    places = {"S3OutputPath": f"s3://{bucket}/answers/", "S3FailurePath": f"s3://{bucket}/failures"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=ASYNC_ENDPOINT,
        ProductionVariants=[{**variant, "InstanceType": "ml.c6i.xlarge", "InitialInstanceCount": 1}],
        AsyncInferenceConfig={"OutputConfig": places, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}},
    )
    sagemaker.create_endpoint(EndpointName=ASYNC_ENDPOINT, EndpointConfigName=ASYNC_ENDPOINT)
    yield ASYNC_ENDPOINT
    sagemaker.delete_endpoint(EndpointName=ASYNC_ENDPOINT)
    with pytest.raises(ClientError, match="not found"):
        client(cloud, "sagemaker-runtime").invoke_endpoint(EndpointName=ASYNC_ENDPOINT, Body=b"{}")


def wait_for_object(cloud: EmbeddedCloud, uri: str) -> Any:
    """Wait for the object of an s3:// URI and return it."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3 = client(cloud, "s3")
    until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"))
    return s3.get_object(Bucket=bucket, Key=key)


def test_an_endpoint_passes_the_body_to_its_container(cloud: EmbeddedCloud, machines: Machines) -> None:
    parameters = {"EndpointName": ENDPOINT, "ContentType": "application/json", "Accept": "a/b", "Body.$": "$"}
    invocation = task("aws-sdk:sagemakerruntime:invokeEndpoint", parameters)
    invocation["ResultSelector"] = {"answer.$": "States.StringToJson($.Body)"}
    answer = machines.output({"Invoke": invocation}, {"key": "a"})["answer"]
    assert answer == {"got": {"key": "a"}, "greeting": "good day", "types": ["application/json", "a/b"]}


def test_an_endpoint_accepts_and_returns_binary_bodies(cloud: EmbeddedCloud) -> None:
    sent = bytes(range(256))
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint(
        EndpointName=ENDPOINT, ContentType="application/octet-stream", Body=sent
    )
    assert (answer["Body"].read(), answer["ContentType"]) == (sent[::-1], "application/octet-stream")


def test_a_described_endpoint_is_in_service(cloud: EmbeddedCloud) -> None:
    assert client(cloud, "sagemaker").describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService"


def endpoint_parameters(instance_type: str) -> dict[str, str]:
    """Return the parameters with which template.yaml deploys its endpoint."""
    values = dict.fromkeys(translate(ROOT / "infrastructure/endpoint.yaml", {}, "eu-west-1")["Parameters"], "none")
    return values | {
        "EndpointName": f"shop-realtime-{instance_type.removeprefix('ml.').replace('.', '-')}",
        "ImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "InstanceType": instance_type,
        "MaxCount": "4",
        "Mode": "realtime",
        "CustomModelParts": '"name"' * 15,
        "LogRetentionDays": "30",
        "PermissionsBoundaryArn": "",
    }


def test_another_instance_type_replaces_the_endpoint(cloud: EmbeddedCloud) -> None:
    """SageMaker changes no instance type of an endpoint that scales, so the template renames the endpoint."""
    api, sagemaker = client(cloud, "cloudformation"), client(cloud, "sagemaker")
    before, after = endpoint_parameters("ml.c6i.2xlarge"), endpoint_parameters("ml.g5.xlarge")
    template = translate(ROOT / "infrastructure/endpoint.yaml", before, cloud.region)
    assert create_stack(api, "shop", template, before)["EndpointName"] == "shop-realtime-c6i-2xlarge"
    values = [{"ParameterKey": key, "ParameterValue": value} for key, value in after.items()]
    api.update_stack(
        StackName="shop",
        TemplateBody=json.dumps(template),
        Parameters=values,
        Capabilities=["CAPABILITY_IAM"],
    )
    outputs = api.describe_stacks(StackName="shop")["Stacks"][0]["Outputs"]
    assert {one["OutputKey"]: one["OutputValue"] for one in outputs}["EndpointName"] == "shop-realtime-g5-xlarge"
    names = [endpoint["EndpointName"] for endpoint in sagemaker.list_endpoints(NameContains="shop")["Endpoints"]]
    assert names == ["shop-realtime-g5-xlarge"]
    config = sagemaker.describe_endpoint(EndpointName=names[0])["EndpointConfigName"]
    [variant] = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    assert variant["InstanceType"] == "ml.g5.xlarge"
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint(
        EndpointName=names[0], ContentType="application/octet-stream", Body=b"abc"
    )
    assert answer["Body"].read() == b"cba"
    api.delete_stack(StackName="shop")
    assert not sagemaker.list_endpoints(NameContains="shop")["Endpoints"]


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (503, "server")])
def test_an_error_status_of_a_container_is_a_model_error(cloud: EmbeddedCloud, status: int, side: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as raised:
        runtime.invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="application/json", Body=json.dumps({"status": status})
        )
    assert raised.value.response["OriginalStatusCode"] == status
    assert f"Received {side} error ({status}) from primary" in raised.value.response["Error"]["Message"]


def test_an_asynchronous_endpoint_reads_and_writes_s3(cloud: EmbeddedCloud, queued: str) -> None:
    bucket = cloud.outputs["PlainBucket"]
    client(cloud, "s3").put_object(Bucket=bucket, Key="requests/1", Body=b'{"key": "a"}')
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint_async(
        EndpointName=queued,
        InputLocation=f"s3://{bucket}/requests/1",
        ContentType="application/json",
        Accept="application/json",
        InferenceId="first",
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "first"
    assert answer["OutputLocation"].startswith(f"s3://{bucket}/answers/")
    written = wait_for_object(cloud, answer["OutputLocation"])
    assert written["ContentType"] == "application/json"
    assert json.load(written["Body"])["got"] == {"key": "a"}


def test_an_asynchronous_endpoint_accepts_a_body(cloud: EmbeddedCloud, queued: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName=queued, ContentType="application/json", Body=b'{"key": "b"}')
    assert answer["InferenceId"]
    got = json.load(wait_for_object(cloud, answer["OutputLocation"])["Body"])
    assert (got["got"], got["types"][0]) == ({"key": "b"}, "application/json")


def test_failed_asynchronous_requests_are_written_to_the_failure_path(cloud: EmbeddedCloud, queued: str) -> None:
    runtime, bucket = client(cloud, "sagemaker-runtime"), cloud.outputs["PlainBucket"]
    refused = runtime.invoke_endpoint_async(EndpointName=queued, Body=b'{"status": 400}')
    missing = runtime.invoke_endpoint_async(EndpointName=queued, InputLocation=f"s3://{bucket}/requests/none")
    assert refused["FailureLocation"].startswith(f"s3://{bucket}/failures/")
    assert b"Received client error (400)" in wait_for_object(cloud, refused["FailureLocation"])["Body"].read()
    assert b"requests/none" in wait_for_object(cloud, missing["FailureLocation"])["Body"].read()
    listed = client(cloud, "s3").list_objects_v2(Bucket=bucket, Prefix="answers/").get("Contents", [])
    assert not [item for item in listed if refused["InferenceId"] in item["Key"]]


def test_real_time_and_asynchronous_invocations_do_not_mix(cloud: EmbeddedCloud, queued: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    for call in (
        lambda: runtime.invoke_endpoint(EndpointName=queued, Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName=ENDPOINT, Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName="none", Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName=queued),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert raised.value.response["Error"]["Code"] == "ValidationError"


def asked_through_s3(cloud: EmbeddedCloud, endpoint: str) -> dict[str, Any]:
    """A state that writes request and token to S3, invokes an asynchronous endpoint, and waits for the token."""
    place = {"Bucket": cloud.outputs["PlainBucket"], "Key.$": "$.key"}
    request = {**place, "Body": {"token.$": "$$.Task.Token", "job.$": "$.job"}}
    find = task("aws-sdk:s3:headObject", place, ResultPath=None)
    find["Retry"] = [{"ErrorEquals": ["S3.NoSuchKeyException"], "IntervalSeconds": 1, "MaxAttempts": 9}]
    del find["End"]
    location = f"States.Format('s3://{cloud.outputs['PlainBucket']}/{{}}', $.key)"
    invocation = {"EndpointName": endpoint, "ContentType": "application/json", "InputLocation.$": location}
    branches = [
        {"Wait": task("aws-sdk:s3:putObject.waitForTaskToken", request, TimeoutSeconds=60, HeartbeatSeconds=30)},
        {
            "Find": {**find, "Next": "Invoke"},
            "Invoke": task("aws-sdk:sagemakerruntime:invokeEndpointAsync", invocation),
        },
    ]
    return {
        "Type": "Parallel",
        "Branches": [{"StartAt": next(iter(states)), "States": states} for states in branches],
        "Catch": [{"ErrorEquals": ["NoSubjectError"], "ResultPath": "$.caught", "Next": "Caught"}],
        "Next": "Done",
    }


@pytest.mark.parametrize("job", [{"mask": "m"}, {"error": "NoSubjectError"}, {"error": "AnotherError"}])
def test_a_container_completes_the_token_of_a_request_in_s3(
    cloud: EmbeddedCloud, machines: Machines, queued: str, job: dict[str, str]
) -> None:
    states = {
        "Ask": asked_through_s3(cloud, queued),
        "Done": {"Type": "Pass", "End": True},
        "Caught": {"Type": "Pass", "InputPath": "$.caught", "End": True},
    }
    ended = machines.run(states, {"key": f"requests/{uuid.uuid4()}", "job": job})
    if "mask" in job:
        waited, invoked = json.loads(ended["output"])
        assert waited == {"done": job}
        assert invoked["OutputLocation"].startswith("s3://")
    elif job["error"] == "NoSubjectError":
        assert json.loads(ended["output"])["Error"] == "NoSubjectError"
    else:
        assert (ended["status"], ended["error"]) == ("FAILED", "AnotherError")
