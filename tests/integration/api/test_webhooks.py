"""Webhooks of the deployed stack."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from client.dead_letters import Queue, replay
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.webhook_signature import signing_secret
from tests.conftest import client, disc
from tests.fakes.fake_web import Request, Web, page
from tests.integration.deployment import Deployed, until
from tests.integration.state_machine.test_reconcile import fail_unseen, reconcile

CALLER = "k1"
ACCEPTED = page(status=204)


@pytest.fixture(scope="module")
def deployed(cloud: EmbeddedCloud) -> Deployed:
    return Deployed(cloud)


@pytest.fixture
def receiver() -> Iterator[Web]:
    with Web() as web:
        web.pages["127.0.0.1/hook"] = ACCEPTED
        yield web


@pytest.fixture(scope="module")
def secret(deployed: Deployed) -> str:
    """The caller's signing secret."""
    secrets = client("secretsmanager", deployed.cloud.endpoint_url, deployed.cloud.region)
    return signing_secret(
        secrets.get_secret_value(SecretId=deployed.outputs["WebhookSecretArn"])["SecretString"], CALLER
    )


def start_job(deployed: Deployed, receiver: Web, data: bytes, suffix: str = "") -> str:
    """Start a job as the API does, with a suffix to its name, and return its execution's ARN."""
    job_id = f"{uuid.uuid4()}{suffix}"
    key = f"api/{CALLER}/{job_id}/cup.png"
    source = {
        "bucket": deployed.outputs["UploadsBucket"],
        "key": key,
        "version_id": deployed.upload(key, data),
    }
    webhook = {"url": f"http://127.0.0.1:{receiver.port}/hook", "key_id": CALLER}
    return deployed.sfn.start_execution(
        stateMachineArn=deployed.outputs["StateMachineArn"],
        name=job_id,
        input=json.dumps({"source": source, "options": {"precision_level": "draft"}, "webhook": webhook}),
    )["executionArn"]


def delivery(deployed: Deployed, job: str, outcome: str) -> str:
    """Return the ARN of the execution that delivers a job's webhook."""
    return delivery_arn(deployed, f"{hashlib.sha256(job.encode()).hexdigest()}-{outcome}")


def delivery_arn(deployed: Deployed, name: str) -> str:
    return f"{deployed.outputs['WebhookMachineArn'].replace(':stateMachine:', ':execution:')}:{name}"


def receive(receiver: Web, secret: str) -> dict[str, Any]:
    """Wait for exactly one message, and return it verified."""
    [request] = until(lambda: receiver.requests)
    return read(request, secret)


def read(request: Request, secret: str) -> dict[str, Any]:
    message: dict[str, Any] = Webhook(secret).verify(request.body, dict(request.headers))
    assert message["id"] == request.headers["webhook-id"]
    return message


LONGEST_SUFFIX = "-é".ljust(80 - 36, "x")
"""Makes a UUID a name of 80 characters, the longest of an execution."""


@pytest.mark.parametrize("suffix", ["", LONGEST_SUFFIX], ids=["UUID", "80 characters"])
def test_success_is_delivered_with_a_result_url(deployed: Deployed, receiver: Web, secret: str, suffix: str) -> None:
    ended = deployed.wait(start_job(deployed, receiver, disc(seed=900), suffix))
    assert ended.states[-5:] == ["Outcome?", "PrepareResultWebhook", "StartWebhook", "WebhookDelivered?", "Done"], (
        ended.cause
    )
    message = receive(receiver, secret)
    name = ended.output["execution"]["name"]
    assert (message["type"], message["job_id"], message["data"]) == ("job.succeeded", name, ended.output)
    assert httpx.get(message["result_url"]).content == deployed.result(ended.output["result"]["key"])
    delivered = deployed.wait(delivery(deployed, name, "succeeded"))
    assert (delivered.status, delivered.output) == ("SUCCEEDED", {"status": 204})


@pytest.mark.slow
def test_failure_is_delivered_with_its_remedy(deployed: Deployed, receiver: Web, secret: str) -> None:
    ended = deployed.wait(start_job(deployed, receiver, b"not an image"))
    assert (ended.status, ended.error) == ("FAILED", "UnsupportedFormatError")
    message = receive(receiver, secret)
    assert message["type"] == "job.failed" and "result_url" not in message
    assert (message["data"]["stage"], message["data"]["error"]) == ("Validate", "UnsupportedFormatError")
    assert message["data"]["message"] and message["data"]["remedy"]


def test_stopped_job_is_delivered_once_by_reconcile(deployed: Deployed, receiver: Web, secret: str) -> None:
    execution_arn = start_job(deployed, receiver, disc(seed=901), LONGEST_SUFFIX)
    deployed.sfn.stop_execution(executionArn=execution_arn, error="Mistake", cause="the wrong image")
    message = receive(receiver, secret)
    assert (message["type"], message["data"]["error"]) == ("job.failed", "ExecutionAborted")
    described = deployed.sfn.describe_execution(executionArn=execution_arn)
    deployed.wait(delivery(deployed, described["name"], "failed"))
    assert reconcile(deployed, execution_arn, name=described["name"], input=described["input"])["status"] == "ABORTED"
    assert len(receiver.requests) == 1


@pytest.mark.slow
def test_job_stopped_after_its_result_is_delivered_as_success(deployed: Deployed, receiver: Web, secret: str) -> None:
    ended = deployed.wait(start_job(deployed, receiver, disc(seed=904)))
    state = {"cache_key": "none", "source": ended.output["source"], "done": {"document": ended.output}}
    execution_arn = fail_unseen(deployed, state)
    webhook = {"url": f"http://127.0.0.1:{receiver.port}/hook", "key_id": CALLER}
    name = execution_arn.rpartition(":")[2]
    reconcile(deployed, execution_arn, name=name, input=json.dumps({"webhook": webhook}))
    assert deployed.wait(delivery(deployed, name, "succeeded")).output == {"status": 204}
    first, second = (read(request, secret) for request in receiver.requests)
    assert (first["data"], first["type"]) == (second["data"], second["type"]) and first["job_id"] != second["job_id"]


def test_unavailable_receiver_gets_the_same_message_again(deployed: Deployed, receiver: Web, secret: str) -> None:
    receiver.pages["127.0.0.1/hook"] = page(status=503)
    ended = deployed.wait(start_job(deployed, receiver, disc(seed=902)))
    assert ended.status == "SUCCEEDED", "the job does not wait for its webhook"
    until(lambda: len(receiver.requests) >= 2)
    receiver.pages["127.0.0.1/hook"] = ACCEPTED
    delivered = deployed.wait(delivery(deployed, ended.output["execution"]["name"], "succeeded"))
    assert delivered.output == {"status": 204}
    assert len({read(request, secret)["id"] for request in receiver.requests}) == 1


@pytest.mark.slow
def test_rejected_webhook_is_a_dead_letter_and_can_be_redelivered(
    stack: Stack, deployed: Deployed, receiver: Web, secret: str
) -> None:
    receiver.pages["127.0.0.1/hook"] = page(status=410)
    ended = deployed.wait(start_job(deployed, receiver, disc(seed=903)))
    name = ended.output["execution"]["name"]
    refused = deployed.wait(delivery(deployed, name, "succeeded"))
    assert (refused.status, refused.error) == ("FAILED", "WebhookRefusedError")
    assert refused.states == ["Deliver", "DeadLetter", "Undelivered"] and len(receiver.requests) == 1
    receiver.pages["127.0.0.1/hook"] = ACCEPTED
    [letter] = replay(stack, Queue.WEBHOOKS, limit=None, dry_run=False, purge=False)
    assert (letter.status, letter.key) == ("replayed", name) and "410" in letter.error
    assert deployed.wait(delivery_arn(deployed, f"replay-{letter.message_id}")).output == {"status": 204}
    first, second = (read(request, secret) for request in receiver.requests)
    assert first["id"] == second["id"] and first["data"] == second["data"]
    assert stack.messages("WebhooksDeadLetterQueueUrl") == (0, 0)
