"""The edge: which origin and rules a request gets, what viewers and logs see, and which parameters are rejected.

Requests are evaluated as CloudFront and AWS WAF document it, not by the text of the template.
"""

import fnmatch
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest
from samtranslator.yaml_helper import yaml_parse

from tests.conftest import ROOT
from tests.unit.template.test_template import PSEUDO, Stack, leaves

PATH: Final = ROOT / "infrastructure/edge.yaml"
EVERYWHERE: Final = {**PSEUDO, "AWS::Region": "us-east-1", "AWS::StackName": "edge"}
DEFAULTS: Final = {
    name: str(one.get("Default", "")) for name, one in yaml_parse(PATH.read_text())["Parameters"].items()
}
ONE: Final = {
    **DEFAULTS,
    "EdgeDomain": "images.example.com",
    "HostedZoneId": "Z0123456789",
    "ApiDomain": "origin.example.com",
    "SecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:edge-1-AbCdEf",
    "SecretVersion": "v" * 32,
    "PublicKey1": "-----BEGIN PUBLIC KEY-----\nfirst\nsecond\n-----END PUBLIC KEY-----",
    "Region1": "eu-west-1",
    "ResultsBucket1": "results-eu",
}
TWO: Final = {
    **ONE,
    "PublicKey2": "-----BEGIN PUBLIC KEY-----\nother\nkey\n-----END PUBLIC KEY-----",
    "ReplicaBucket1": "replica",
    "ReplicaRegion1": "eu-central-1",
    "HealthCheck1": "health-1",
    "Region2": "us-west-2",
    "ResultsBucket2": "results-us",
    "AlertEmail": "who@example.com",
    "CorsOrigins": "https://app.example.com",
    "AllowedIpv4": "192.0.2.0/24",
}


def edge(parameters: Mapping[str, str] = TWO, region: str = "us-east-1") -> Stack:
    return Stack(parameters, PATH, {**EVERYWHERE, "AWS::Region": region})


def distribution(stack: Stack) -> dict[str, Any]:
    config: dict[str, Any] = stack["Distribution"]["DistributionConfig"]
    return config


# ---- Origins


def behavior(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the cache behavior of a path: the first that matches, or the default."""
    matching = (one for one in config["CacheBehaviors"] if fnmatch.fnmatchcase(path, one["PathPattern"]))
    found: dict[str, Any] = next(matching, config["DefaultCacheBehavior"])
    return found


def hosts(config: Mapping[str, Any], path: str) -> list[str]:
    """Return the hosts that a path is read from, in the order of their use."""
    target = behavior(config, path)["TargetOriginId"]
    origins = {one["Id"]: one["DomainName"] for one in config["Origins"]}
    groups = config.get("OriginGroups", {"Items": []})["Items"]
    members = {one["Id"]: [item["OriginId"] for item in one["Members"]["Items"]] for one in groups}
    return [origins[name] for name in members.get(target, [target])]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/process", ["origin.example.com"]),
        ("/images/ap-southeast-1/results/a.png", ["origin.example.com"]),
        ("/images/us-west-2/results/a.png", ["results-us.s3.us-west-2.amazonaws.com"]),
        (
            "/images/eu-west-1/results/a.png",
            ["results-eu.s3.eu-west-1.amazonaws.com", "replica.s3.eu-central-1.amazonaws.com"],
        ),
    ],
)
def test_a_path_has_the_origins_of_its_region(path: str, expected: list[str]) -> None:
    assert hosts(distribution(edge()), path) == expected


@pytest.mark.parametrize("parameters", [ONE, TWO], ids=["one Region", "two Regions"])
def test_buckets_are_read_with_a_signature_of_viewer_and_edge(parameters: Mapping[str, str]) -> None:
    config = distribution(edge(parameters))
    for one in config["Origins"]:
        in_s3 = "S3OriginConfig" in one
        assert one.get("OriginAccessControlId") == ("<OriginAccess>" if in_s3 else None)
    for one in config["CacheBehaviors"]:
        assert one["TrustedKeyGroups"] == ["<KeyGroup>"]
        assert one.keys() & {"AllowedMethods"} == set(), "GET and HEAD"
    used = {
        member["OriginId"]
        for group in config.get("OriginGroups", {"Items": []})["Items"]
        for member in group["Members"]["Items"]
    }
    used |= {one["TargetOriginId"] for one in (*config["CacheBehaviors"], config["DefaultCacheBehavior"])}
    assert {one["Id"] for one in config["Origins"]} <= used
    if "OriginGroups" in config:
        assert config["OriginGroups"]["Quantity"] == len(config["OriginGroups"]["Items"])


def test_the_api_gets_the_origin_secret_and_all_of_a_request_without_caching() -> None:
    config = distribution(edge())
    [api] = [one for one in config["Origins"] if one["Id"] == "api"]
    assert api["OriginCustomHeaders"] == [
        {
            "HeaderName": "X-Origin-Verify",
            "HeaderValue": f"{{{{resolve:secretsmanager:{TWO['SecretArn']}:SecretString:origin_secret::{'v' * 32}}}}}",
        }
    ]
    assert api["CustomOriginConfig"]["OriginProtocolPolicy"] == "https-only"
    assert api["CustomOriginConfig"]["OriginSSLProtocols"] == ["TLSv1.2"]
    assert api["CustomOriginConfig"]["OriginReadTimeout"] > 30, "an HTTP API answers within 30 s"
    default = config["DefaultCacheBehavior"]
    assert default["CachePolicyId"] == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "Managed-CachingDisabled"
    assert default["OriginRequestPolicyId"] == "b689b0a8-53d0-40ab-baf2-68738e2966ac", "all headers except Host"
    assert {"POST", "DELETE", "OPTIONS"} <= set(default["AllowedMethods"])


def test_the_cache_distinguishes_all_that_s3_answers_by() -> None:
    policy = edge()["ImageCache"]["CachePolicyConfig"]["ParametersInCacheKeyAndForwardedToOrigin"]
    assert policy["QueryStringsConfig"] == {
        "QueryStringBehavior": "whitelist",
        "QueryStrings": [
            "versionId",
            "response-cache-control",
            "response-content-disposition",
            "response-content-type",
        ],
    }
    assert policy["CookiesConfig"] == {"CookieBehavior": "none"}


def run_image_function(url: str) -> dict[str, Any]:
    """Return what the CloudFront function makes of a request."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    parts = urlsplit(url)
    query = {name: {"value": value} for name, _, value in (pair.partition("=") for pair in parts.query.split("&"))}
    event = {"request": {"method": "GET", "uri": parts.path, "querystring": query, "headers": {}}}
    code = edge()["ImageFunction"]["FunctionCode"]
    script = f"{code}\nconsole.log(JSON.stringify(handler({json.dumps(event)})))"
    found: dict[str, Any] = json.loads(subprocess.run([node, "-e", script], capture_output=True, check=True).stdout)
    return found


def test_the_function_turns_a_path_into_the_key_of_the_bucket() -> None:
    found = run_image_function("/images/eu-west-1/results/images/a%20b.png?versionId=1&response-content-type=x")
    assert found["uri"] == "/results/images/a%20b.png"
    assert found["querystring"].keys() == {"versionId", "response-content-type"}


def test_a_request_without_version_is_not_found() -> None:
    """Regions share the cache key of a path without its Region."""
    assert run_image_function("/images/eu-west-1/results/a.png?x=1")["statusCode"] == 404


# ---- Viewers


def test_viewers_need_https_with_a_modern_protocol() -> None:
    config = distribution(edge())
    assert {one["ViewerProtocolPolicy"] for one in (*config["CacheBehaviors"], config["DefaultCacheBehavior"])} == {
        "https-only"
    }
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert config["HttpVersion"] == "http2and3"


def test_certificate_and_records_are_created_as_far_as_possible() -> None:
    own = "arn:aws:acm:us-east-1:123456789012:certificate/1"
    for parameters, certificate, records in (
        (ONE, "<Certificate>", {"A", "AAAA"}),
        ({**ONE, "CertificateArn": own}, own, {"A", "AAAA"}),
        ({**ONE, "CertificateArn": own, "HostedZoneId": ""}, own, set()),
    ):
        stack = edge(parameters)
        assert distribution(stack)["ViewerCertificate"]["AcmCertificateArn"] == certificate
        assert {one["Type"] for one in stack.of_type("AWS::Route53::RecordSet")} == records


def test_responses_have_security_headers() -> None:
    stack = edge()
    for name in ("ApiHeaders", "ImageHeaders"):
        headers = stack[name]["ResponseHeadersPolicyConfig"]["SecurityHeadersConfig"]
        assert headers["StrictTransportSecurity"]["AccessControlMaxAgeSec"] >= 31536000
        assert headers["ContentTypeOptions"] == {"Override": True}
        assert headers["FrameOptions"]["FrameOption"] == "DENY"
        assert "frame-ancestors 'none'" in headers["ContentSecurityPolicy"]["ContentSecurityPolicy"]
        assert headers["ReferrerPolicy"]["ReferrerPolicy"] == "no-referrer"
    images = stack["ImageHeaders"]["ResponseHeadersPolicyConfig"]
    assert images["SecurityHeadersConfig"]["ContentSecurityPolicy"]["ContentSecurityPolicy"].startswith(
        "default-src 'none'"
    )
    assert images["CorsConfig"]["AccessControlAllowOrigins"] == {"Items": ["https://app.example.com"]}
    assert "CorsConfig" not in edge(ONE)["ImageHeaders"]["ResponseHeadersPolicyConfig"]


def test_urls_signed_with_either_key_are_accepted_during_a_rotation() -> None:
    for number, parameters in (("1", TWO), ("2", {**TWO, "SigningKey": "2"})):
        stack = edge(parameters)
        assert stack["KeyGroup"]["KeyGroupConfig"]["Items"] == ["<Key1>", "<Key2>"]
        assert stack.outputs["KeyPairId"]["Value"] == f"<Key{number}>"
    [key] = edge(ONE)["KeyGroup"]["KeyGroupConfig"]["Items"]
    assert key == "<Key1>"


def test_a_public_key_ends_with_a_line_break_and_has_a_reference_of_its_own() -> None:
    """CloudFront requires both."""
    key = edge()["Key1"]["PublicKeyConfig"]
    assert key["EncodedKey"].endswith("-----END PUBLIC KEY-----\n")
    assert key["CallerReference"] == "second"


# ---- AWS WAF


class Request(NamedTuple):
    """A request, as AWS WAF sees it."""

    path: str = "/jobs"
    address: str = "192.0.2.7"
    headers: Mapping[str, str] = {}
    body_bytes: int = 0


INSPECTED_BYTES: Final = 16384
"""Of a body, by a web ACL of CloudFront with default settings."""


def field(request: Request, where: Mapping[str, Any]) -> str | None:
    """Return the text that a statement inspects; None if the request lacks it."""
    if "UriPath" in where:
        return request.path
    return request.headers.get(where["SingleHeader"]["Name"])


def matches(statement: Mapping[str, Any], request: Request) -> bool:
    """Return whether a statement that looks at one request matches it."""
    [(kind, facts)] = statement.items()
    match kind:
        case "AndStatement":
            return all(matches(one, request) for one in facts["Statements"])
        case "OrStatement":
            return any(matches(one, request) for one in facts["Statements"])
        case "NotStatement":
            return not matches(facts["Statement"], request)
        case "IPSetReferenceStatement":
            return facts["Arn"] == "<Ipv4Set>.Arn" and request.address.startswith("192.0.2.")
        case "RegexMatchStatement":
            text = field(request, facts["FieldToMatch"])
            return text is not None and bool(re.search(facts["RegexString"], text))
        case "ByteMatchStatement":
            assert facts["PositionalConstraint"] == "STARTS_WITH"
            return (field(request, facts["FieldToMatch"]) or "").startswith(facts["SearchString"])
        case "SizeConstraintStatement":
            assert facts["FieldToMatch"] == {"Body": {"OversizeHandling": "MATCH"}}
            assert facts["ComparisonOperator"] == "GT"
            return request.body_bytes > INSPECTED_BYTES or request.body_bytes > facts["Size"]
    raise AssertionError(kind)


def blocked_by(stack: Stack, request: Request) -> str:
    """Return the rule that blocks a request by itself, without managed groups and other requests; empty for none."""
    for rule in sorted(stack["WebAcl"]["Rules"], key=lambda one: int(one["Priority"])):
        if not rule["Statement"].keys() & {"RateBasedStatement", "ManagedRuleGroupStatement"} and matches(
            rule["Statement"], request
        ):
            assert "Block" in rule["Action"]
            return str(rule["Name"])
    return ""


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(), ""),
        (Request(address="198.51.100.1"), "allowed-addresses"),
        (Request("/process", headers={"content-length": str(10 << 20)}, body_bytes=10 << 20), ""),
        (Request("/process", headers={"content-length": str((10 << 20) + 1)}), "content-length"),
        (Request("/process", headers={"content-length": "99999999999"}), "content-length"),
        (Request("/v1.0/removebg", body_bytes=5_000_000), ""),
        (Request("/api/remove", body_bytes=5_000_000), ""),
        (Request("/jobs", body_bytes=16_384), ""),
        (Request("/jobs", body_bytes=16_385), "body-without-image"),
        (Request("/process/x", body_bytes=20_000), "body-without-image"),
    ],
)
def test_a_request_is_blocked_by_the_right_rule(request_: Request, expected: str) -> None:
    assert blocked_by(edge(), request_) == expected


@pytest.mark.parametrize("size", [0, 9, 999_999, 1_048_577, 9_999_999, 10_485_760])
def test_content_lengths_up_to_10_mib_are_allowed(size: int) -> None:
    assert blocked_by(edge(ONE), Request("/process", headers={"content-length": str(size)})) == ""


@pytest.mark.parametrize("size", [10_485_761, 10_485_770, 10_485_800, 10_486_000, 10_490_000, 10_500_000, 11_000_000])
def test_content_lengths_over_10_mib_are_blocked(size: int) -> None:
    for number in (size, size * 10, 99_999_999):
        assert blocked_by(edge(ONE), Request("/process", headers={"content-length": str(number)})) == "content-length"


def test_without_an_allow_list_all_addresses_may_connect() -> None:
    stack = edge(ONE)
    assert blocked_by(stack, Request(address="198.51.100.1")) == ""
    assert stack.of_type("AWS::WAFv2::IPSet") == []


def test_the_routes_that_take_images_are_those_of_the_api() -> None:
    document = json.loads((ROOT / "docs/reference/openapi.json").read_text())
    binary = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for media in operation.get("requestBody", {}).get("content", {})
        if media.startswith(("image/", "multipart/")) or media == "application/octet-stream"
    }
    assert {"/process", "/v1.0/removebg", "/api/remove"} <= binary
    for path in binary:
        if not path.startswith("/iam/"):  # IAM signatures cover the host: these requests do not pass the edge
            assert blocked_by(edge(), Request(path, body_bytes=100_000)) == "", path


def rules(stack: Stack, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in stack["WebAcl"]["Rules"]:
        if kind in rule["Statement"]:
            yield rule["Name"], rule["Statement"][kind]


def test_requests_are_limited_per_address_and_per_key() -> None:
    found = {
        name: (one["AggregateKeyType"], [key["Header"]["Name"] for key in one.get("CustomKeys", [])], str(one["Limit"]))
        for name, one in rules(edge({**TWO, "RequestsPerAddress": "50", "RequestsPerKey": "70"}), "RateBasedStatement")
    }
    assert found == {
        "rate-per-address": ("IP", [], "50"),
        "rate-per-key": ("CUSTOM_KEYS", ["x-api-key"], "70"),
        "rate-per-bearer-token": ("CUSTOM_KEYS", ["authorization"], "70"),
    }


TRANSFORMATIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "NONE": lambda text: text,
    "LOWERCASE": str.lower,
    "COMPRESS_WHITE_SPACE": lambda text: re.sub(r"\s+", " ", text),
}


@pytest.mark.parametrize("value", ["bearer key", "BEARER key", "Bearer   key", "Bearer \tkey"])
def test_all_spellings_of_a_bearer_token_are_counted_together(value: str) -> None:
    """The API accepts all of them."""
    [one] = dict(rules(edge(), "RateBasedStatement"))["rate-per-bearer-token"]["CustomKeys"]

    def counted_as(text: str) -> str:
        for each in sorted(one["Header"]["TextTransformations"], key=lambda each: int(each["Priority"])):
            text = TRANSFORMATIONS[each["Type"]](text)
        return text

    assert counted_as(value) == counted_as("Bearer key") != counted_as("Bearer other")


def test_managed_rules_apply_except_to_images() -> None:
    groups = {one["Name"]: one for _, one in rules(edge(), "ManagedRuleGroupStatement")}
    common = groups.pop("AWSManagedRulesCommonRuleSet")
    assert groups.keys() == {"AWSManagedRulesAmazonIpReputationList", "AWSManagedRulesKnownBadInputsRuleSet"}
    counted = {one["Name"] for one in common["RuleActionOverrides"] if one["ActionToUse"] == {"Count": {}}}
    bodies = ("SizeRestrictions", "CrossSiteScripting", "EC2MetaDataSSRF", "GenericLFI", "GenericRFI")
    assert counted == {f"{name}_BODY" for name in bodies}
    assert matches(common["ScopeDownStatement"], Request("/process"))
    assert not matches(common["ScopeDownStatement"], Request("/images/eu-west-1/results/settings.ini.png"))
    for rule in edge()["WebAcl"]["Rules"]:
        assert "OverrideAction" not in rule or rule["OverrideAction"] == {"None": {}}


# ---- Logs and alarms


def test_logs_have_no_credentials() -> None:
    stack = edge()
    fields = set(stack["LogDelivery"]["RecordFields"])
    assert fields & {"cs-uri-query", "cs(Cookie)", "cs(Referer)"} == set()
    assert {"c-ip", "cs-uri-stem", "sc-status"} <= fields
    redacted = stack["WafLogging"]["RedactedFields"]
    assert {"QueryString": {}} in redacted
    headers = {one["SingleHeader"]["Name"] for one in redacted if "SingleHeader" in one}
    assert headers == {"authorization", "x-api-key", "cookie", "referer"}
    counted_by = {
        key["Header"]["Name"] for _, one in rules(stack, "RateBasedStatement") for key in one.get("CustomKeys", [])
    }
    [protection] = stack["WebAcl"]["DataProtectionConfig"]["DataProtections"]
    assert protection == {
        "Field": {"FieldType": "SINGLE_HEADER", "FieldKeys": sorted(counted_by)},
        "Action": "SUBSTITUTION",
    }, "a rule that counts by a header logs its value, which RedactedFields does not redact"
    samples = {value for key, value in leaves(stack["WebAcl"]) if key == "SampledRequestsEnabled"}
    assert samples == {False}, "samples show headers"


def test_only_requests_that_a_rule_blocks_are_logged_by_aws_waf() -> None:
    """Rules that count match the bodies of nearly all images."""
    logged = edge()["WafLogging"]["LoggingFilter"]
    assert logged["DefaultBehavior"] == "DROP"
    [kept] = logged["Filters"]
    assert (kept["Behavior"], kept["Conditions"]) == ("KEEP", [{"ActionCondition": {"Action": "BLOCK"}}])


def test_only_the_delivery_of_this_stack_writes_to_the_log_bucket() -> None:
    stack = edge()
    [allowed, *denied] = stack["EdgeLogsBucketPolicy"]["PolicyDocument"]["Statement"]
    name = stack["LogSource"]["Name"]
    assert allowed["Condition"] == {
        "StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control", "aws:SourceAccount": "123456789012"},
        "ArnEquals": {"aws:SourceArn": f"arn:aws:logs:us-east-1:123456789012:delivery-source:{name}"},
    }
    assert [one["Condition"] for one in denied] == [
        {"Bool": {"aws:SecureTransport": "false"}},
        {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    ]
    bucket = stack["EdgeLogsBucket"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}, (
        "log delivery without a key policy"
    )
    assert bucket["LifecycleConfiguration"]["Rules"][1]["ExpirationInDays"] == "30"


def test_alerts_are_encrypted_and_only_cloudwatch_of_this_account_publishes_them() -> None:
    stack = edge()
    assert stack["EdgeAlertsTopic"]["KmsMasterKeyId"] == "<EdgeAlertsKey>.Arn"
    published = stack["EdgeAlertsTopicPolicy"]["PolicyDocument"]["Statement"]
    key = stack["EdgeAlertsKey"]["KeyPolicy"]["Statement"][1]
    assert key["Principal"] == published[0]["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert key["Condition"] == published[0]["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert (published[1]["Effect"], published[1]["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_every_region_with_a_health_check_has_an_alarm() -> None:
    alarms = {one["AlarmName"]: one for one in edge().of_type("AWS::CloudWatch::Alarm")}
    assert alarms.keys() == {"edge-5xx", "edge-health-eu-west-1"}
    health = alarms["edge-health-eu-west-1"]
    assert health["Dimensions"] == [{"Name": "HealthCheckId", "Value": "health-1"}]
    assert {tuple(one["AlarmActions"]) for one in alarms.values()} == {("<EdgeAlertsTopic>",)}
    assert edge(ONE).of_type("AWS::SNS::Subscription") == []


# ---- Parameters


@pytest.mark.parametrize(
    ("changed", "region", "problem"),
    [
        ({}, "eu-west-1", "The edge must be deployed in us-east-1"),
        ({"HostedZoneId": ""}, "us-east-1", "Set CertificateArn, or HostedZoneId"),
        ({"PublicKey1": ""}, "us-east-1", "SigningKey=1 requires PublicKey1"),
        ({"SigningKey": "2"}, "us-east-1", "SigningKey=2 requires PublicKey2"),
        ({"Region3": "eu-west-3"}, "us-east-1", "Region3 requires ResultsBucket3"),
        ({"ReplicaBucket1": "replica"}, "us-east-1", "ReplicaBucket1 requires ReplicaRegion1"),
        ({"ReplicaBucket2": "replica", "ReplicaRegion2": "eu-west-3"}, "us-east-1", "Region2 and ReplicaBucket1"),
    ],
)
def test_wrong_parameters_are_rejected_with_a_reason(changed: dict[str, str], region: str, problem: str) -> None:
    parameters = {**ONE, **changed}
    template = Rules({**parameters}, PATH, {**EVERYWHERE, "AWS::Region": region})
    [refusal] = template.refusals()
    assert problem in refusal


def test_right_parameters_are_accepted() -> None:
    assert edge(ONE).refusals() == edge(TWO).refusals() == []


class Rules(Stack):
    """The rules of the template only: wrong parameters need no resources."""

    def _those_made(self, section: str) -> set[str]:
        return set()
