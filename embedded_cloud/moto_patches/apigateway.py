"""API Gateway: moto stores HTTP APIs but does not serve them."""

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.apigatewayv2.models import apigatewayv2_backends
from moto.core import DEFAULT_ACCOUNT_ID

from embedded_cloud.gateway import FunctionError, Gateway, Route
from embedded_cloud.moto_patches.host import running
from embedded_cloud.moto_patches.service_metrics import record

_ANY = "x-amazon-apigateway-any-method"


def serve(definition: dict[str, Any]) -> tuple[str, str]:
    """Serve an HTTP API on a local port, list it in API Gateway, and return its ID and URL.

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

    def measure(status: int, duration_s: float) -> None:
        measurements = {
            "Count": (1.0, "Count"),
            "4xx": (float(400 <= status < 500), "Count"),
            "5xx": (float(status >= 500), "Count"),
            "Latency": (1000 * duration_s, "Milliseconds"),
        }
        record("AWS/ApiGateway", {"ApiId": api_id}, measurements)

    url = running().serve(Gateway(invoke, routes, measure=measure))
    api_id = _register(definition, functions, routes, url)
    return api_id, url


def close(api_id: str) -> None:
    """Delete an HTTP API, and stop serving it."""
    apis = apigatewayv2_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]].apis
    running().stop_serving(apis.pop(api_id).api_endpoint)


def _register(definition: dict[str, Any], functions: dict[str, str], routes: list[Route], url: str) -> str:
    """Create the API, its integrations and its routes in moto, and return the API's ID."""
    client, region = running().client("apigatewayv2"), running().sdk["AWS_REGION"]
    info = definition.get("info", {})
    api_id: str = client.create_api(Name=info["title"], ProtocolType="HTTP", Version=info["version"])["ApiId"]
    apigatewayv2_backends[DEFAULT_ACCOUNT_ID][region].apis[api_id].api_endpoint = url
    integrations = {
        name: client.create_integration(
            ApiId=api_id, IntegrationType="AWS_PROXY", IntegrationUri=name, PayloadFormatVersion="2.0"
        )["IntegrationId"]
        for name in sorted(set(functions.values()))
    }
    for route in routes:
        target = f"integrations/{integrations[functions[route.key]]}"
        authorization = "AWS_IAM" if route.iam else "NONE"
        client.create_route(ApiId=api_id, RouteKey=route.key, Target=target, AuthorizationType=authorization)
    return api_id
