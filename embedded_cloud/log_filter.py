"""Filter patterns of CloudWatch Logs: terms, and conditions on JSON.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

Predicate = Callable[[Any], bool]

MAX_CHARACTERS = 1024
_MAX_DEPTH = 50
_TERM = re.compile(r'(?P<sign>[-?]?)(?P<text>"(?:[^"\\]|\\.)*"|%[^%]+%|[^\s"]+)(?=\s|$)\s*')
_TOKEN = re.compile(
    r"""(?P<selector>\$(?:\.?\[[^\]]+\]|\.[^\s.\[\]()=!<>&|"]+)+)
    |(?P<operator>!=|<=|>=|=|<|>)
    |(?P<logic>&&|\|\||\(|\))
    |(?P<quoted>"(?:[^"\\]|\\.)*")
    |(?P<regex>%[^%]+%)
    |(?P<word>[^\s()=!<>&|"]+)""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.?\[(?P<bracket>[^\]]+)\]|\.(?P<name>[^\[.]+)")
_PLAIN_TERM = re.compile(r"\w+")
_REGEX = re.compile(r"[\w'#=@/;,:^$?\[\]{}|\\*+. -]+", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class FilterPatternError(ValueError):
    """A filter pattern that CloudWatch Logs rejects, or that is not supported here."""


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a log message matches the pattern.

    Example: ``compile_pattern('{ $.level = "ERROR" && $.attempts > 2 }')``.

    Raises:
        FilterPatternError: the pattern is invalid, or describes space-delimited messages (``[a, b]``).
    """
    if len(pattern) > MAX_CHARACTERS:
        raise FilterPatternError(f"Invalid filter pattern: more than {MAX_CHARACTERS} characters")
    pattern = pattern.strip()
    if pattern.startswith("["):
        raise FilterPatternError("Patterns for space-delimited events are not supported by the embedded cloud.")
    if not pattern.startswith("{"):
        return _terms(pattern)
    if not pattern.endswith("}"):
        raise FilterPatternError("If a filter pattern starts with '{' it must end with '}'")
    condition = _Parser(pattern[1:-1]).parse()

    def matches(message: str) -> bool:
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict) and condition(document)

    return matches


def compile_value(text: str) -> Callable[[str], float | None]:
    """Return a function that returns a metric filter's value for a log message: a number, or that of a JSON field.

    Example: ``compile_value("$.latency")``. Messages without the field, or without a number in it, have no value.

    Raises:
        FilterPatternError: the text is neither a number nor a selector.
    """
    if _NUMBER.fullmatch(text):
        number = float(text)
        return lambda message: number
    if not (found := _TOKEN.fullmatch(text)) or found.lastgroup != "selector":
        raise FilterPatternError(f"Invalid metric value '{text}'. Use a number, or a field such as $.latency.")
    select = _selector(text)

    def value(message: str) -> float | None:
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            return None
        return next((float(found) for found in select(document) if _is_number(found)), None)

    return value


def _terms(pattern: str) -> Callable[[str], bool]:
    """All terms must appear, and none with ``-``. Terms with ``?`` are alternatives, ignored among others."""
    signs: dict[str, list[Callable[[str], bool]]] = {"": [], "-": [], "?": []}
    position = 0
    while position < len(pattern):
        if not (found := _TERM.match(pattern, position)):
            raise FilterPatternError(f"Invalid character(s) in term '{pattern[position:]}'")
        signs[found["sign"]].append(_term(found["text"]))
        position = found.end()
    required, excluded, optional = signs[""], signs["-"], signs["?"]
    if required or excluded:
        optional = []

    def matches(message: str) -> bool:
        return (
            all(term(message) for term in required)
            and not any(term(message) for term in excluded)
            and (not optional or any(term(message) for term in optional))
        )

    return matches


def _term(text: str) -> Callable[[str], bool]:
    if len(text) > 2 and text[0] == text[-1] == "%":
        expression = _regex(text)
        return lambda message: expression.search(message) is not None
    if text.startswith('"'):
        wanted = _unquote(text)
    elif _PLAIN_TERM.fullmatch(text):
        wanted = text
    else:
        raise FilterPatternError(f"Invalid character(s) in term '{text}'. Put it in double quotation marks.")
    return lambda message: wanted in message


def _unquote(text: str) -> str:
    if not (text := re.sub(r"\\(.)", r"\1", text[1:-1])):
        raise FilterPatternError("Invalid character(s) in term '\"\"'")
    return text


def _regex(text: str) -> re.Pattern[str]:
    if not _REGEX.fullmatch(text[1:-1]):
        raise FilterPatternError(f"Invalid character(s) in term '{text}'")
    try:
        return re.compile(text[1:-1])
    except (re.error, OverflowError) as error:  # OverflowError: a count of repetitions
        raise FilterPatternError(f"Invalid regular expression '{text}': {error}") from None


class _Parser:
    """Recursive descent over ``or := and {'||' and}; and := term {'&&' term}; term := '(' or ')' | comparison``."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokenize(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Predicate:
        condition = self._either()
        if self._next < len(self._tokens):
            raise FilterPatternError(f"Invalid filter pattern: unexpected '{self._tokens[self._next][1]}'")
        return condition

    def _take(self, *kinds: str) -> tuple[str, str]:
        kind, text = self._tokens[self._next] if self._next < len(self._tokens) else ("end", "end of the pattern")
        if kind not in kinds:
            raise FilterPatternError(f"Invalid filter pattern: unexpected '{text}'")
        self._next += 1
        return kind, text

    def _is_next(self, text: str) -> bool:
        if self._tokens[self._next : self._next + 1] != [("logic", text)]:
            return False
        self._next += 1
        return True

    def _either(self) -> Predicate:
        conditions = [self._both()]
        while self._is_next("||"):
            conditions.append(self._both())
        return lambda document: any(condition(document) for condition in conditions)

    def _both(self) -> Predicate:
        conditions = [self._single()]
        while self._is_next("&&"):
            conditions.append(self._single())
        return lambda document: all(condition(document) for condition in conditions)

    def _single(self) -> Predicate:
        if not self._is_next("("):
            return self._comparison()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise FilterPatternError("Invalid filter pattern: too many nested parentheses")
        condition = self._either()
        self._depth -= 1
        if not self._is_next(")"):
            self._take("closing parenthesis")
        return condition

    def _comparison(self) -> Predicate:
        select = _selector(self._take("selector")[1])
        kind, text = self._take("operator", "word")
        if kind == "word":
            return self._property(select, text)
        value_kind, value = self._take("quoted", "regex", "word")
        accept = _value(text, value_kind, value)
        return lambda document: any(accept(found) for found in select(document))

    def _property(self, select: Callable[[Any], Iterator[Any]], word: str) -> Predicate:
        if word != "EXISTS":
            word += f" {self._take('word')[1]}"
        match word:
            case "EXISTS":
                return lambda document: any(True for _ in select(document))
            case "NOT EXISTS":
                return lambda document: not any(True for _ in select(document))
            case "IS NULL":
                return lambda document: any(found is None for found in select(document))
            case "IS TRUE":
                return lambda document: any(found is True for found in select(document))
            case "IS FALSE":
                return lambda document: any(found is False for found in select(document))
        raise FilterPatternError(f"Invalid filter pattern: unexpected '{word}'")


def _tokenize(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while rest := text[position:].lstrip():
        position = len(text) - len(rest)
        if not (found := _TOKEN.match(text, position)) or not found.lastgroup:
            raise FilterPatternError(f"Invalid filter pattern: unexpected '{rest}'")
        yield found.lastgroup, found[0]
        position = found.end()


def _selector(text: str) -> Callable[[Any], Iterator[Any]]:
    """Return a function that yields the values at ``$.a.b[0]``, ``$.a[*]``, ``$.*`` or ``$.["a b"]``."""
    steps = [
        int(step["bracket"]) if step["bracket"] and step["bracket"].isdecimal() else (step["name"] or step["bracket"])
        for step in _STEP.finditer(text, 1)
    ]
    names = [step.strip("'\"") if isinstance(step, str) else step for step in steps]

    def select(document: Any) -> Iterator[Any]:
        found = [document]
        for name in names:
            found = [inner for value in found for inner in _inside(value, name)]
        yield from found

    return select


def _inside(value: Any, name: str | int) -> list[Any]:
    if isinstance(value, dict):
        if name == "*":
            return list(value.values())
        return [value[name]] if name in value else []
    if isinstance(value, list):
        if name == "*":
            return value
        return [value[name]] if isinstance(name, int) and name < len(value) else []
    return []


def _value(comparison: str, kind: str, text: str) -> Predicate:
    """Return a function that compares a value of the message. Objects and arrays match no comparison."""
    if comparison in _ORDER:
        if kind != "word" or not _NUMBER.fullmatch(text):
            raise FilterPatternError(f"Invalid filter pattern: {comparison} needs a number, not '{text}'")
        limit, compare = float(text), _ORDER[comparison]
        return lambda found: _is_number(found) and compare(found, limit)
    equal = _equal(kind, text)
    if comparison == "=":
        return lambda found: _is_scalar(found) and equal(found)
    return lambda found: _is_scalar(found) and not equal(found)


def _equal(kind: str, text: str) -> Predicate:
    if kind == "word" and _NUMBER.fullmatch(text):
        number = float(text)
        return lambda found: found == number if _is_number(found) else found == text
    if kind == "regex":
        expression = _regex(text)
    else:
        wanted = _unquote(text) if kind == "quoted" else text
        expression = _wildcards(wanted)
        if kind == "word":  # 4* matches numbers, too
            return lambda found: expression.fullmatch(_text(found)) is not None
        return lambda found: isinstance(found, str) and expression.fullmatch(found) is not None
    return lambda found: expression.search(_text(found)) is not None


def _wildcards(text: str) -> re.Pattern[str]:
    """Return the expression of a text in which ``*`` stands for any characters.

    It takes the first match of each part. Trying the later ones, too, would take years for many parts.
    """
    first, *inner = map(re.escape, re.split(r"\*+", text))
    last = f".*{inner.pop()}" if inner else ""
    return re.compile(first + "".join(f"(?>.*?{part})" for part in inner) + last, re.DOTALL)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value) or isinstance(value, bool)
