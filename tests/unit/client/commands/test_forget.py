"""``pbr forget`` with a stack in moto."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import typer
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws
from typer.testing import CliRunner, Result

from client.cli import app
from client.commands.forget import forget
from tests.fakes.api_in_memory import ENVIRONMENT

TABLES = {"CacheTable": "cache_key", "ReviewsTable": "review_id", "ApiJobsTable": "job_id"}
HELD = "photos/held.jpg"
PLACE = "the stack pbr (account 123456789012, eu-west-1)"


class Account:
    """An account with a stack that has objects, tables and state machines, and the client of S3."""

    def __init__(self) -> None:
        self.s3, self.stepfunctions = boto3.client("s3"), boto3.client("stepfunctions")
        where: Any = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
        for bucket in ("uploads", "results", "work"):
            self.s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bucket == "uploads", **where)
        for name, key in TABLES.items():
            boto3.client("dynamodb").create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            )
        self.main, self.bulk = (
            self.stepfunctions.create_state_machine(
                name=name, definition="{}", roleArn="arn:aws:iam::123456789012:role/pbr"
            )["stateMachineArn"]
            for name in ("pbr", "pbr-bulk")
        )
        outputs = {
            **{"UploadsBucket": "uploads", "ResultsBucket": "results", "WorkBucket": "work", "QueueUrl": "none"},
            **{name: name for name in TABLES},
            **{"StateMachineArn": self.main, "StateMachineAlias": f"{self.main}:live", "BulkMachineArn": self.bulk},
        }
        template = {
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        boto3.client("cloudformation").create_stack(StackName="pbr", TemplateBody=json.dumps(template))

    def upload(self, *keys: str, **settings: Any) -> None:
        for key in keys:
            self.s3.put_object(Bucket="uploads", Key=key, Body=b"12345", **settings)

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_object_versions(Bucket="uploads").get("Versions", [])]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Account()


def pbr(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["forget", *arguments, "--stack", "pbr"], input=answer)


def test_a_dry_run_deletes_nothing_and_a_second_run_finds_nothing(account: Account) -> None:
    account.upload("photos/a.jpg", "photos/a.jpg")
    shown = pbr("photos/a.jpg", "--dry-run")
    assert (shown.exit_code, shown.stderr, len(account.keys())) == (0, "", 2)
    assert shown.stdout.startswith(f"In {PLACE}:\n")
    assert shown.stdout.splitlines()[2].split() == ["photos/a.jpg", "2", "0", "0", "0", "0", "0", "10", "bytes"]
    done = pbr("photos/a.jpg", "--yes")
    assert (done.exit_code, account.keys()) == (0, [])
    assert f"Deleted 2 objects (10 bytes) of 1 source in {PLACE}. " in done.stderr
    again = pbr("photos/a.jpg", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")


def test_a_key_and_a_folder_without_data_are_named(account: Account) -> None:
    account.upload("photos/a.jpg")
    done = pbr("photos/a.jpg", "photos/typo.jpg", "--prefix", "photos/", "--prefix", "tenants/typo/", "--yes")
    assert (done.exit_code, account.keys()) == (0, [])
    assert f"warning: Nothing is stored of photos/typo.jpg, tenants/typo/ in {PLACE}. Check" in done.stderr


def test_the_confirmation_names_the_stack(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.upload("photos/a.jpg")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    asked: list[str] = []

    def refuse(question: str, **_: Any) -> None:
        asked.append(question)
        raise typer.Abort

    monkeypatch.setattr(typer, "confirm", refuse)
    with pytest.raises(typer.Abort):
        forget(["photos/a.jpg"], stack="pbr")
    assert (asked, account.keys()) == (
        [f"Delete 1 object (5 bytes) of 1 source in {PLACE} permanently?"],
        ["photos/a.jpg"],
    )


def test_an_upload_during_the_deletion_is_reported(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(client: BaseClient, operation: str, request: Any) -> Any:
        response = call_aws(client, operation, request)
        if operation == "DeleteObjects":
            account.upload("photos/a.jpg", "photos/new.jpg")
        return response

    call_aws = BaseClient._make_api_call  # type: ignore[attr-defined]
    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    account.upload("photos/a.jpg")
    done = pbr("--prefix", "photos/", "--yes", "--json")
    assert (done.exit_code, account.keys()) == (1, ["photos/a.jpg", "photos/new.jpg"])
    assert [(one["source"], one["deleted"]) for one in json.loads(done.stdout)] == [
        ("photos/a.jpg", False),
        ("photos/new.jpg", False),
    ]
    assert "photos/new.jpg is not deleted completely: An upload or an execution stored data" in done.stderr


def test_a_cut_out_that_another_source_computes_is_reported(account: Account) -> None:
    arn = account.stepfunctions.start_execution(
        stateMachineArn=account.main, input=json.dumps({"source": {"bucket": "uploads", "key": "photos/other.jpg"}})
    )["executionArn"]
    document = {"source": {"bucket": "uploads", "key": "photos/a.jpg"}, "cache": {"key": "c1"}}
    entry = {"cache_key": "c1", "status": "IN_PROGRESS", "owner": arn, "document": json.dumps(document)}
    item = {name: {"S": value} for name, value in entry.items()}
    boto3.client("dynamodb").put_item(TableName="CacheTable", Item=item)
    done = pbr("photos/a.jpg", "--yes")
    assert (done.exit_code, "with the same content computes the cut-out" in done.stderr) == (1, True)


def test_a_sidecar_that_cannot_be_read_does_not_stop_the_others(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(client: BaseClient, operation: str, request: Any) -> Any:
        if operation == "GetObject":
            raise ClientError(
                {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, operation
            )
        return call_aws(client, operation, request)

    call_aws = BaseClient._make_api_call  # type: ignore[attr-defined]
    account.s3.put_object(Bucket="results", Key="results/photos/b.jpg.png.json", Body=b"{}")
    account.upload("photos/a.jpg", "photos/b.jpg")
    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    shown = pbr("--prefix", "photos/", "--dry-run")
    assert (shown.exit_code, len(account.keys())) == (1, 2)
    assert "photos/b.jpg cannot be deleted completely: S3 denied access" in shown.stderr
    done = pbr("--prefix", "photos/", "--yes")
    assert (done.exit_code, account.keys()) == (1, ["photos/b.jpg"])
    assert "photos/b.jpg is not deleted completely: S3 denied access" in done.stderr


def test_without_a_terminal_the_deletion_needs_yes(account: Account) -> None:
    account.upload("photos/a.jpg")
    refused = pbr("photos/a.jpg", answer="y\n")
    assert (refused.exit_code, account.keys()) == (2, ["photos/a.jpg"])
    assert "--yes" in refused.stderr


def test_a_folder_is_summarized_and_listed_as_json(account: Account) -> None:
    account.upload(*(f"tenants/acme/{number:02}.jpg" for number in range(21)), "tenants/acme2/a.jpg")
    assert pbr("--prefix", "tenants/acme/", "--dry-run").stdout.endswith(
        "and 1 more source; --json lists all of them.\n"
    )
    listed = json.loads(pbr("--prefix", "tenants/acme/", "--yes", "--json").stdout)
    assert [(one["source"], one["versions"], one["deleted"]) for one in listed][-1] == ("tenants/acme/20.jpg", 1, True)
    assert account.keys() == ["tenants/acme2/a.jpg"]


def test_an_object_that_cannot_be_deleted_is_named_and_does_not_stop_the_others(account: Account) -> None:
    account.upload("photos/a.jpg")
    account.upload(HELD, ObjectLockLegalHoldStatus="ON")
    done = pbr("photos/a.jpg", HELD, "--yes")
    assert (done.exit_code, account.keys()) == (1, [HELD])
    assert f"{HELD} is not deleted completely: S3 denied access: AccessDenied" in done.stderr
    assert "s3:DeleteObjectVersion" in done.stderr and "of 1 source in" in done.stderr
    [_, failed] = json.loads(pbr("photos/a.jpg", HELD, "--yes", "--json").stdout)
    assert (failed["deleted"], failed["error"][:16]) == (False, "S3 denied access")


@pytest.mark.parametrize("kind", ["main", "bulk"])
def test_what_may_be_written_after_the_deletion_is_reported(account: Account, kind: str) -> None:
    account.upload("photos/a.jpg")
    source = {"source": {"bucket": "uploads", "key": "photos/a.jpg"}}
    machine = {"main": account.main, "bulk": account.bulk}[kind]
    arn = account.stepfunctions.start_execution(stateMachineArn=machine, input=json.dumps(source))["executionArn"]
    done = pbr("photos/a.jpg", "--yes")
    assert (done.exit_code, account.keys()) == (1, [])
    assert {"main": "were stopped", "bulk": "1 bulk run is running"}[kind] in done.stderr
    account.stepfunctions.stop_execution(executionArn=arn)
    assert pbr("photos/a.jpg", "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Example: pbr forget photos/cup.jpg"),
        (["photos/"], "Pass --prefix photos/"),
        ([""], "1 to 1,024 bytes"),
        (["x" * 1025], "1 to 1,024 bytes"),
        (["--prefix", "tenants/acme"], "does not match tenants/acme2/"),
        (["--prefix", ""], "It must end with /"),
        (["--prefix", "/"], "It must not start with /"),
        (["--prefix", "/x/"], "It must not start with /"),
        (["--prefix", "api/"], "Pass the folder of one, api/<caller>/"),
        (["--prefix", "web/"], "Pass the folder of one, web/<user>/"),
        (["--prefix", "backgrounds/"], "Pass a folder in it"),
        (["--prefix", "backgrounds/api/"], "Pass the folder of one, api/<caller>/"),
        (["--prefix", "s3/"], "Pass the folder of one, e.g. s3/photos-2024/"),
    ],
)
def test_what_would_delete_too_much_or_nothing_is_rejected(arguments: list[str], says: str) -> None:
    refused = pbr(*arguments)
    assert refused.exit_code == 2
    assert says in refused.stderr
