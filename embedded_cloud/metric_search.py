"""Search expressions of CloudWatch metrics.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedded_cloud.metric_math import MetricMathError

MAX_CHARACTERS = 1024
_MAX_DEPTH = 50
_SCHEMA = re.compile(r'\s*\{(?P<names>(?:\s*(?:"[^"]*"|[^",{}]+)\s*,?)*)\}')
_NAME = re.compile(r'"([^"]*)"|([^",]+)')
_TOKEN = re.compile(r'\s*(?:(?P<quoted>"[^"]*")|(?P<symbol>[()=])|(?P<word>[^\s()="]+))')
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Metric:
    """A metric: namespace, name and dimensions."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]


Predicate = Callable[[Metric], bool]


def compile_search(expression: str) -> Predicate:
    """Return a function that tells whether a search expression finds a metric.

    Example: ``compile_search('{AWS/Lambda,FunctionName} MetricName="Errors"')``.

    Raises:
        MetricMathError: the expression is invalid.
    """
    if len(expression) > MAX_CHARACTERS:
        raise MetricMathError(f"The search expression has more than {MAX_CHARACTERS} characters")
    if not (schema := _SCHEMA.match(expression)):
        return _Parser(expression).parse()
    namespace, *names = (quoted or plain.strip() for quoted, plain in _NAME.findall(schema["names"]))
    wanted, matches = sorted(names), _Parser(expression[schema.end() :]).parse()

    def found(metric: Metric) -> bool:
        same = metric.namespace == namespace and sorted(name for name, _ in metric.dimensions) == wanted
        return same and matches(metric)

    return found


class _Parser:
    """A recursive descent parser: terms next to each other must all match."""

    def __init__(self, text: str) -> None:
        self._tokens, self._next, self._depth = list(_tokenize(text)), 0, 0

    def parse(self) -> Predicate:
        if not self._tokens:
            return lambda metric: True
        condition = self._either("")
        if self._peek()[1]:
            raise MetricMathError(f"Invalid search expression: unexpected '{self._peek()[1]}'")
        return condition

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _either(self, key: str) -> Predicate:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise MetricMathError("Invalid search expression: too many nested parentheses")
        alternatives = [self._all(key)]
        while self._peek() == ("word", "OR"):
            self._next += 1
            alternatives.append(self._all(key))
        self._depth -= 1
        return lambda metric: any(matches(metric) for matches in alternatives)

    def _all(self, key: str) -> Predicate:
        conditions = [self._single(key)]
        while (token := self._peek())[0] != "end" and token not in (("word", "OR"), ("symbol", ")")):
            if token == ("word", "AND"):
                self._next += 1
            conditions.append(self._single(key))
        return lambda metric: all(matches(metric) for matches in conditions)

    def _single(self, key: str) -> Predicate:
        kind, text = self._peek()
        self._next += 1
        if (kind, text) == ("word", "NOT"):
            excluded = self._single(key)
            return lambda metric: not excluded(metric)
        if text == "(":
            condition = self._either(key)
            if self._peek()[1] != ")":
                raise MetricMathError("Invalid search expression: a parenthesis is not closed")
            self._next += 1
            return condition
        if kind not in ("word", "quoted"):
            raise MetricMathError(f"Invalid search expression: unexpected '{text}'")
        if not key and self._peek()[1] == "=":
            self._next += 1
            return self._single(text.strip('"'))
        return _term(key, text)


def _tokenize(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while text[position:].strip():
        if not (found := _TOKEN.match(text, position)) or not found.lastgroup:
            raise MetricMathError(f"Invalid search expression: unexpected '{text[position:].strip()}'")
        yield found.lastgroup, found[found.lastgroup]
        position = found.end()


def _term(key: str, text: str) -> Predicate:
    """Return a condition on a property, or on all. A text in quotation marks must equal it, others its tokens."""
    if text.startswith('"'):
        wanted = text[1:-1]
        return lambda metric: wanted in _values(metric, key)
    tokens = _tokens(text)
    return lambda metric: any(tokens <= _tokens(value) for value in _values(metric, key))


def _values(metric: Metric, key: str) -> list[str]:
    if key == "Namespace":
        return [metric.namespace]
    if key == "MetricName":
        return [metric.name]
    if key:
        return [value for name, value in metric.dimensions if name == key]
    return [metric.namespace, metric.name, *(text for dimension in metric.dimensions for text in dimension)]


def _tokens(text: str) -> set[str]:
    """Return the words in a text such as ``QueueDepth-2``, in lower case."""
    return {part.lower() for part in _PARTS.findall(text)} or {text.lower()}
