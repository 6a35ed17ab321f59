"""SageMaker: endpoints run their containers as local processes."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from moto.cloudformation import parsing
from moto.sagemaker.exceptions import ResourceNotFound
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig, SageMakerModelBackend, sagemaker_backends
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.processes import ContainerResponse, Endpoint
from functions.runtime.weights import bucket_and_key

SERVE_MODULE = "functions.segment.sagemaker.server"  # module that the image runs for the "serve" command
INVOCATION_S = 60  # limit of a real-time invocation
ASYNC_INVOCATION_S = 900  # default limit of an asynchronous invocation


@around(FakeEndpoint, "cloudformation_name_type")
def name_as_the_template_says(_original: Any) -> str:
    """AWS names an endpoint as the template says; moto generates a name."""
    return "EndpointName"


parsing.get_name_type_map.cache_clear()

SageMakerRuntimeResponse.use_raw_body = True  # AWS accepts binary bodies; moto decodes them as text


@around(SageMakerModelBackend, "_get_resource_from_arn")
def reject_the_arn_of_a_missing_resource(original: Any, self: Any, arn: str) -> Any:
    """AWS returns an error for the tags of a resource that does not exist; moto ends with a traceback."""
    if (found := original(self, arn)) is None:
        raise ResourceNotFound(f"{arn} does not exist.")
    return found


@around(FakeEndpointConfig, "validate_instance_type")
def take_every_instance_type(_original: Any, self: Any, instance_type: str) -> None:
    """AWS accepts current instance types; moto only those of 2020."""


@around(FakeEndpoint, "update_from_cloudformation_json")
def replace_a_renamed_endpoint(
    original: Any,
    cls: Any,
    original_resource: Any,
    new_resource_name: str,
    cloudformation_json: Any,
    account_id: str,
    region_name: str,
) -> Any:
    """AWS replaces an endpoint whose name changes, and deletes the old one last; moto keeps the old name."""
    if new_resource_name == original_resource.endpoint_name:
        return original(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name)
    made = cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)
    cls.delete_from_cloudformation_json(original_resource.arn, cloudformation_json, account_id, region_name)
    return made


@around(SageMakerModelBackend, "create_endpoint")
def start_the_container(
    original: Any, self: Any, endpoint_name: str, endpoint_config_name: str, *args: Any, **kwargs: Any
) -> Any:
    """AWS runs the model's container; moto only stores the endpoint."""
    made = original(self, endpoint_name, endpoint_config_name, *args, **kwargs)
    config, host = self.endpoint_configs[endpoint_config_name], running()
    variant = config.production_variants[0]
    model = self._models[variant["ModelName"]]
    environment = model.primary_container.get("Environment", {})
    instance = f"{variant['VariantName']}/i-{uuid.uuid4().hex[:17]}"
    client = (config.async_inference_config or {}).get("ClientConfig", {})
    host.endpoints[endpoint_name] = Endpoint(
        [SERVE_MODULE],
        {**host.environment_of(model.execution_role_arn), **{name: str(value) for name, value in environment.items()}},
        host.code,
        host.open_log(f"/aws/sagemaker/Endpoints/{endpoint_name}", instance),
        at_once=int(client.get("MaxConcurrentInvocationsPerInstance", 1)),
    )
    return made


@around(SageMakerModelBackend, "delete_endpoint")
def stop_the_container(original: Any, self: Any, endpoint_name: str) -> None:
    """AWS stops the endpoint's container; moto runs none."""
    original(self, endpoint_name)
    running().endpoints.pop(endpoint_name).close()


@around(SageMakerRuntimeResponse, "invoke_endpoint")
def invoke_the_container(_original: Any, self: Any) -> Any:
    """AWS sends the body to the container and returns ModelError for an error status; moto returns canned text."""
    name = _name(self)
    if (endpoint := running().endpoints.get(name)) is None:
        return _not_found(self)
    if _output_config(self):
        return _invalid(f"Endpoint {name} is asynchronous. Use InvokeEndpointAsync.")
    headers = {key: self.headers[key] for key in ("Content-Type", "Accept") if key in self.headers}
    answer = endpoint.invoke(self.body, headers, INVOCATION_S)
    if answer.ok:
        variant = {"x-Amzn-Invoked-Production-Variant": "AllTraffic", "Content-Type": answer.content_type}
        return answer.status, variant, answer.body
    facts = {
        "Message": _error_message(answer),
        "OriginalStatusCode": answer.status,
        "OriginalMessage": answer.body.decode(errors="replace"),
    }
    return _error(424, "ModelError", facts)


@around(SageMakerRuntimeResponse, "invoke_endpoint_async")
def queue_for_the_container(_original: Any, self: Any) -> Any:
    """AWS queues the request and later writes the container's response to S3; moto writes canned text.

    See getmoto/moto#7211.
    """
    name, output = _name(self), _output_config(self)
    if (endpoint := running().endpoints.get(name)) is None:
        return _not_found(self)
    if not output:
        return _invalid(f"Endpoint {name} is not asynchronous. Use InvokeEndpoint.")
    source, body = self.headers.get("X-Amzn-SageMaker-InputLocation"), self.body
    if bool(source) == bool(body):
        return _invalid("Specify either InputLocation or Body")

    inference_id = self.headers.get("X-Amzn-SageMaker-Inference-Id") or str(uuid.uuid4())
    headers = {
        key: self.headers[f"X-Amzn-SageMaker-{key}"]
        for key in ("Content-Type", "Accept")
        if f"X-Amzn-SageMaker-{key}" in self.headers
    }
    timeout_s = float(self.headers.get("X-Amzn-SageMaker-InvocationTimeoutSeconds", ASYNC_INVOCATION_S))
    places = {"OutputLocation": f"{output['S3OutputPath'].rstrip('/')}/{inference_id}.out"}
    if failures := output.get("S3FailurePath"):
        places["FailureLocation"] = f"{failures.rstrip('/')}/{inference_id}-error.out"

    s3 = running().client("s3", _role_arn(self))

    def infer() -> None:
        answer = _infer(endpoint, s3, source, body, headers, timeout_s)
        if answer.ok:
            _put(s3, places["OutputLocation"], answer.body, answer.content_type)
        elif "FailureLocation" in places:
            _put(s3, places["FailureLocation"], _error_message(answer).encode(), "text/plain")

    endpoint.enqueue(infer)
    located = {f"X-Amzn-SageMaker-{place}": uri for place, uri in places.items()}
    return (
        202,
        {**located, "status": 202, "Content-Type": "application/json"},
        json.dumps({"InferenceId": inference_id}),
    )


def _infer(
    endpoint: Endpoint, s3: Any, source: str | None, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> ContainerResponse:
    if source:
        bucket, key = bucket_and_key(source)
        try:
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            return ContainerResponse(400, "text/plain", f"Cannot read {source}: {error}".encode())
    return endpoint.invoke(body, headers, timeout_s)


def _put(s3: Any, uri: str, body: bytes, content_type: str) -> None:
    bucket, key = bucket_and_key(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)


def _name(response: Any) -> str:
    name: str = response.path.split("/")[2]  # /endpoints/NAME/invocations
    return name


def _output_config(response: Any) -> Mapping[str, Any]:
    """Return the output configuration of an asynchronous endpoint, or an empty mapping."""
    backend = sagemaker_backends[response.current_account][response.region]
    if (endpoint := backend.endpoints.get(_name(response))) is None:
        return {}
    config = backend.endpoint_configs[endpoint.endpoint_config_name]
    output: Mapping[str, Any] = (config.async_inference_config or {}).get("OutputConfig", {})
    return output


def _role_arn(response: Any) -> str:
    """Return the role of an endpoint's model."""
    backend = sagemaker_backends[response.current_account][response.region]
    config = backend.endpoint_configs[backend.endpoints[_name(response)].endpoint_config_name]
    role_arn: str = backend._models[config.production_variants[0]["ModelName"]].execution_role_arn
    return role_arn


def _error_message(answer: ContainerResponse) -> str:
    side, message = "client" if 400 <= answer.status < 500 else "server", answer.body.decode(errors="replace")
    return f'Received {side} error ({answer.status}) from primary with message "{message}".'


def _not_found(response: Any) -> Any:
    return _invalid(f"Endpoint {_name(response)} of account {response.current_account} not found.")


def _invalid(message: str) -> Any:
    return _error(400, "ValidationError", {"Message": message})


def _error(status: int, code: str, facts: dict[str, Any]) -> Any:
    headers = {"status": status, "Content-Type": "application/json", "x-amzn-errortype": code}
    return status, headers, json.dumps(facts)
