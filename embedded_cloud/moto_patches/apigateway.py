"""API Gateway: moto keeps HTTP APIs, and serves none."""

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from embedded_cloud.gateway import FunctionError, Gateway, Route
from embedded_cloud.moto_patches.host import running

_ANY = "x-amazon-apigateway-any-method"


def serve(definition: dict[str, Any]) -> str:
    """Serve an HTTP API as AWS would, but on a port of this machine, and return its address.

    Args:
        definition: OpenAPI with the extensions of API Gateway; every integration is a function.
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
