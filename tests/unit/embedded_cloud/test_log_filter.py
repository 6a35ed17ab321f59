"""Which log messages a filter pattern matches."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_cloud.log_filter import FilterPatternError, compile_pattern

EVENT: dict[str, Any] = {
    "level": "ERROR",
    "attempts": 3,
    "status": 404,
    "ratio": 0.5,
    "empty": None,
    "cold_start": True,
    "failure": {"error": "NoSubjectError", "fields": [{"name": "roi"}, {"name": "mask"}]},
    "odd key": "a b",
    "address": "123.123.1.1",
}
WORDS = st.text("abc", min_size=1, max_size=4)


@pytest.mark.parametrize(
    "condition",
    [
        '$.level = "ERROR"',
        "$.level = ERROR",
        '$.level != "INFO"',
        '$.level = "ERR*"',
        '$.level = "*RO*"',
        "$.level = %^ERR%",
        "$.attempts = 3",
        "$.attempts = 3.0",
        "$.attempts != 4",
        "$.attempts > 2 && $.attempts >= 3 && $.attempts < 4 && $.attempts <= 3e0",
        "$.status = 4*",
        "$.ratio = 0.5",
        "$.address = 123.123.*",
        "$.empty IS NULL",
        "$.cold_start IS TRUE",
        "$.empty EXISTS",
        "$.missing NOT EXISTS",
        '$.failure.error = "NoSubjectError"',
        '$.failure.fields[1].name = "mask"',
        '$.failure.fields[*].name = "mask"',
        '$.* = "ERROR"',
        '$.["odd key"] = "a b"',
        "$['level'] = ERROR",
        '$.level = "INFO" || $.attempts = 3',
        '($.level = "INFO" || $.level = "ERROR") && $.attempts = 3',
        '$.level = "ERROR" || $.level = "INFO" && $.attempts = 9',
    ],
)
def test_a_condition_on_json_matches(condition: str) -> None:
    assert compile_pattern(f"{{ {condition} }}")(json.dumps(EVENT))
    assert compile_pattern(f"{{{condition}}}")(json.dumps(EVENT))


@pytest.mark.parametrize(
    "condition",
    [
        '$.level = "error"',
        '$.level = "ERR"',
        '$.missing != "ERROR"',
        "$.missing > 0",
        "$.level > 0",
        '$.attempts = "3"',
        "$.missing IS NULL",
        "$.level IS NULL",
        "$.cold_start IS FALSE",
        "$.missing EXISTS",
        "$.level NOT EXISTS",
        "$.failure.fields[2].name EXISTS",
        "$.failure = NoSubjectError",
        "$.failure != NoSubjectError",
        '($.level = "ERROR" || $.level = "INFO") && $.attempts = 9',
    ],
)
def test_a_condition_on_json_does_not_match(condition: str) -> None:
    assert not compile_pattern(f"{{ {condition} }}")(json.dumps(EVENT))


@pytest.mark.parametrize("message", ["START RequestId: 1", "[1]", '"ERROR"', "{", "[" * 100_000])
def test_a_condition_on_json_matches_objects_only(message: str) -> None:
    assert not compile_pattern("{ $.level NOT EXISTS }")(message)


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("", "any message"),
        ("ERROR", "[ERROR] NoSubjectError"),
        ("NoSubject", "[ERROR] NoSubjectError"),
        ("ERROR timeout", "timeout after ERROR"),
        ('"two words"', "these two words"),
        (r'"a \"quoted\" text"', 'a "quoted" text'),
        ("ERROR -retry", "ERROR at last"),
        ('ERROR -"will retry"', "ERROR, no retry"),
        ("-INFO", "ERROR"),
        ("?ERROR ?WARN", "WARN: slow"),
        ('?"a b" ?c', "a b"),
        ("ERROR ?WARN", "ERROR"),
        ("%code [45][0-9]{2}%", "code 503"),
    ],
)
def test_terms_match(pattern: str, matched: str) -> None:
    assert compile_pattern(pattern)(matched)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("ERROR", "error"),
        ("ERROR timeout", "ERROR"),
        ('"two words"', "words two"),
        ("ERROR -retry", "ERROR, will retry"),
        ("?ERROR ?WARN", "INFO"),
        ("ERROR ?WARN", "WARN"),
        ("%code [45][0-9]{2}%", "code 200"),
    ],
)
def test_terms_do_not_match(pattern: str, message: str) -> None:
    assert not compile_pattern(pattern)(message)


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("user@example.com", r"Invalid character\(s\) in term 'user@example.com'"),
        ('"not closed', "Invalid character"),
        ('""', "Invalid character"),
        ("%(a)%", "Invalid character"),
        ("%[a%", "Invalid regular expression"),
        ("%a{99999999999}%", "Invalid regular expression"),
        ("[ip, user]", "space-delimited"),
        ('{ $.level = "ERROR"', "must end with '}'"),
        ("{ }", "unexpected 'end of the pattern'"),
        ("{ $.level }", "unexpected 'end of the pattern'"),
        ("{ $.level = }", "unexpected 'end of the pattern'"),
        ("{ level = 1 }", "unexpected 'level'"),
        ("{ $.level IS EMPTY }", "unexpected 'IS EMPTY'"),
        ('{ $.level > "a" }', "> needs a number"),
        ("{ ($.level = 1 }", "unexpected 'end of the pattern'"),
        ("{ $.level = 1 $.level = 2 }", r"unexpected '\$.level'"),
        ("{ $.level = 1 & $.level = 2 }", "unexpected '& "),
        ("{" + "(" * 500 + "$.a = 1" + ")" * 500 + "}", "nested"),
        ("a" * 1025, "more than 1024 characters"),
    ],
)
def test_invalid_patterns_are_rejected(pattern: str, error: str) -> None:
    with pytest.raises(FilterPatternError, match=error):
        compile_pattern(pattern)


@given(pattern=st.text(' "%?-[]{}()$.*=!<>&|aA1\\', max_size=30), message=st.text(max_size=20))
def test_each_pattern_matches_or_is_rejected(pattern: str, message: str) -> None:
    for text in (pattern, f"{{ $.a {pattern} }}"):
        try:
            matches = compile_pattern(text)
        except FilterPatternError:
            continue
        assert matches(message) in (True, False)


@given(values=st.dictionaries(WORDS, WORDS | st.integers() | st.booleans() | st.none(), max_size=4), name=WORDS)
def test_conditions_agree_with_the_document(values: dict[str, Any], name: str) -> None:
    message, found = json.dumps(values), values.get(name)

    def matches(condition: str) -> bool:
        return compile_pattern(f"{{ $.{name} {condition} }}")(message)

    assert matches("EXISTS") == (name in values) != matches("NOT EXISTS")
    assert matches("IS NULL") == (name in values and found is None)
    if isinstance(found, str):
        assert matches(f'= "{found}"') and matches(f'= "{found[0]}*"') and not matches(f'!= "{found}"')
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**50:
        assert matches(f"= {found}") and matches(f"< {found + 1}") and not matches(f"> {found}")


@given(left=st.booleans(), right=st.booleans(), last=st.booleans())
def test_and_binds_more_tightly_than_or(left: bool, right: bool, last: bool) -> None:
    message = json.dumps({"a": left, "b": right, "c": last})
    matches = compile_pattern("{ $.a IS TRUE || $.b IS TRUE && $.c IS TRUE }")(message)
    assert matches == (left or (right and last))


@given(terms=st.lists(WORDS, min_size=1, max_size=3), message=st.text("abc ", max_size=12))
def test_terms_agree_with_the_message(terms: list[str], message: str) -> None:
    assert compile_pattern(" ".join(terms))(message) == all(term in message for term in terms)
    assert compile_pattern(" ".join(f"?{term}" for term in terms))(message) == any(term in message for term in terms)
    assert compile_pattern(" ".join(f'-"{term}"' for term in terms))(message) == (
        not any(term in message for term in terms)
    )


@given(wildcards=st.text("ab*", min_size=1, max_size=8), value=st.text("ab\n", max_size=8))
def test_an_asterisk_stands_for_any_characters(wildcards: str, value: str) -> None:
    matches = compile_pattern(f'{{ $.value = "{wildcards}" }}')
    assert matches(json.dumps({"value": value})) == fnmatchcase(value, wildcards)


def test_many_asterisks_take_no_time() -> None:
    matches = compile_pattern(f'{{ $.value = "{"*a" * 400}b" }}')  # years, if it tried each combination
    assert not matches(json.dumps({"value": "a" * 2000}))
