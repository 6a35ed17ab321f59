"""HTTP APIs are served with functions behind them."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def ask(cloud: EmbeddedCloud, path: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(cloud.outputs["ApiUrl"] + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def test_an_http_api_invokes_its_function(cloud: EmbeddedCloud) -> None:
    status, answer = ask(cloud, "/echo/a%20b?size=1", Accept="text/plain")
    assert status == 200
    event = answer["event"]
    assert (event["routeKey"], event["pathParameters"]) == ("ANY /echo/{proxy+}", {"proxy": "a b"})
    assert (event["queryStringParameters"], event["headers"]["accept"]) == ({"size": "1"}, "text/plain")
    assert ask(cloud, "/elsewhere") == (404, {"message": "Not Found"})


def test_a_signed_route_passes_the_access_key_to_the_function(cloud: EmbeddedCloud) -> None:
    signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/eu-west-1/execute-api/aws4_request, Signature=0"
    _, answer = ask(cloud, "/signed/7", Authorization=signature)
    assert answer["event"]["requestContext"]["authorizer"]["iam"]["accessKey"] == "AKIDEXAMPLE"
    assert ask(cloud, "/signed/7") == (403, {"message": "Forbidden"})


def test_a_failing_function_returns_internal_server_error(cloud: EmbeddedCloud) -> None:
    assert ask(cloud, "/fail") == (500, {"message": "Internal Server Error"})


def test_the_api_is_listed_with_its_url_and_routes(cloud: EmbeddedCloud) -> None:
    gateway = client(cloud, "apigatewayv2")
    [api] = gateway.get_apis()["Items"]
    assert (api["ApiEndpoint"], api["ProtocolType"]) == (cloud.outputs["ApiUrl"], "HTTP")
    routes = {
        route["RouteKey"]: route["AuthorizationType"] for route in gateway.get_routes(ApiId=api["ApiId"])["Items"]
    }
    assert routes["GET /signed/{id}"] == "AWS_IAM" and routes["GET /fail"] == "NONE"
    integrations = gateway.get_integrations(ApiId=api["ApiId"])["Items"]
    called = {item["IntegrationUri"].partition(":function:")[2] for item in integrations}
    assert called >= {cloud.outputs["Echo"], cloud.outputs["Raise"]}
    [versioned] = called - {cloud.outputs["Echo"], cloud.outputs["Raise"]}
    assert "VersionedFunction" in versioned and versioned.endswith(":live")
    [stage] = gateway.get_stages(ApiId=api["ApiId"])["Items"]
    assert stage["StageName"] == "$default"
    resources = client(cloud, "cloudformation").describe_stack_resources(StackName=cloud.stack_name)["StackResources"]
    described = {resource["LogicalResourceId"]: resource for resource in resources}
    assert described["Api"]["PhysicalResourceId"] == api["ApiId"]
    assert described["Api"]["ResourceType"] == "AWS::ApiGatewayV2::Api"
