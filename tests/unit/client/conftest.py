"""A table of reviews for the tests of one module."""

from collections.abc import Iterator

import pytest

from tests.fakes.reviews_in_memory import ReviewsTable, reviews_table


@pytest.fixture(scope="module")
def table() -> Iterator[ReviewsTable]:
    with reviews_table() as table:
        yield table
