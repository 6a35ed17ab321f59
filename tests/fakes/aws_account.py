"""Fake of the AWS calls that ``pbr doctor`` makes: each operation has a fixed answer, or raises an error."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError


def refusal(code: str, message: str = "no") -> ClientError:
    """Return the error of a call that AWS rejects."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class Answers:
    """A client. ``answers`` has the answer, or the error, or a function of the request, for each operation."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            self.requests.append((operation, request))
            answer = self.answers[operation]
            answer = answer(**request) if callable(answer) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, operation: str) -> Any:
        def paginate(**request: Any) -> Iterator[Any]:
            yield getattr(self, operation)(**request)

        return SimpleNamespace(paginate=paginate)
