"""Lambda: moto runs functions only in Docker."""

import json
from typing import Any

from moto.awslambda.models import ImageConfig, LambdaFunction

from embedded_cloud.lambda_runtime import Function
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running


@around(LambdaFunction, "_invoke_lambda")
def run_the_function(_original: Any, self: Any, event: Any = None) -> tuple[str, bool, str]:
    """AWS runs the handler in a sandbox behind the Runtime API; moto needs Docker. This runs a process as sandbox."""
    handler = self.image_config.cmd[0] if self.package_type == "Image" else self.handler
    function = Function(
        name=self.function_name,
        arn=self.function_arn,
        handler=handler,
        log_group=self.logs_group_name,
        timeout_s=int(self.timeout),
        memory_mb=int(self.memory_size),
        environment=tuple(sorted((name, str(value)) for name, value in self.environment_vars.items())),
    )
    invocation = running().functions.invoke(function, event if isinstance(event, str) else json.dumps(event))
    return invocation.payload, invocation.failed, invocation.log


@around(LambdaFunction, "create_from_cloudformation_json")
def keep_the_image(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS keeps the command of an image, the log group and the dead-letter queue; moto drops them."""
    function, properties = original(cls, name, resource, *args, **kwargs), resource["Properties"]
    function.package_type = properties.get("PackageType", "Zip")
    function.image_config = ImageConfig(properties.get("ImageConfig", {}))
    function.dead_letter_arn = properties.get("DeadLetterConfig", {}).get("TargetArn")
    function.logs_group_name = properties.get("LoggingConfig", {}).get("LogGroup", function.logs_group_name)
    return function
