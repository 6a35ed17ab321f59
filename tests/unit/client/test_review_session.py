import json
from typing import Any

import pytest

from client.errors import ReviewConflictError, UsageError
from client.review_session import ReviewSession
from client.reviews import Filter
from tests.fakes.reviews_in_memory import ReviewsTable
from tests.unit.client.test_reviews import Account, result


@pytest.fixture
def account(table: ReviewsTable) -> Account:
    table.clear()
    account = Account(table.client)
    for number in range(4):
        account.open(cut_out=f"c{number}", score=0.1 * (number + 1), model="classical" if number == 2 else "u2netp")
    return account


def session(account: Account, by: str = "jo", **filters: Any) -> ReviewSession:
    return ReviewSession(account.reviews, by, Filter(**filters))


def current(reviewing: ReviewSession) -> str | None:
    return reviewing.current.id if reviewing.current else None


def test_a_decision_goes_on_to_the_next_worst(account: Account) -> None:
    reviewing = session(account)
    assert (current(reviewing), reviewing.total) == ("c0", "4")
    assert [review.id for review in reviewing.upcoming(2)] == ["c1", "c2"]
    reviewing.decide("reject")
    reviewing.decide("accept")
    assert (current(reviewing), reviewing.decided, reviewing.total) == ("c2", 2, "4")
    verdicts = {review.id: review.decision.verdict for review in account.reviews.all("decided") if review.decision}
    assert verdicts == {"c0": "reject", "c1": "accept"}


def test_a_second_press_decides_nothing_about_a_cut_out_that_was_not_seen(account: Account) -> None:
    reviewing = session(account)
    reviewing.decide("accept", "c0")
    assert reviewing.decide("accept", "c0") is None and reviewing.retry({"model": "u2net"}, "c0") is None
    assert (current(reviewing), reviewing.decided, account.reviews.count("open")) == ("c1", 1, 3)
    reviewing.decide("accept", "c1")
    assert current(reviewing) == "c2"


def test_what_was_passed_over_comes_again_at_the_end(account: Account) -> None:
    reviewing = session(account)
    reviewing.next()
    for _ in range(3):
        reviewing.decide("accept")
    assert current(reviewing) == "c0"
    reviewing.decide("accept")
    assert (current(reviewing), reviewing.left, reviewing.upcoming(3)) == (None, 0, [])
    with pytest.raises(UsageError, match="No review is open"):
        reviewing.decide("accept")


def test_previous_and_next_pass_over_decided_reviews(account: Account) -> None:
    reviewing = session(account)
    reviewing.next()
    reviewing.decide("accept")
    assert current(reviewing) == "c2"
    reviewing.previous()
    assert current(reviewing) == "c0"
    reviewing.previous()
    assert current(reviewing) == "c0"
    reviewing.next()
    assert current(reviewing) == "c2"
    reviewing.go_to("c3")
    assert current(reviewing) == "c3"
    reviewing.go_to("c1")
    assert current(reviewing) == "c3"


def test_undo_goes_back_decision_by_decision(account: Account) -> None:
    reviewing = session(account)
    assert not reviewing.can_undo
    reviewing.decide("accept")
    reviewing.decide("reject")
    assert [reviewing.undo().id, reviewing.undo().id] == ["c1", "c0"]
    assert (current(reviewing), reviewing.decided, reviewing.left, reviewing.can_undo) == ("c0", 0, 4, False)
    assert account.scores() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(UsageError, match="no decision to undo"):
        reviewing.undo()


def test_of_two_reviewers_the_second_is_told_and_goes_on(account: Account) -> None:
    one, other = session(account), session(account, "kim")
    one.decide("accept")
    with pytest.raises(ReviewConflictError, match="jo has accepted"):
        other.decide("reject")
    assert (current(other), other.decided, other.total) == ("c1", 0, "3")


def test_a_retry_comes_back_in_its_place(account: Account) -> None:
    reviewing = session(account)
    reviewing.retry({"model": "u2net"})
    assert current(reviewing) == "c1" and reviewing.settle() == []
    account.executions.end(account.executions.calls[0][1], "SUCCEEDED", output=json.dumps(result("new", 0.9)))
    [(before, now)] = reviewing.settle()
    assert (before.id, now.id, reviewing.retrying, reviewing.total) == ("c0", "new", [], "4")
    reviewing.previous()
    assert current(reviewing) == "new"


def test_a_retry_whose_cut_out_is_listed_already_is_shown_once(account: Account) -> None:
    reviewing = session(account)
    reviewing.retry({"model": "u2net"})
    account.pipeline.open(result("new", 0.9))
    reviewing.look_again()
    account.executions.end(account.executions.calls[0][1], "SUCCEEDED", output=json.dumps(result("new", 0.9)))
    reviewing.settle()
    assert [current(reviewing), *(review.id for review in reviewing.upcoming(9))] == ["c1", "c2", "c3", "new"]
    assert reviewing.left == 4


def test_a_new_session_shows_the_cut_out_of_an_old_retry(account: Account) -> None:
    session(account, model="classical").retry({"model": "u2net"})
    account.executions.end(account.executions.calls[0][1], "SUCCEEDED", output=json.dumps(result("new", 0.05)))
    assert current(session(account)) == "new"


def test_the_last_review_waits_for_its_retry(account: Account) -> None:
    reviewing = session(account, model="classical")
    reviewing.retry({"model": "u2net"})
    assert (current(reviewing), len(reviewing.retrying)) == (None, 1)
    reviewing.look_again()
    assert (current(reviewing), len(reviewing.retrying), reviewing.left) == (None, 1, 1)
    account.executions.end(account.executions.calls[0][1], "SUCCEEDED", output=json.dumps(result("new", 0.9)))
    reviewing.settle()
    assert current(reviewing) == "new"


def test_more_reviews_are_loaded_before_they_are_needed(account: Account) -> None:
    for number in range(4, 30):
        account.open(cut_out=f"c{number}", score=0.02 * number + 0.4)
    reviewing = session(account)
    assert (len(reviewing.upcoming(100)), reviewing.total) == (24, "30")
    for _ in range(16):
        reviewing.decide("accept")
    assert len(reviewing.upcoming(100)) == 13
    for _ in range(14):
        reviewing.decide("accept")
    assert (current(reviewing), reviewing.left, reviewing.total) == (None, 0, "30")
