import json
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from client.executions.details import conceal, load
from tests.fakes.stack_in_memory import NOW, Buckets, Executions, History, stack, uploaded

KEY = "web/1f3a/secret.png"
SOURCE = {"bucket": "uploads", "key": KEY, "version_id": "1", "format": "png", "bytes": 9, "width": 3, "height": 2}
JOB = {"execution": {"name": "a"}, "keys": {"mask": "work/secret"}, "source": SOURCE}


def test_what_only_the_owner_may_see_is_removed() -> None:
    executions = Executions()
    cause = json.dumps({"message": f"{KEY} is damaged", "remedy": f"save {KEY} again", "field": "key", "value": KEY})
    facts = {"error": "CorruptImageError", "message": f"{KEY} is damaged", "field": "key", "value": KEY, "remedy": KEY}
    failure = {"facts": {"stage": "Validate", **facts}, "report_key": f"failures/{KEY}"}
    history = History().enter("Validate", data=JOB).attempt().fail("CorruptImageError", cause)
    history.exit("Validate", data=JOB).enter("Failed", "Fail", {**JOB, "failure": failure}).add("ExecutionFailed")
    ended = {"status": "FAILED", "error": "CorruptImageError", "stopDate": NOW + timedelta(seconds=2)}
    arn = executions.add("a", uploaded(KEY, "1"), **ended)
    executions.histories[arn] = [history.events]
    found = load(stack(executions), executions.known[arn])
    assert found.summary.source_key == KEY and found.failure and found.failure.value == KEY

    concealed = conceal(found)
    assert "secret" in str(asdict(found)) and "secret" not in str(asdict(concealed))
    assert concealed.concealed and (concealed.summary.status, concealed.summary.seconds) == ("FAILED", 2)
    assert concealed.failure and (concealed.failure.stage, concealed.failure.error) == ("Validate", "CorruptImageError")
    assert concealed.steps[0].errors == ["CorruptImageError"]
    assert [event.type for event in concealed.events] == [event.type for event in found.events]
    assert concealed.cost == found.cost


def test_an_update_reads_neither_the_definition_nor_pictures_that_exist_again() -> None:
    executions, buckets = Executions(), Heads()
    arn = executions.add("a", uploaded("cup.png", "1"))
    executions.histories[arn] = [History().enter("Validate").events]
    buckets.newest["cup.png"] = "1"
    deployed = stack(executions, buckets)
    found = load(deployed, executions.known[arn])
    again = load(deployed, executions.known[arn], found)
    assert again == found
    assert (buckets.heads, executions.calls) == (1, [("definition", "a")])
    del buckets.newest["cup.png"]
    assert load(deployed, executions.known[arn]).missing == set(found.pictures)


class Heads(Buckets):
    """S3, which counts calls of HeadObject."""

    heads = 0

    def head_object(self, **request: Any) -> dict[str, Any]:
        self.heads += 1
        return super().head_object(**request)
