"""Data that Regions share: the global table of API keys, and replicas of results."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from functions.contracts.object_keys import failure_key, result_key, sidecar_key
from tests.conftest import ROOT
from tests.unit.template.test_data_protection import Parameters
from tests.unit.template.test_template import (
    PROTECTED,
    PSEUDO,
    REGION,
    REPLICATED,
    REPLICATED_WITH_KEY,
    Stack,
    leaves_of,
    translated,
)

REPLICA_TEMPLATE, KEYS_TEMPLATE = (ROOT / "infrastructure" / name for name in ("replica.yaml", "global-keys.yaml"))
KEY, REPLICA_KEY = PROTECTED["KmsKeyArn"], REPLICATED_WITH_KEY["ResultsReplicaKmsKeyArn"]
WITHOUT_KEY, WITH_KEY = Stack(REPLICATED), Stack({**PROTECTED, **REPLICATED_WITH_KEY})


def alone(path: Any, **given: str) -> Stack:
    """Return the stack of a template of its own, with its defaults."""
    parameters = {name: facts.get("Default") for name, facts in translated(path)["Parameters"].items()}
    return Stack({**parameters, **given}, path)


# ---- Replicas of results


def test_results_are_not_replicated_by_default() -> None:
    stack = Stack({})
    assert "ReplicationConfiguration" not in stack["ResultsBucket"]
    assert not {"ReplicationRole", "ReplicationPolicy", "ReplicaDeletionPolicy"} & stack.resources.keys()


def rule(stack: Stack) -> dict[str, Any]:
    [found] = stack["ResultsBucket"]["ReplicationConfiguration"]["Rules"]
    return dict(found)


def test_results_with_their_sidecars_are_replicated_and_failure_reports_are_not() -> None:
    prefix = rule(WITHOUT_KEY)["Filter"]["Prefix"]
    result = result_key("photos/cup.jpg", "png")
    assert all(key.startswith(prefix) for key in (result, sidecar_key(result)))
    assert not failure_key("photos/cup.jpg", "").startswith(prefix)
    assert rule(WITHOUT_KEY)["DeleteMarkerReplication"] == {"Status": "Enabled"}


def test_s3_replicates_objects_that_a_key_encrypts_if_the_rule_has_a_key_of_the_other_region() -> None:
    encrypted = rule(WITH_KEY)
    assert encrypted["SourceSelectionCriteria"] == {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
    assert encrypted["Destination"]["EncryptionConfiguration"] == {"ReplicaKmsKeyID": REPLICA_KEY}
    plain = rule(WITHOUT_KEY)
    assert "SourceSelectionCriteria" not in plain and "EncryptionConfiguration" not in plain["Destination"]


def test_a_replica_has_a_key_if_and_only_if_the_stack_has_one() -> None:
    for bucket, key, replica_key in product(*[(False, True)] * 3):
        given: Any = {
            "ResultsReplicaBucketArn": REPLICATED["ResultsReplicaBucketArn"] if bucket else "",
            "KmsKeyArn": KEY if key else "",
            "ResultsReplicaKmsKeyArn": REPLICA_KEY if replica_key else "",
        }
        assert bool(Parameters(**given).refusals()) == (replica_key != (bucket and key)), given


def granted(stack: Stack, *policies: str) -> Iterator[tuple[str, str]]:
    for name in policies:
        for statement in stack[name]["PolicyDocument"]["Statement"]:
            assert (statement["Effect"], statement.keys()) == ("Allow", {"Effect", "Action", "Resource"})
            yield from product(leaves_of(statement["Action"]), leaves_of(statement["Resource"]))


OF_KEYS = {("kms:Decrypt", KEY), ("kms:Encrypt", REPLICA_KEY)}


@pytest.mark.parametrize(("stack", "of_keys"), [(WITHOUT_KEY, set()), (WITH_KEY, OF_KEYS)], ids=["plain", "key"])
def test_s3_may_do_exactly_what_replication_needs(stack: Stack, of_keys: set[tuple[str, str]]) -> None:
    assert stack["ReplicationPolicy"]["Roles"] == ["<ReplicationRole>"]
    assert set(granted(stack, "ReplicationPolicy")) == of_keys | {
        *product(("s3:GetReplicationConfiguration", "s3:ListBucket"), ["<ResultsBucket>.Arn"]),
        *product(
            ("s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"),
            ["<ResultsBucket>.Arn/results/*"],
        ),
        *product(("s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"), ["arn:aws:s3:::replica/results/*"]),
    }


@pytest.mark.parametrize(
    ("stack", "of_keys"), [(WITHOUT_KEY, set()), (WITH_KEY, {("kms:Decrypt", REPLICA_KEY)})], ids=["plain", "key"]
)
def test_the_api_deletes_replicas_of_its_own_results_only(stack: Stack, of_keys: set[tuple[str, str]]) -> None:
    assert stack["ReplicaDeletionPolicy"]["Roles"] == ["<ApiFunctionRole>"]
    assert stack["ApiFunction"]["Environment"]["Variables"]["RESULTS_REPLICA_BUCKET"] == "replica"
    assert stack.outputs["ResultsReplicaBucket"]["Value"] == "replica"
    assert set(granted(stack, "ReplicaDeletionPolicy")) == of_keys | {
        ("s3:ListBucketVersions", "arn:aws:s3:::replica"),
        *product(("s3:GetObjectVersion", "s3:DeleteObjectVersion"), ["arn:aws:s3:::replica/results/api/*"]),
    }


def settings(bucket: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a bucket, without those of its Region and those for failure reports."""
    regional = {"LoggingConfiguration", "NotificationConfiguration", "ReplicationConfiguration"}
    found = {name: value for name, value in bucket.items() if name not in regional}
    rules = found["LifecycleConfiguration"]["Rules"]
    return found | {"LifecycleConfiguration": [one for one in rules if not one.get("Prefix", "").startswith("failed/")]}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ApiJobDays": "3", "ResultDays": "90", "ArchiveDays": "30", "ArchiveStorageClass": "GLACIER_IR"},
        {"KmsKeyArn": KEY, "CorsOrigins": "https://app.example.com"},
    ],
    ids=["defaults", "retention", "key"],
)
def test_a_replica_is_protected_and_expires_like_the_results(given: dict[str, str]) -> None:
    assert settings(alone(REPLICA_TEMPLATE, **given)["ReplicaBucket"]) == settings(Stack(given)["ResultsBucket"])


def test_parameters_of_the_replica_have_the_values_of_the_stack() -> None:
    of_stack = translated()["Parameters"]
    for name, facts in translated(REPLICA_TEMPLATE)["Parameters"].items():
        if name in of_stack:
            with_meaning = {**facts, "Description": of_stack[name]["Description"]}
            assert with_meaning == of_stack[name], name


def test_both_buckets_of_the_replica_require_tls_1_2_and_its_logs_have_one_source() -> None:
    stack = alone(REPLICA_TEMPLATE)
    for name in ("ReplicaBucket", "ReplicaLogsBucket"):
        denied = {
            (str(one["Condition"]), tuple(one["Resource"]))
            for one in stack[f"{name}Policy"]["PolicyDocument"]["Statement"]
            if (one["Effect"], one["Principal"], one["Action"]) == ("Deny", "*", "s3:*")
        }
        everything = (f"<{name}>.Arn", f"<{name}>.Arn/*")
        conditions = {"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": "1.2"}}
        assert denied == {(str(one), everything) for one in conditions}
    assert stack["ReplicaBucket"]["LoggingConfiguration"] == {
        "DestinationBucketName": "<ReplicaLogsBucket>",
        "LogFilePrefix": "replica/",
    }
    [delivery, *_] = stack["ReplicaLogsBucketPolicy"]["PolicyDocument"]["Statement"]
    assert delivery["Resource"] == "<ReplicaLogsBucket>.Arn/replica/*"
    assert delivery["Condition"]["ArnEquals"] == {"aws:SourceArn": "<ReplicaBucket>.Arn"}


def test_only_the_named_distribution_may_read_replicas() -> None:
    def readers(**given: str) -> list[dict[str, Any]]:
        statements = alone(REPLICA_TEMPLATE, **given)["ReplicaBucketPolicy"]["PolicyDocument"]["Statement"]
        return [one for one in statements if one["Effect"] == "Allow"]

    assert readers() == []
    [reader] = readers(EdgeDistributionId="E2EXAMPLE")
    assert reader["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    assert reader["Resource"] == "<ReplicaBucket>.Arn/results/*"
    arn = f"arn:aws:cloudfront::{PSEUDO['AWS::AccountId']}:distribution/E2EXAMPLE"
    assert reader["Condition"] == {"StringEquals": {"aws:SourceArn": arn}}


# ---- API keys


def test_the_stack_uses_its_own_table_of_keys_or_the_named_one() -> None:
    named = f"arn:aws:dynamodb:{REGION}:123456789012:table/global-keys"
    for stack, table, arn in ((Stack({}), "<ApiKeysTable>", "<ApiKeysTable>.Arn"), (WITHOUT_KEY, "global-keys", named)):
        assert stack["ApiFunction"]["Environment"]["Variables"]["KEYS_TABLE"] == table
        assert stack.outputs["ApiKeysTable"]["Value"] == table
        statements = stack["ApiFunctionRole"]["Policies"][0]["PolicyDocument"]["Statement"]
        allowed = {
            action for one in statements if arn in leaves_of(one["Resource"]) for action in leaves_of(one["Action"])
        }
        assert allowed == {"dynamodb:GetItem", "dynamodb:DescribeTable"}
        assert "ApiKeysTable" in stack.resources, "its keys are kept"


def replicas(**given: str) -> list[dict[str, Any]]:
    return list(alone(KEYS_TEMPLATE, Region2="us-west-2", **given)["Keys"]["Replicas"])


def test_the_global_table_has_the_schema_of_the_stacks_own() -> None:
    own, shared = Stack({})["ApiKeysTable"], alone(KEYS_TEMPLATE, Region2="us-west-2")["Keys"]
    for name in ("AttributeDefinitions", "KeySchema", "BillingMode"):
        assert shared[name] == own[name]
    assert shared["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}, "required for several Regions"


def test_every_region_of_the_global_table_is_protected() -> None:
    found = replicas(Region3="eu-central-1", Region4="ap-southeast-1")
    assert [one["Region"] for one in found] == [REGION, "us-west-2", "eu-central-1", "ap-southeast-1"]
    for one in found:
        assert one["DeletionProtectionEnabled"] is True
        assert one["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert [one["Region"] for one in replicas()] == [REGION, "us-west-2"]


def test_the_global_table_has_a_key_of_each_region_or_none() -> None:
    names = ("KmsKeyArn", "KmsKeyArn2", "KmsKeyArn3", "KmsKeyArn4")
    regions = {"Region2": "us-west-2", "Region3": "eu-central-1", "Region4": "ap-southeast-1"}
    keys = {name: f"arn:aws:kms:{name}" for name in names}
    found = alone(KEYS_TEMPLATE, **regions, **keys)
    assert [one["SSESpecification"]["KMSMasterKeyId"] for one in found["Keys"]["Replicas"]] == [*keys.values()]
    for missing in names:
        assert alone(KEYS_TEMPLATE, **regions, **{**keys, missing: ""}).refusals(), missing
    assert alone(KEYS_TEMPLATE, **regions).refusals() == found.refusals() == []
