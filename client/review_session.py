"""A person's way through open reviews: the current one, the next ones, and what can be undone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from client.errors import ReviewConflictError, UsageError
from client.reviews import MOST_COUNTED, Filter, Review, Reviews, Verdict

_PAGE: Final = 25
_AHEAD: Final = 10  # load more reviews when fewer than these are left


class ReviewSession:
    """Open reviews, the worst first, one of them at a time.

    Args:
        reviews: those that the person may see.
        by: name of the person.
        filters: which reviews; None for all.

    Attributes:
        decided: number of reviews that the person has accepted or rejected.
        left: number of reviews that are open or retrying.
    """

    def __init__(self, reviews: Reviews, by: str, filters: Filter | None = None) -> None:
        self.filters = filters or Filter()
        self._reviews, self._by = reviews, by
        self._list: list[Review] = []
        self._position = 0
        self._undoable: list[int] = []
        self.decided = 0
        self.look_again()

    def look_again(self) -> None:
        """Read the open reviews anew, e.g. when the last one is decided."""
        self._reviews.settle()  # retries of sessions that ended before them
        retrying = [review for review in self._list if review.state == "retrying"]
        # The index may still have reviews in the state before their last change.
        changed = {review.id: review.revision for review in self._list}
        page = self._reviews.page("open", self.filters, limit=_PAGE)
        opened = [review for review in page.reviews if review.revision >= changed.get(review.id, 0)]
        known = {review.id for review in retrying}
        self._list = [*retrying, *(review for review in opened if review.id not in known)]
        self._after, self._position, self._undoable = page.after, len(retrying), []
        counted = self._reviews.count("open", self.filters)
        self.left = max(counted, len(opened)) + len(retrying) if page.after else len(self._list)
        self._load()

    @property
    def current(self) -> Review | None:
        """The review to decide; None if none is open."""
        review = self._list[self._position] if self._position < len(self._list) else None
        return review if review and review.state == "open" else None

    @property
    def total(self) -> str:
        """Number of reviews in this session, decided ones included; with a plus if there are more."""
        return f"{self.decided + self.left}{'+' if self.left >= MOST_COUNTED else ''}"

    @property
    def can_undo(self) -> bool:
        """Whether there is a decision to undo."""
        return bool(self._undoable)

    @property
    def retrying(self) -> list[Review]:
        """The reviews whose retry has not ended."""
        return [review for review in self._list if review.state == "retrying"]

    def upcoming(self, count: int) -> list[Review]:
        """Return the reviews after the current one, without those that are decided."""
        later = (review for review in self._list[self._position + 1 :] if review.state != "decided")
        return [review for review, _ in zip(later, range(count), strict=False)]

    def decide(self, verdict: Verdict, seen: str | None = None) -> Review | None:
        """Accept or reject the current cut-out, go to the next one, and return the review.

        Args:
            verdict: the decision.
            seen: ID of the review that the person saw. If another one is current, nothing changes, and None is
                returned: a second key press before the next cut-out appears decides nothing. None for no check.

        Raises:
            UsageError: no review is open.
            ReviewConflictError: another person decided first. The next one is the current one.
        """
        return self._change(lambda review: self._reviews.decide(review, verdict, self._by), seen, undoable=True)

    def retry(self, changes: Mapping[str, Any], seen: str | None = None) -> Review | None:
        """Retry the current cut-out with other options, go to the next one, and return the review.

        Args:
            changes: options that replace those of the cut-out.
            seen: as of :meth:`decide`.

        Raises:
            InvalidOptionsError, UsageError: as :meth:`client.reviews.Reviews.retry`; nothing has changed.
            ReviewConflictError: another person decided first. The next one is the current one.
        """
        return self._change(lambda review: self._reviews.retry(review, changes, self._by), seen, undoable=False)

    def undo(self) -> Review:
        """Open the review that was decided last, make it the current one, and return it.

        Raises:
            UsageError: nothing can be undone.
            ReviewConflictError: it was changed since.
        """
        if not self._undoable:
            raise UsageError("There is no decision to undo", field="review", value=None, remedy="Decide first.")
        position = self._undoable.pop()
        self._list[position] = self._reviews.undo(self._list[position])
        self._position = position
        self.decided, self.left = self.decided - 1, self.left + 1
        return self._list[position]

    def next(self) -> None:
        """Go to the next open review; stay at the last one."""
        self._load()
        self._go(range(self._position + 1, len(self._list)))

    def previous(self) -> None:
        """Go to the open review before the current one; stay at the first one."""
        self._go(range(self._position - 1, -1, -1))

    def go_to(self, review_id: str) -> None:
        """Go to an open review; stay if it is not open."""
        self._go([position for position, review in enumerate(self._list) if review.id == review_id])

    def settle(self) -> list[tuple[Review, Review]]:
        """Put the cut-outs of retries that have ended in the places of those before, and return the pairs."""
        ended = self._reviews.settle(self.retrying) if self.retrying else []
        for before, now in ended:
            position = next(index for index, review in enumerate(self._list) if review.id == before.id)
            is_listed = any(review.id == now.id and review is not before for review in self._list)
            self._list[position] = replace(before, state="decided") if is_listed else now
            if self._list[position].state != "open":
                self.left -= 1
        if ended and self.current is None:
            self._leave()
        return ended

    def _change(self, change: Any, seen: str | None, *, undoable: bool) -> Review | None:
        review = self.current
        if seen and (review is None or review.id != seen):
            return None
        if review is None:
            raise UsageError("No review is open", field="review", value=None, remedy="Look for new ones.")
        try:
            changed: Review = change(review)
        except ReviewConflictError:
            self._list[self._position] = self._reviews.get(review.id) or review
            if self._list[self._position].state == "decided":
                self.left -= 1
            self._leave()
            raise
        self._list[self._position] = changed
        if undoable:
            self._undoable.append(self._position)
            self.decided, self.left = self.decided + 1, self.left - 1
        self._leave()
        return changed

    def _leave(self) -> None:
        """Go to the next open review, or else to the first one; without any, to the end."""
        self._load()
        later, all_of_them = range(self._position + 1, len(self._list)), range(len(self._list))
        if not self._go(later) and not self._go(all_of_them):
            self._position = len(self._list)

    def _go(self, positions: Sequence[int]) -> bool:
        found = next((position for position in positions if self._list[position].state == "open"), None)
        self._position = self._position if found is None else found
        return found is not None

    def _load(self) -> None:
        """Load more reviews if few are left; a rare filter can take several pages without any."""
        while self._after and len(self._list) - self._position <= _AHEAD:
            page = self._reviews.page("open", self.filters, after=self._after, limit=_PAGE)
            known = {review.id for review in self._list}
            self._list += [review for review in page.reviews if review.id not in known]
            self._after = page.after
            if not page.reviews:  # go on when the person does
                return
