import json
from collections import Counter
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.commands.replay_dlq import print_letters
from client.dead_letters import DeadLetter, Queue, replay, replay_command
from client.errors import StackUnavailableError
from client.stack import Stack
from tests.conftest import ROOT
from tests.fakes.stack_in_memory import Buckets, Executions, stack, uploaded


class Queues:
    """SQS with a visibility timeout that never ends by itself."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[str]] = {}
        self.hidden: set[str] = set()
        self.deleted: set[str] = set()

    def put(self, queue: str, *bodies: str) -> None:
        self.bodies.setdefault(f"https://{queue}-dlq", []).extend(bodies)

    def receive_message(self, **request: Any) -> dict[str, Any]:
        there = [
            {
                "MessageId": f"m{number}",
                "ReceiptHandle": f"m{number}",
                "Body": body,
                "Attributes": {"ApproximateReceiveCount": "5"},
                "MessageAttributes": {"ERROR_CODE": {"StringValue": "NO_PERMISSIONS", "DataType": "String"}},
            }
            for number, body in enumerate(self.bodies.get(request["QueueUrl"], []))
        ]
        messages = [m for m in there if m["MessageId"] not in self.hidden | self.deleted]
        messages = messages[: min(4, request["MaxNumberOfMessages"])]
        self.hidden |= {str(message["MessageId"]) for message in messages}
        return {"Messages": messages} if messages else {}

    def delete_message(self, **request: Any) -> None:
        self.deleted.add(request["ReceiptHandle"])

    def change_message_visibility_batch(self, **request: Any) -> None:
        assert 1 <= len(request["Entries"]) <= 10
        self.hidden -= {entry["ReceiptHandle"] for entry in request["Entries"]}


class Functions:
    """Lambda."""

    def __init__(self, *, fails: bool = False) -> None:
        self.invoked: list[tuple[str, str]] = []
        self._answer: dict[str, Any] = {"Payload": BytesIO(b'"no"')} | ({"FunctionError": "Unhandled"} if fails else {})

    def invoke(self, **request: Any) -> dict[str, Any]:
        self.invoked.append((request["FunctionName"], request["Payload"]))
        return self._answer


class Cloud:
    def __init__(self, *, reconcile_fails: bool = False) -> None:
        self.queues, self.executions, self.buckets = Queues(), Executions(), Buckets()
        self.functions = Functions(fails=reconcile_fails)
        self.buckets.newest = {"a.jpg": "v1", "b.jpg": "v1"}

    @property
    def stack(self) -> Stack:
        return stack(self.executions, self.buckets, self.queues, self.functions)

    def replay(
        self, queue: str = "uploads", *, limit: int | None = None, dry_run: bool = False, purge: bool = False
    ) -> list[DeadLetter]:
        return list(replay(self.stack, Queue(queue), limit=limit, dry_run=dry_run, purge=purge))


def event(key: str, version: str = "v1", *, number: int = 0) -> str:
    return json.dumps({"id": number, **uploaded(key, version)})


def ended(status: str) -> str:
    detail = {"status": status, "input": json.dumps(uploaded("a.jpg", "v1"))}
    return json.dumps({"source": "aws.states", "detail": detail})


def job(execution_arn: str) -> str:
    execution = {"id": execution_arn, "name": "one", "started_at": ""}
    source = {"bucket": "uploads", "key": "a.jpg", "version_id": "v1", "etag": "e", "sha256": "s"}
    return json.dumps({"token": "t", "job": {"execution": execution, "source": source}})


def test_an_undelivered_upload_starts_its_execution() -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", event("a.jpg"))
    [letter] = cloud.replay()
    [started] = cloud.executions.known.values()
    assert started["input"] == event("a.jpg")
    assert (letter.status, letter.key, letter.error) == ("replayed", "a.jpg", "NO_PERMISSIONS")
    assert cloud.queues.deleted == {"m0"}


def test_an_interrupted_replay_can_be_repeated() -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", event("a.jpg"), event("b.jpg"))
    reading = replay(cloud.stack, Queue.UPLOADS, limit=None, dry_run=False, purge=False)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    cloud.queues.deleted.clear()  # the deletion is what was cut off
    cloud.queues.hidden.clear()
    [name] = [started["name"] for started in cloud.executions.known.values()]
    cloud.executions.end(name, "FAILED")
    cloud.replay()
    assert Counter(
        json.loads(started["input"])["detail"]["object"]["key"] for started in cloud.executions.known.values()
    ) == {
        "a.jpg": 1,
        "b.jpg": 1,
    }
    assert cloud.queues.deleted == {"m0", "m1"}


def test_a_message_stays_until_its_start_is_confirmed() -> None:
    class Refusing(Executions):
        def start_execution(self, **request: Any) -> dict[str, Any]:
            if '"a.jpg"' in request["input"]:
                raise ConnectionError
            return super().start_execution(**request)

    cloud = Cloud()
    cloud.executions = Refusing()
    cloud.queues.put("uploads", event("b.jpg"), event("a.jpg"))
    with pytest.raises(ConnectionError):
        cloud.replay()
    assert cloud.queues.deleted == {"m0"}


def test_two_uploads_of_one_key_are_both_replayed() -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", event("a.jpg", number=1), event("a.jpg", number=2), event("a.jpg", number=1))
    cloud.replay()
    assert len(cloud.executions.known) == 2 and len(cloud.queues.deleted) == 3


def test_obsolete_uploads_are_kept_unless_purged() -> None:
    cloud = Cloud()
    source = {"bucket": "uploads", "key": "a.jpg", "version_id": "v1"}
    sidecar = {"source": source, "execution": {"name": "winner"}}
    cloud.buckets.objects["results", "results/a.jpg.png.json"] = json.dumps(sidecar).encode()
    cloud.queues.put("uploads", event("a.jpg"), event("b.jpg", "v0"))
    letters = cloud.replay()
    assert [letter.reason for letter in letters] == [
        "the result exists, from winner",
        "the upload was replaced or deleted",
    ]
    assert {letter.status for letter in letters} == {"obsolete"} and not cloud.queues.deleted
    assert {letter.status for letter in cloud.replay(purge=True)} == {"deleted"}
    assert len(cloud.queues.deleted) == 2 and not cloud.executions.known


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["source", "detail", "job", "execution", "id", "key", "object", "bucket", "name"]),
                inner,
            )
        ),
    )
)
def test_messages_of_other_stacks_are_kept(body: Any) -> None:
    cloud = Cloud()
    for queue in ("uploads", "segmentation", "webhooks"):
        cloud.queues.put(queue, json.dumps(body), "{")
        assert {letter.status for letter in cloud.replay(queue, purge=True)} == {"kept"}
        cloud.queues.hidden.clear()
    assert not cloud.queues.deleted and not cloud.executions.known


def test_the_output_says_how_a_message_of_no_stack_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    cloud = Cloud()
    for body, said in (("not json", True), (event("a.jpg"), False)):
        cloud.queues.bodies.clear()
        cloud.queues.put("uploads", body)
        print_letters(cloud.replay(dry_run=True))
        assert ("#delete-a-kept-message" in capsys.readouterr().err) == said
        cloud.queues.hidden.clear()


@pytest.mark.parametrize("place", [("a.jpg", "v1", "elsewhere"), ("", "v1")], ids=["another bucket", "no key"])
def test_events_of_other_buckets_are_kept(place: tuple[str, ...]) -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", json.dumps(uploaded(*place)), event("a.jpg"))
    assert [letter.status for letter in cloud.replay()] == ["kept", "replayed"]


def test_a_dry_run_changes_nothing_and_hides_nothing() -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", *(event("a.jpg", number=number) for number in range(25)))
    assert [letter.status for letter in cloud.replay(dry_run=True, purge=True)] == ["replayable"] * 25
    assert not (cloud.executions.known or cloud.queues.deleted or cloud.queues.hidden)


def test_limit_is_the_maximum_number_of_messages() -> None:
    cloud = Cloud()
    cloud.queues.put("uploads", *(event("a.jpg", number=number) for number in range(9)))
    assert len(cloud.replay(limit=6, dry_run=True)) == 6


def test_messages_that_become_visible_again_hide_no_others() -> None:
    class Slow(Queues):
        """The visibility timeout of the first messages ends before the second read."""

        looks = 0

        def receive_message(self, **request: Any) -> dict[str, Any]:
            self.looks += 1
            if self.looks == 2:
                self.hidden.clear()
            return super().receive_message(**request)

    cloud = Cloud()
    cloud.queues = Slow()
    cloud.queues.put("uploads", *(event("a.jpg", number=number) for number in range(9)))
    letters = cloud.replay(dry_run=True)
    assert [letter.message_id for letter in letters] == [f"m{number}" for number in range(9)]


def test_messages_that_are_always_visible_are_read_once() -> None:
    class AlwaysVisible(Queues):
        def receive_message(self, **request: Any) -> dict[str, Any]:
            self.hidden.clear()
            return super().receive_message(**request)

    cloud = Cloud()
    cloud.queues = AlwaysVisible()
    cloud.queues.put("uploads", "no event", "none either")
    assert [letter.message_id for letter in cloud.replay()] == ["m0", "m1"]


def test_an_undelivered_end_of_an_execution_is_reconciled() -> None:
    cloud = Cloud()
    cloud.queues.put("reconcile", ended("ABORTED"))
    [letter] = cloud.replay("reconcile")
    assert cloud.functions.invoked == [("reconcile", ended("ABORTED"))]
    assert (letter.status, letter.key, cloud.queues.deleted) == ("replayed", "a.jpg", {"m0"})


@pytest.mark.parametrize("given", [None, "[", '["a.jpg"]', ["a.jpg"]])
def test_an_end_is_reconciled_whatever_the_input_was(given: Any) -> None:
    cloud = Cloud()
    cloud.queues.put("reconcile", json.dumps({"source": "aws.states", "detail": {"input": given}}))
    assert [(letter.status, letter.key) for letter in cloud.replay("reconcile")] == [("replayed", None)]


def test_an_end_that_cannot_be_reconciled_is_kept() -> None:
    cloud = Cloud(reconcile_fails=True)
    cloud.queues.put("reconcile", ended("ABORTED"))
    [letter] = cloud.replay("reconcile")
    assert (letter.status, letter.reason) == ("rejected", '"no"') and not cloud.queues.deleted


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        ({"status": "RUNNING"}, "kept", "one is running; without an answer it falls back to Lambda"),
        ({"status": "FAILED", "error": "E"}, "obsolete", "one failed with E: use pbr redrive"),
        ({"status": "TIMED_OUT"}, "obsolete", "one failed with TIMED_OUT: use pbr redrive"),
        (
            {"status": "SUCCEEDED", "output": json.dumps({"model": {"host": "lambda"}})},
            "obsolete",
            "one succeeded, segmented on lambda",
        ),
    ],
    ids=["running", "failed", "timed out", "succeeded"],
)
def test_jobs_have_the_outcome_of_their_execution(facts: dict[str, Any], status: str, reason: str) -> None:
    cloud = Cloud()
    cloud.queues.put("segmentation", job(cloud.executions.add("one", {}, **facts)))
    [letter] = cloud.replay("segmentation")
    assert (letter.status, letter.reason, letter.key) == (status, reason, "a.jpg")
    assert letter.error == "received 5 times" and not cloud.queues.deleted
    cloud.replay("segmentation", purge=True)
    assert cloud.queues.deleted == ({"m0"} if status == "obsolete" else set())


def test_a_job_without_an_execution_is_obsolete() -> None:
    cloud = Cloud()
    cloud.queues.put("segmentation", job("arn:aws:states:eu-west-1:123456789012:execution:pbr:one"))
    assert [letter.reason for letter in cloud.replay("segmentation")] == ["one does not exist any more"]


NOTICE = json.loads((ROOT / "events/webhook.json").read_text())
REFUSED = {"Error": "WebhookRefusedError", "Cause": '{"errorMessage": "The receiver answers with status 410"}'}


def test_each_webhook_message_is_delivered_once() -> None:
    cloud = Cloud()
    body = json.dumps({"notice": NOTICE, "failed": REFUSED})
    cloud.queues.put("webhooks", body, body)
    letters = cloud.replay("webhooks")
    assert {letter.status for letter in letters} == {"replayed"} and cloud.queues.deleted == {"m0", "m1"}
    assert "status 410" in letters[0].error and letters[0].key == NOTICE["execution"]["name"]
    cloud.queues.deleted.clear()
    cloud.queues.hidden.clear()
    cloud.replay("webhooks")
    started = list(cloud.executions.known)
    assert [arn.rpartition(":")[2] for arn in started] == ["replay-m0", "replay-m1"]
    assert {json.loads(one["input"])["outcome"] for one in cloud.executions.known.values()} == {"succeeded"}
    assert {arn.split(":")[6] for arn in started} == {"pbr-webhooks"}


def test_a_webhook_that_is_refused_again_is_a_new_message() -> None:
    class Refusing(Executions):
        """Deliveries that fail at once and put a new dead letter into the queue."""

        def start_execution(self, **request: Any) -> dict[str, Any]:
            assert len(cloud.queues.bodies["https://webhooks-dlq"]) < 9, "the replay does not end"
            cloud.queues.put("webhooks", body)
            return super().start_execution(**request)

    cloud, body = Cloud(), json.dumps({"notice": NOTICE, "failed": REFUSED})
    cloud.executions = Refusing()
    cloud.queues.put("webhooks", body, body)
    assert [letter.message_id for letter in cloud.replay("webhooks")] == ["m0", "m1"]
    assert [letter.message_id for letter in cloud.replay("webhooks", dry_run=True)] == ["m2", "m3"]


def test_a_webhook_that_timed_out_is_replayable() -> None:
    cloud = Cloud()
    cloud.queues.put("webhooks", json.dumps({"notice": NOTICE, "failed": {"Error": "States.Timeout"}}))
    assert [letter.status for letter in cloud.replay("webhooks", dry_run=True)] == ["replayable"]


def test_a_stack_without_the_queue_must_be_deployed_again() -> None:
    outputs = {"StateMachineArn": ""}
    bare = Stack(**{**vars(Cloud().stack), "outputs": outputs})
    with pytest.raises(StackUnavailableError, match="UploadsDeadLetterQueueUrl"):
        list(replay(bare, Queue.UPLOADS, limit=None, dry_run=False, purge=False))


def test_replay_command_names_the_queue_and_a_stack_on_aws() -> None:
    deployed = Cloud().stack
    assert replay_command(deployed, Queue.UPLOADS) == "pbr replay-dlq uploads --stack pbr --region eu-west-1"
    local = replace(deployed, endpoint_url="http://localhost:4566")
    assert replay_command(local, Queue.SEGMENTATION) == "pbr replay-dlq segmentation --purge"
