"""Encryption, access, retention and deletion of data: each rule for all resources of a type, in all templates."""

import json
import re
from datetime import timedelta
from typing import Any, Final

import pytest

from functions.sweep.work import MARKERS_KEPT
from tests.conftest import ROOT
from tests.unit.template.test_template import (
    ASYNC,
    FARGATE,
    GPU_SPOT,
    INSECURE,
    MODELS,
    OPEN,
    PROTECTED,
    PSEUDO,
    REGION,
    REPLICATED,
    TEMPLATE,
    Stack,
    environment,
    leaves,
    leaves_of,
    translated,
)

KEY = PROTECTED["KmsKeyArn"]
ALL_PARTS = {**FARGATE, **ASYNC, **MODELS[1], **OPEN}
STACKS = {
    "without a key": Stack({**ALL_PARTS, **REPLICATED}),
    "with a key": Stack({**ALL_PARTS, **GPU_SPOT, **PROTECTED}),
}
WITHOUT_KEY, WITH_KEY = STACKS.values()
TEMPLATES = [TEMPLATE, *sorted((ROOT / "infrastructure").glob("*.yaml"))]

STATEFUL = {
    "AWS::S3::Bucket",
    "AWS::DynamoDB::Table",
    "AWS::DynamoDB::GlobalTable",
    "AWS::SQS::Queue",
    "AWS::Logs::LogGroup",
    "AWS::SecretsManager::Secret",
    "AWS::KMS::Key",
}
RETAINED = {  # what cannot be made again
    *("UploadsBucket", "ResultsBucket", "WorkBucket"),  # CloudFormation deletes empty buckets only
    *("ApiKeysTable", "ReviewsTable", "Keys"),
    "ReplicaBucket",
}
KEPT_ALWAYS = {"EdgeLogsBucket", "Key", "AccessLogsBucket", "ReplicaLogsBucket"}
UNVERSIONED = {"WorkBucket", "AccessLogsBucket"}
"""Buckets whose objects are made again, or are never overwritten."""


@pytest.fixture(params=list(STACKS))
def stack(request: pytest.FixtureRequest) -> Stack:
    return STACKS[request.param]


def named(stack: Stack, resource_type: str) -> dict[str, dict[str, Any]]:
    found = {name: one["Properties"] for name, one in stack.resources.items() if one["Type"] == resource_type}
    assert found
    return found


def test_the_stacks_of_these_tests_have_all_resources_with_data() -> None:
    made = {name for one in STACKS.values() for name in one.resources}
    declared = {
        name
        for path in TEMPLATES
        if path.name != "delivery.yaml"  # no data, and its roles are not those of a stack
        for name, one in translated(path)["Resources"].items()
        if one["Type"] in {*STATEFUL, "AWS::SNS::Topic", "AWS::IAM::Role"}
    }
    alone = {"Key", "Keys", "ReplicaBucket", "ReplicaLogsBucket"}
    edge = {"EdgeLogsBucket", "WafLogGroup", "EdgeAlertsKey", "EdgeAlertsTopic"}
    assert declared - made == alone | edge, "they have stacks of their own, see test_regions.py and test_edge.py"


def test_resources_with_data_have_both_deletion_policies() -> None:
    for path in TEMPLATES:
        for name, one in translated(path)["Resources"].items():
            if one["Type"] in STATEFUL:
                found = one.get("DeletionPolicy"), one.get("UpdateReplacePolicy")
                kept = ("RetainExceptOnCreate", "Retain") if name in RETAINED else ("Delete", "Delete")
                assert found == (("Retain", "Retain") if name in KEPT_ALWAYS else kept), name


# ---- Encryption


def test_buckets_are_encrypted(stack: Stack) -> None:
    for name, bucket in named(stack, "AWS::S3::Bucket").items():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        if stack is WITHOUT_KEY or name == "AccessLogsBucket":  # log delivery supports no keys of KMS
            assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}, name
        else:
            default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
            assert rule == {"BucketKeyEnabled": True, "ServerSideEncryptionByDefault": default}, name


def test_queues_are_encrypted(stack: Stack) -> None:
    for name, queue in named(stack, "AWS::SQS::Queue").items():
        found = {key: queue[key] for key in ("SqsManagedSseEnabled", "KmsMasterKeyId") if key in queue}
        with_key = {"KmsMasterKeyId": KEY, "SqsManagedSseEnabled": False}
        assert found == (with_key if stack is WITH_KEY else {"SqsManagedSseEnabled": True}), name


def test_topics_are_encrypted() -> None:
    keys = {name: topic["KmsMasterKeyId"] for name, topic in named(WITHOUT_KEY, "AWS::SNS::Topic").items()}
    assert keys == {"FailuresTopic": "alias/aws/sns", "AlertsTopic": "<AlertsKey>.Arn"}
    assert {topic["KmsMasterKeyId"] for topic in named(WITH_KEY, "AWS::SNS::Topic").values()} == {KEY}
    assert "AlertsKey" not in WITH_KEY.resources


def test_tables_are_encrypted(stack: Stack) -> None:
    expected = {"SSEEnabled": True, **({"SSEType": "KMS", "KMSMasterKeyId": KEY} if stack is WITH_KEY else {})}
    for name, table in named(stack, "AWS::DynamoDB::Table").items():
        assert table["SSESpecification"] == expected, name


@pytest.mark.parametrize("resource_type", ["AWS::Logs::LogGroup", "AWS::SecretsManager::Secret"])
def test_logs_and_secrets_are_encrypted_with_the_key(resource_type: str) -> None:
    assert {one.get("KmsKeyId") for one in named(WITHOUT_KEY, resource_type).values()} == {None}
    assert {one.get("KmsKeyId") for one in named(WITH_KEY, resource_type).values()} == {KEY}


def test_sagemaker_encrypts_what_it_writes_with_the_key() -> None:
    for stack, key in ((WITHOUT_KEY, None), (WITH_KEY, KEY)):
        [endpoint] = stack.of_type("AWS::SageMaker::EndpointConfig")
        assert endpoint["AsyncInferenceConfig"]["OutputConfig"].get("KmsKeyId") == key
        assert stack["Bulk"]["DefinitionSubstitutions"]["KmsKeyArn"] == (key or "")
    assert "        KmsKeyId: '${KmsKeyArn}'" in (ROOT / "statemachine" / "bulk.asl.yaml").read_text()


DECRYPT, BOTH = {"kms:Decrypt"}, {"kms:Decrypt", "kms:GenerateDataKey"}
NEEDED: Final = {  # what a caller needs for calls to encrypted resources, from the documentation of each service
    **dict.fromkeys(
        ("s3:GetObject", "s3:GetObjectVersion", "sqs:ReceiveMessage", "secretsmanager:GetSecretValue"), DECRYPT
    ),
    **dict.fromkeys(("s3:PutObject", "sqs:SendMessage", "sns:Publish"), BOTH),
    **{f"dynamodb:{name}": DECRYPT for name in ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query")},
}
WITHOUT_CONTENT: Final = {  # calls to encrypted resources that need no key
    *("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion"),
    *("s3:ListBucket", "s3:ListBucketVersions", "s3:ListMultipartUploadParts"),
    *("sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "dynamodb:DescribeTable",
}
ENCRYPTED: Final = {action.partition(":")[0] for action in NEEDED}
"""Services of these resources."""


def permissions(stack: Stack) -> dict[str, list[dict[str, Any]]]:
    """Return the statements of each role: its own, and those of policies that are attached to it."""
    found = {
        name: [s for policy in role.get("Policies", []) for s in policy["PolicyDocument"]["Statement"]]
        for name, role in named(stack, "AWS::IAM::Role").items()
    }
    for policy in stack.of_type("AWS::IAM::Policy"):
        for role in policy["Roles"]:
            found[role.strip("<>")] += policy["PolicyDocument"]["Statement"]
    return found


def actions(statement: dict[str, Any]) -> set[str]:
    return set(leaves_of(statement["Action"]))


def test_roles_may_use_the_key_exactly_as_their_calls_need() -> None:
    for name, statements in permissions(WITH_KEY).items():
        called = {action for statement in statements for action in actions(statement)}
        known = NEEDED.keys() | WITHOUT_CONTENT
        assert {action for action in called if action.partition(":")[0] in ENCRYPTED} <= known, name
        needed = {permission for action in called for permission in NEEDED.get(action, ())}
        needed |= (
            {"kms:Encrypt"} if name == "EndpointRole" else set()
        )  # SageMaker: for a key in the output configuration
        with_kms = [one for one in statements if any(action.startswith("kms:") for action in actions(one))]
        assert {action for one in with_kms for action in actions(one)} == needed, name
        assert all(one["Resource"] == KEY for one in with_kms), name


def test_without_the_key_only_the_publisher_of_alerts_may_use_one() -> None:
    users = {
        (name, str(statement["Resource"]))
        for name, statements in permissions(WITHOUT_KEY).items()
        for statement in statements
        if any(action.startswith("kms:") for action in actions(statement))
    }
    assert users == {("DigestFunctionRole", "<AlertsKey>.Arn")}


def key_statements() -> dict[str, dict[str, Any]]:
    key = Stack({"EdgeDistributionId": ""}, ROOT / "infrastructure" / "key.yaml")["Key"]
    assert key["EnableKeyRotation"] is True
    return {statement["Sid"]: statement for statement in key["KeyPolicy"]["Statement"]}


def test_the_key_may_be_used_by_the_services_that_have_no_role() -> None:
    statements = key_statements()
    assert statements.keys() == {"Account", "Logs", "Alerts", "UndeliveredEvents"}
    publishers = WITHOUT_KEY["AlertsKey"]["KeyPolicy"]["Statement"][1]
    for part in ("Principal", "Action"):
        assert statements["Alerts"][part] == publishers[part], "as the key that it replaces"
    services = {
        statement["Principal"]["Service"]
        for policy in WITH_KEY.of_type("AWS::SQS::QueuePolicy")
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }
    assert services == {statements["UndeliveredEvents"]["Principal"]["Service"]}


def test_only_the_distribution_of_the_edge_may_decrypt_results() -> None:
    key = Stack({"EdgeDistributionId": "E1"}, ROOT / "infrastructure" / "key.yaml")["Key"]
    [edge] = [one for one in key["KeyPolicy"]["Statement"] if one["Sid"] == "Edge"]
    assert (edge["Principal"], edge["Action"]) == ({"Service": "cloudfront.amazonaws.com"}, "kms:Decrypt")
    arn = f"arn:aws:cloudfront::{PSEUDO['AWS::AccountId']}:distribution/E1"
    assert edge["Condition"] == {"StringEquals": {"aws:SourceArn": arn}}


def test_services_use_the_key_for_this_account_only() -> None:
    account = PSEUDO["AWS::AccountId"]
    statements = key_statements()
    assert statements.pop("Account")["Principal"] == {"AWS": f"arn:aws:iam::{account}:root"}
    assert {name: one["Condition"] for name, one in statements.items()} == {
        "Logs": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{account}:log-group:*"}},
        "Alerts": {"StringEquals": {"aws:SourceAccount": account}},
        "UndeliveredEvents": {"ArnLike": {"kms:EncryptionContext:aws:sqs:arn": f"arn:aws:sqs:{REGION}:{account}:*"}},
    }


def test_no_variable_of_a_function_or_container_has_a_secret() -> None:
    """The configuration of a function or task shows them. The ARN of a secret is not secret."""
    assert not [
        key for path in TEMPLATES for key, _ in leaves(translated(path).get("Parameters", {})) if key == "NoEcho"
    ]
    variables = {
        (name, str(value))
        for stack in STACKS.values()
        for key, given in leaves(stack.resources)
        if key == "Environment" and given
        for name, value in environment({key: given}).items()
    }
    names = {name for name, _ in variables}
    assert {"WEBHOOK_SECRET_ARN", "QUEUE_URL", "PBR_STACK", "PBR_DEVICE"} <= names
    suspects = {name for name in names if re.search("SECRET|PASSWORD|TOKEN|CREDENTIAL|KEY", name)}
    assert suspects == {"KEYS_TABLE", "WEBHOOK_SECRET_ARN"}
    assert not [name for name, value in variables if "{{resolve:" in value]


# ---- Access


def test_no_bucket_is_public(stack: Stack) -> None:
    blocks = {"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"}
    for name, bucket in named(stack, "AWS::S3::Bucket").items():
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(blocks, True), name
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}, name


OLD_TLS = {"NumericLessThan": {"s3:TlsVersion": "1.2"}}


def denials(policy: dict[str, Any]) -> list[tuple[str, frozenset[str], str]]:
    """Return condition, resources and action of what a policy denies everyone."""
    return [
        (json.dumps(one["Condition"]), frozenset(leaves_of(one["Resource"])), one["Action"])
        for one in policy["PolicyDocument"]["Statement"]
        if (one["Effect"], one["Principal"]) == ("Deny", "*")
    ]


def test_buckets_require_tls_1_2(stack: Stack) -> None:
    policies = {policy["Bucket"]: denials(policy) for policy in stack.of_type("AWS::S3::BucketPolicy")}
    for name in named(stack, "AWS::S3::Bucket"):
        all_of_it = frozenset({f"<{name}>.Arn", f"<{name}>.Arn/*"})
        for condition in (INSECURE, OLD_TLS):
            assert (json.dumps(condition), all_of_it, "s3:*") in policies[f"<{name}>"]


def test_topics_require_tls(stack: Stack) -> None:
    denied = {denial for policy in stack.of_type("AWS::SNS::TopicPolicy") for denial in denials(policy)}
    topics = named(stack, "AWS::SNS::Topic")
    assert denied == {(json.dumps(INSECURE), frozenset({f"<{name}>"}), "sns:Publish") for name in topics}


def test_access_to_all_buckets_is_logged(stack: Stack) -> None:
    buckets = named(stack, "AWS::S3::Bucket")
    logs = {name: bucket.get("LoggingConfiguration") for name, bucket in buckets.items()}
    assert logs.pop("AccessLogsBucket") is None, "it would log its own logs"
    prefixes = {name: log["LogFilePrefix"] for name, log in logs.items() if log}
    assert prefixes.keys() == logs.keys() and len(set(prefixes.values())) == len(prefixes)
    [delivery] = [
        one for one in stack["AccessLogsBucketPolicy"]["PolicyDocument"]["Statement"] if one["Sid"] == "BucketLogs"
    ]
    assert delivery["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert set(delivery["Resource"]) == {f"<AccessLogsBucket>.Arn/{prefix}*" for prefix in prefixes.values()}
    assert delivery["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
    assert set(delivery["Condition"]["ArnEquals"]["aws:SourceArn"]) == {f"<{name}>.Arn" for name in logs}


def test_access_to_the_page_is_logged() -> None:
    attributes = {one["Key"]: one["Value"] for one in WITH_KEY["WebLoadBalancer"]["LoadBalancerAttributes"]}
    assert attributes["access_logs.s3.enabled"] == "true"
    assert attributes["access_logs.s3.bucket"] == "<AccessLogsBucket>"
    [delivery] = [
        one
        for one in WITH_KEY["AccessLogsBucketPolicy"]["PolicyDocument"]["Statement"]
        if one["Sid"] == "LoadBalancerLogs"
    ]
    path = f"{attributes['access_logs.s3.prefix']}/AWSLogs/123456789012/*"
    assert delivery["Resource"] == f"<AccessLogsBucket>.Arn/{path}"
    assert WITH_KEY.resources["WebStack"]["DependsOn"] == "AccessLogsBucketPolicy"
    statements = Stack({})["AccessLogsBucketPolicy"]["PolicyDocument"]["Statement"]
    assert "LoadBalancerLogs" not in {one["Sid"] for one in statements}, "without a page"


# ---- Retention


def test_overwritten_and_deleted_objects_can_be_restored(stack: Stack) -> None:
    versioned = {
        name: bucket["LifecycleConfiguration"]["Rules"]
        for name, bucket in named(stack, "AWS::S3::Bucket").items()
        if bucket.get("VersioningConfiguration") == {"Status": "Enabled"}
    }
    assert versioned.keys() == named(stack, "AWS::S3::Bucket").keys() - UNVERSIONED
    for name, rules in versioned.items():
        assert any("NoncurrentVersionExpiration" in rule and "Prefix" not in rule for rule in rules), name


def test_incomplete_uploads_are_deleted(stack: Stack) -> None:
    for name, bucket in named(stack, "AWS::S3::Bucket").items():
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert any("AbortIncompleteMultipartUpload" in rule and "Prefix" not in rule for rule in rules), name


def test_only_tables_that_cannot_be_filled_again_have_backups(stack: Stack) -> None:
    enabled = {"PointInTimeRecoveryEnabled": True}
    tables = named(stack, "AWS::DynamoDB::Table").items()
    with_backups = {name for name, table in tables if table.get("PointInTimeRecoverySpecification") == enabled}
    assert with_backups == {"ApiKeysTable", "ReviewsTable", "ApiUsageTable"}


def test_logs_expire(stack: Stack) -> None:
    for name, group in named(stack, "AWS::Logs::LogGroup").items():
        assert group["RetentionInDays"] == "30", name
    assert {"Id": "access-logs", "Status": "Enabled", "ExpirationInDays": "30"} in (
        stack["AccessLogsBucket"]["LifecycleConfiguration"]["Rules"]
    )


def test_logs_of_state_machines_have_no_execution_data(stack: Stack) -> None:
    """Task tokens are credentials, and URLs of webhooks may contain some."""
    machines = named(stack, "AWS::StepFunctions::StateMachine")
    assert len(machines) == 3
    for name, machine in machines.items():
        assert machine["LoggingConfiguration"]["IncludeExecutionData"] is False, name


def rules_of(bucket: str, **parameters: str) -> dict[str, dict[str, Any]]:
    return {rule["Id"]: rule for rule in Stack(parameters)[bucket]["LifecycleConfiguration"]["Rules"]}


@pytest.mark.parametrize(
    ("bucket", "parameter", "kind"),
    [("UploadsBucket", "SourceDays", "sources"), ("ResultsBucket", "ResultDays", "results")],
)
def test_uploads_and_results_expire_and_change_their_storage_class_if_configured(
    bucket: str, parameter: str, kind: str
) -> None:
    assert not {f"expired-{kind}", f"archived-{kind}"} & rules_of(bucket).keys()
    rules = rules_of(bucket, **{parameter: "90"})
    assert rules[f"expired-{kind}"] == {"Id": f"expired-{kind}", "Status": "Enabled", "ExpirationInDays": "90"}
    archived = rules_of(bucket, ArchiveDays="30", ArchiveStorageClass="GLACIER_IR")[f"archived-{kind}"]
    assert archived["Transitions"] == [{"StorageClass": "GLACIER_IR", "TransitionInDays": "30"}]


def values_of(parameter: str) -> list[int]:
    return [int(value) for value in translated()["Parameters"][parameter]["AllowedValues"]]


class Parameters(Stack):
    """The template's rules, without its resources."""

    def __init__(self, **given: int) -> None:
        self._template, self._pseudo = translated(), PSEUDO
        parameters = self._template["Parameters"].items()
        self._values = {name: str(given.get(name, facts.get("Default"))) for name, facts in parameters}
        self._values |= {name: [] for name, facts in parameters if facts["Type"] == "CommaDelimitedList"}


@pytest.mark.parametrize("parameter", ["SourceDays", "ResultDays"])
def test_objects_of_the_api_never_expire_before_their_jobs(parameter: str) -> None:
    jobs = (1, 2, 7, 8, 30, 31, 365)
    for days in values_of(parameter):
        accepted = [n for n in jobs if not Parameters(**{parameter: days, "ApiJobDays": n}).refusals()]
        assert accepted == [n for n in jobs if days == 0 or n <= min(days, 30)], days


@pytest.mark.parametrize("parameter", ["SourceDays", "ResultDays"])
def test_nothing_is_archived_when_it_expires(parameter: str) -> None:
    for archive in values_of("ArchiveDays"):
        for days in values_of(parameter):
            refusals = Parameters(**{parameter: days, "ArchiveDays": archive, "ApiJobDays": 1}).refusals()
            assert bool(refusals) == (0 < days <= archive), (archive, days)


def test_storage_classes_accept_their_objects_and_need_no_restoration() -> None:
    assert all(days == 0 or days >= 30 for days in values_of("ArchiveDays")), "minimum of STANDARD_IA"
    classes = translated()["Parameters"]["ArchiveStorageClass"]["AllowedValues"]
    assert not {"GLACIER", "DEEP_ARCHIVE"} & set(classes), "GetObject would fail"


def test_the_sweep_knows_how_long_it_can_tell_an_expired_outcome_from_a_missing_one() -> None:
    assert WITH_KEY["SweepFunction"]["Environment"]["Variables"]["RESULT_DAYS"] == PROTECTED["ResultDays"]
    kept = rules_of("ResultsBucket")["noncurrent-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"]
    assert timedelta(days=kept) == MARKERS_KEPT
