"""Lambda: moto runs functions only in Docker."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.awslambda.models import ImageConfig, LambdaFunction
from moto.awslambda.responses import LambdaResponse

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.events import call_function, deliver
from embedded_cloud.moto_patches.host import running
from embedded_cloud.moto_patches.service_metrics import record
from embedded_cloud.sandbox import Function

_concurrent: Counter[str] = Counter()  # running calls by function
_lock = threading.Lock()


@around(LambdaFunction, "_invoke_lambda")
def run_the_function(_original: Any, self: Any, event: Any = None) -> tuple[str, bool, str]:
    """AWS runs the handler in a sandbox behind the Runtime API; moto needs Docker. This runs a process as sandbox."""
    payload = event if isinstance(event, str) else json.dumps(event)
    with _measured(self.function_name) as outcome:
        invocation = running().functions.invoke(configuration(self), payload)
        outcome["failed"] = invocation.failed
    return invocation.payload, invocation.failed, invocation.log


@contextmanager
def _measured(name: str) -> Iterator[dict[str, bool]]:
    """Record a call in CloudWatch, as AWS does. No call is throttled."""
    outcome = {"failed": True}
    with _lock:
        _concurrent[name] += 1
        concurrent = _concurrent[name]
    started = time.monotonic()
    try:
        yield outcome
    finally:
        with _lock:
            _concurrent[name] -= 1
        measurements = {
            "Invocations": (1.0, "Count"),
            "Errors": (float(outcome["failed"]), "Count"),
            "Duration": (1000 * (time.monotonic() - started), "Milliseconds"),
            "ConcurrentExecutions": (float(concurrent), "Count"),
        }
        record("AWS/Lambda", {"FunctionName": name}, measurements)


def configuration(function: LambdaFunction) -> Function:
    """Return the configuration of a function that moto stores."""
    return Function(
        name=function.function_name,
        arn=function.function_arn,
        version=str(function.version) if function.function_arn.endswith(f":{function.version}") else "$LATEST",
        handler=function.image_config.cmd[0] if function.package_type == "Image" else function.handler,
        log_group=function.logs_group_name,
        timeout_s=int(function.timeout),
        memory_mb=int(function.memory_size),
        environment=tuple(sorted((name, str(value)) for name, value in function.environment_vars.items())),
        role_arn=function.role,
    )


@around(LambdaResponse, "invoke")
def invoke_the_qualified_version(original: Any, self: Any) -> Any:
    """AWS calls the version or alias in the parameter Qualifier; moto reads it by another name."""
    if qualifier := self.querystring.get("Qualifier"):
        self.querystring["qualifier"] = qualifier
    return original(self)


@around(LambdaFunction, "invoke")
def invoke_as_requested(original: Any, self: Any, body: Any, request_headers: Any, response_headers: Any) -> Any:
    """AWS runs an Event after the response, and a DryRun not at all; moto runs both and returns their errors."""
    kind = request_headers.get("X-Amz-Invocation-Type")
    if kind == "Event":
        invocation = (running(), call_function, "", {"Arn": self.function_arn}, body or "{}")
        threading.Thread(target=deliver, args=invocation, daemon=True).start()
    return "" if kind in ("Event", "DryRun") else original(self, body, request_headers, response_headers)


@around(LambdaFunction, "create_from_cloudformation_json")
def keep_the_image(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS keeps the command of an image, the log group and the dead-letter queue; moto drops them."""
    return _with_image(original(cls, name, resource, *args, **kwargs), resource["Properties"])


@around(LambdaFunction, "update_from_cloudformation_json")
def keep_the_image_in_updates(original: Any, cls: Any, **given: Any) -> Any:
    """AWS keeps the command of an image, the log group and the dead-letter queue; moto drops them."""
    properties = given["cloudformation_json"]["Properties"]
    function = original(cls, **given)
    function.environment_vars = properties.get("Environment", {}).get("Variables", {})
    return _with_image(function, properties)


def _with_image(function: Any, properties: dict[str, Any]) -> Any:
    function.package_type = properties.get("PackageType", "Zip")
    function.image_config = ImageConfig(properties.get("ImageConfig", {}))
    function.dead_letter_arn = properties.get("DeadLetterConfig", {}).get("TargetArn")
    function.logs_group_name = properties.get("LoggingConfig", {}).get("LogGroup", function.logs_group_name)
    return function
