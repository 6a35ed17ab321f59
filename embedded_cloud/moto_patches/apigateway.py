"""API Gateway: moto stores HTTP APIs but does not serve them."""

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from embedded_cloud.gateway import FunctionError, Gateway, Route
from embedded_cloud.moto_patches.host import running

_ANY = "x-amazon-apigateway-any-method"


def serve(definition: dict[str, Any]) -> str:
    """Serve an HTTP API on a local port and return its URL.

    Args:
        definition: OpenAPI document with API Gateway extensions. Every integration must be a Lambda function.
    """
    functions: dict[str, str] = {}
    routes = []
    for path, methods in definition["paths"].items():
        for name, method in methods.items():
            route = Route(
                f"{'ANY' if name == _ANY else name.upper()} {path}", iam={"AWS_IAM": []} in method.get("security", [])
            )
            uri = method["x-amazon-apigateway-integration"]["uri"]
            functions[route.key] = uri.partition("/functions/")[2].removesuffix("/invocations")
            routes.append(route)

    def invoke(event: dict[str, Any]) -> Any:
        name = functions[event["routeKey"]]
        try:
            answer = running().client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
        except (BotoCoreError, ClientError) as error:
            raise FunctionError(str(error)) from error
        payload = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise FunctionError(payload)
        return payload

    return running().serve(Gateway(invoke, routes))
