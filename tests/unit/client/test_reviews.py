import csv
import io
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client.bulk.source import Source
from client.errors import ReviewConflictError, UsageError
from client.reviews import Filter, Review, Reviews, to_csv, to_manifest
from client.stack import Stack
from core.errors import InvalidOptionsError
from core.options import Options
from functions.contracts import review as contract
from functions.runtime.reviews import Reviews as Pipeline
from tests.conftest import ROOT
from tests.fakes.reviews_in_memory import TABLE, ReviewsTable
from tests.fakes.stack_in_memory import Executions, stack

STATE = json.loads((ROOT / "events/metrics.json").read_text())["state"]


def result(
    cut_out: str = "c1", score: float = 0.4, key: str = "photos/cup.png", bucket: str = "uploads", **facts: Any
) -> dict[str, Any]:
    """A doubtful result."""
    made: dict[str, Any] = json.loads(json.dumps({**STATE["done"]["document"], "options": STATE["options"]}))
    made["execution"] = STATE["execution"]
    made["result"] = {"bucket": "results", "key": f"results/{key}.png", "version_id": "v1"}
    made["image"] = {"width": 600, "height": 400}
    made["quality"] |= {"score": score, "review": True, "reasons": facts.pop("reasons", ["similar_colors"])}
    made["cache"] = {"key": cut_out, "hit": facts.pop("hit", False)}
    made["source"] |= {"bucket": bucket, "key": key}
    made["model"]["name"] = made["options"]["model"] = facts.pop("model", "u2netp")
    made["options"] |= facts
    return made


class Account:
    """A stack with the table of reviews, and the pipeline that writes to it."""

    def __init__(self, dynamodb: Any) -> None:
        self.executions = Executions()
        self.stack: Stack = stack(executions=self.executions, dynamodb=dynamodb)
        self.stack.outputs["ReviewsTable"] = TABLE
        self.pipeline = Pipeline(TABLE, dynamodb)
        self.reviews = Reviews(self.stack)

    def open(self, **facts: Any) -> Review:
        made = result(**facts)
        self.pipeline.open(made)
        folder = contract.folder_of(made["source"]["key"])
        found = Reviews(self.stack, folder).get(contract.review_id(made["cache"]["key"], folder))
        assert found
        return found

    def scores(self, state: Any = "open", filters: Filter | None = None) -> list[float]:
        return [review.score for review in self.reviews.page(state, filters).reviews]


@pytest.fixture
def account(table: ReviewsTable) -> Account:
    table.clear()
    return Account(table.client)


def test_open_reviews_are_listed_the_worst_first_page_by_page(account: Account) -> None:
    for number, score in enumerate((0.5, 0.05, 0.5, 0.31)):
        account.open(cut_out=f"c{number}", score=score)
    first = account.reviews.page("open", limit=3)
    assert [review.score for review in first.reviews] == [0.05, 0.31, 0.5]
    rest = account.reviews.page("open", after=first.after, limit=3)
    assert [review.score for review in rest.reviews] == [0.5] and rest.after is None
    assert {review.id for review in (*first.reviews, *rest.reviews)} == {"c0", "c1", "c2", "c3"}
    assert account.reviews.count("open") == 4


def test_reviews_are_filtered_by_model_reason_and_prefix(account: Account) -> None:
    account.open(cut_out="c1", score=0.1, key="shoes/a.jpg", model="classical", reasons=["fragmented", "tiny_subject"])
    account.open(cut_out="c2", score=0.2, key="shoes/b.jpg")
    account.open(cut_out="c3", score=0.3, key="hats/c.jpg", model="classical")
    assert account.scores(filters=Filter(model="classical")) == [0.1, 0.3]
    assert account.scores(filters=Filter(reason="tiny_subject")) == [0.1]
    assert account.scores(filters=Filter(prefix="shoes/", model="u2netp")) == [0.2]
    assert account.reviews.count("open", Filter(prefix="shoes/")) == 2


def test_a_rare_filter_ends_a_page_early_and_continues(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.reviews._SCANNED", 2)
    monkeypatch.setattr("client.reviews._SCAN_SIZE", 2)
    for number in range(5):
        account.open(cut_out=f"c{number}", score=0.1 * number, model="classical" if number == 4 else "u2netp")
    rare = Filter(model="classical")
    page = account.reviews.page("open", rare)
    assert not page.reviews and page.after
    assert [review.score for review in account.reviews.all("open", rare)] == [0.4]


def test_a_decision_closes_a_review_with_who_and_when(account: Account) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    decided = account.reviews.decide(account.open(), "accept", "jo@example.com")
    assert account.scores() == []
    [found] = account.reviews.page("decided").reviews
    assert found == decided and found.decision
    assert (found.decision.verdict, found.decision.by) == ("accept", "jo@example.com")
    assert before < datetime.fromisoformat(found.decision.at) < datetime.now(UTC)


def test_the_second_of_two_decisions_fails_and_names_the_first(account: Account) -> None:
    seen = account.open()
    account.reviews.decide(seen, "reject", "jo")
    with pytest.raises(ReviewConflictError, match="jo has rejected this cut-out at 20"):
        account.reviews.decide(seen, "accept", "kim")
    [found] = account.reviews.page("decided").reviews
    assert found.decision and found.decision.by == "jo"


def test_a_decision_about_a_review_that_was_opened_again_since_fails(account: Account) -> None:
    seen = account.open()
    account.reviews.undo(account.reviews.decide(seen, "reject", "jo"))
    with pytest.raises(ReviewConflictError, match="changed at the same time"):
        account.reviews.decide(seen, "accept", "kim")


def test_an_undone_decision_can_be_made_again(account: Account) -> None:
    account.open(cut_out="c0", score=0.1)
    opened = account.reviews.undo(account.reviews.decide(account.open(score=0.7), "reject", "jo"))
    assert opened.decision is None and account.scores() == [0.1, 0.7]
    account.reviews.decide(opened, "accept", "jo")
    assert account.scores() == [0.1]


def test_the_same_cut_out_from_the_cache_opens_no_second_review(account: Account) -> None:
    account.reviews.decide(account.open(), "accept", "jo")
    again = account.open(key="photos/copy.png", hit=True)
    assert again.state == "decided" and account.scores() == []
    assert again.sources == (("uploads", "photos/copy.png"), ("uploads", "photos/cup.png"))


def test_a_review_has_at_most_100_sources(account: Account) -> None:
    others = [("uploads", f"{number}.png") for number in range(contract.MAX_NAMES - 1)]
    made = contract.opening(result(), datetime.now(UTC), others=others)
    account.stack.dynamodb.update_item(TableName=TABLE, **made)
    for key in ("5.png", "new.png"):
        assert len(account.open(key=key).sources) == contract.MAX_NAMES


@pytest.mark.parametrize("key", ["api/caller/job/a.png", "photos/fine.png"])
def test_results_of_api_callers_and_good_results_open_no_review(account: Account, key: str) -> None:
    made = result(key=key)
    made["quality"]["review"] = key.startswith("api/")
    account.pipeline.open(made)
    assert account.reviews.count("open") == 0


def test_uploads_of_the_web_page_are_reviewed_by_their_owner_only(account: Account) -> None:
    own = account.open(key="web/jo/a.png", score=0.2)
    account.open(key="photos/a.png", score=0.1)  # the same cut-out
    owner, other = Reviews(account.stack, "web/jo/"), Reviews(account.stack, "web/kim/")
    assert [review.key for review in owner.page("open").reviews] == ["photos/a.png", "web/jo/a.png"]
    for person in (other, account.reviews):
        assert [review.key for review in person.page("open").reviews] == ["photos/a.png"]
        assert person.count("open") == 1 and person.get(own.id) is None
    owner.decide(own, "reject", "jo")
    assert [review.key for review in account.reviews.page("decided").reviews] == []
    assert [review.key for review in owner.page("decided").reviews] == ["web/jo/a.png"]


# ---- Retries


def retried(account: Account, **changes: Any) -> tuple[Review, str]:
    review = account.reviews.retry(account.open(), changes or {"model": "u2net"}, "jo")
    [(_, name)] = account.executions.calls[-1:]
    return review, name


def test_a_retry_starts_an_execution_with_the_options_of_the_cut_out_and_the_changed_ones(account: Account) -> None:
    review = account.open(format="webp", crop=True)
    account.reviews.retry(review, {"model": "u2net", "precision_level": "ultra_high"}, "jo")
    [found] = account.executions.known.values()
    given = json.loads(found["input"])
    assert given["source"] == {"bucket": "uploads", "key": "photos/cup.png"}
    options = Options.parse(given["options"])
    assert (options.model, options.precision_level, options.format, options.crop) == ("u2net", "ultra_high", "webp", 1)
    assert account.scores("retrying") == [0.4] and account.scores() == []


def test_a_retry_starts_the_shown_upload_first_and_the_others_at_the_same_time(account: Account) -> None:
    account.open()
    for copy in "abc":
        review = account.open(key=f"photos/{copy}.png", hit=True)
    others = threading.Barrier(3, timeout=10)
    start = account.executions.start_execution
    started: list[str] = []

    def start_execution(**request: Any) -> Any:
        if started:
            others.wait()  # fails unless three calls wait
        started.append(json.loads(request["input"])["source"]["key"])
        return start(**request)

    account.executions.start_execution = start_execution
    account.reviews.retry(review, {"model": "u2net"}, "jo")
    assert started[0] == review.key
    assert sorted(started[1:]) == sorted(key for _, key in review.sources if key != review.key)


def test_the_cut_out_of_a_retry_is_reviewed_even_if_it_is_not_doubtful(account: Account) -> None:
    review, name = retried(account)
    assert account.reviews.settle() == []
    made = result(cut_out="c2", score=0.95, model="u2net")
    account.executions.end(name, "SUCCEEDED", output=json.dumps(made))
    [(before, after)] = account.reviews.settle()
    assert (before, after.id, after.state, after.is_retry) == (review, "c2", "open", True)
    assert after.sources == review.sources
    assert account.scores() == [0.95]
    [closed] = account.reviews.page("decided").reviews
    assert closed.decision and (closed.id, closed.decision.verdict) == ("c1", "retry")
    assert closed.decision.options == {"model": "u2net"}
    assert account.reviews.settle() == []


def test_two_sessions_settle_a_retry_alike(account: Account) -> None:
    review, name = retried(account)
    account.executions.end(name, "SUCCEEDED", output=json.dumps(result(cut_out="c2")))
    account.pipeline.open(result(cut_out="c2"))  # the pipeline opens a doubtful one itself
    first, second = account.reviews.settle([review]), account.reviews.settle([review])
    assert [now.id for _, now in (*first, *second)] == ["c2", "c2"]
    assert account.reviews.count("open") == 1 and account.reviews.count("retrying") == 0
    [opened] = account.reviews.page("open").reviews
    assert opened.is_retry


def test_a_retry_whose_execution_never_started_is_opened_again(account: Account) -> None:
    review, _ = retried(account)
    account.executions.known.clear()
    assert account.reviews.settle([review]) == []  # it may start yet
    assert review.decision
    late = replace(review, decision=replace(review.decision, at="2026-01-05T10:00:00.000+00:00"))
    [(_, after)] = account.reviews.settle([late])
    assert (after.state, after.problem) == ("open", "The execution of the retry does not exist")


def test_a_failed_retry_opens_the_review_again_with_the_reason(account: Account) -> None:
    _, name = retried(account)
    cause = json.dumps({"message": "The object does not exist", "remedy": "Upload it again."})
    account.executions.end(name, "FAILED", error="SourceNotFoundError", cause=cause)
    [(_, after)] = account.reviews.settle()
    assert (after.id, after.state) == ("c1", "open")
    assert after.problem == "The retry failed: The object does not exist. Upload it again."
    review, second = retried_again(account, after)
    assert second != name and review.state == "retrying"


def retried_again(account: Account, review: Review) -> tuple[Review, str]:
    again = account.reviews.retry(review, {"model": "isnet-general-use"}, "jo")
    return again, account.executions.calls[-1][1]


def test_every_upload_with_the_cut_out_is_retried_the_shown_one_first(account: Account) -> None:
    account.open(key="b.png")
    review = account.open(key="a.png")
    account.reviews.retry(review, {"model": "u2net"}, "jo")
    inputs = [json.loads(found["input"])["source"]["key"] for found in account.executions.known.values()]
    assert inputs == ["b.png", "a.png"]


def test_a_retry_cannot_be_undone(account: Account) -> None:
    review, _ = retried(account)
    with pytest.raises(ReviewConflictError, match="A retry cannot be undone"):
        account.reviews.undo(review)


@pytest.mark.parametrize(
    ("facts", "changes", "error"),
    [
        ({}, {"model": "u2netp", "precision_level": "high"}, UsageError),
        ({}, {"precision_level": "best"}, InvalidOptionsError),
        ({"bucket": "other"}, {"model": "u2net"}, UsageError),
    ],
)
def test_an_impossible_retry_starts_nothing(
    account: Account, facts: dict[str, Any], changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        account.reviews.retry(account.open(**facts), changes, "jo")
    assert account.executions.calls == [] and account.scores() == [0.4]


# ---- Exports


def test_decisions_are_exported_as_csv_that_no_spreadsheet_executes(account: Account) -> None:
    account.reviews.decide(account.open(key='=HYPERLINK("http://x")', reasons=["a", "b"]), "reject", "-jo")
    [row] = csv.DictReader(io.StringIO(to_csv(account.reviews.all("decided"))))
    assert row["key"] == '\'=HYPERLINK("http://x")' and row["by"] == "'-jo"
    assert (row["decision"], row["score"], row["reasons"], row["cut_out"]) == ("reject", "0.4", "a b", "c1")


def test_rejected_cut_outs_are_exported_as_a_manifest_that_bulk_runs_accept(account: Account, tmp_path: Any) -> None:
    review = account.open(key="ä/cup.png", format="webp", preset="catalog", precision_level="draft")
    account.open(key="copy.png", format="webp")
    text = to_manifest([account.reviews.get(review.id) or review], {"model": "u2net"}, "uploads")
    rows = [json.loads(line) for line in text.splitlines()]
    options = {"format": "webp", "model": "u2net"}
    assert rows == [{"key": "copy.png", "options": options}, {"key": "ä/cup.png", "options": options}]
    manifest = tmp_path / "rejected.jsonl"
    manifest.write_text(text, encoding="utf-8")
    Source.parse(str(manifest)).check(account.stack)
