import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from functions.contracts.api_key import ApiKey, KeyRecord, Scope, SecretHash, quota_meter

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DIGITS = "0123456789abcdef"
KEYS = st.builds(
    ApiKey,
    st.text(DIGITS, min_size=16, max_size=16),
    st.builds(SecretStr, st.text(DIGITS, min_size=64, max_size=64)),
)


def record_of(key: ApiKey, **facts: object) -> KeyRecord:
    hashes = (SecretHash(sha256=key.sha256, created_at=NOW),)
    return KeyRecord.model_validate(
        {"key_id": key.key_id, "name": "laptop", "hashes": hashes, "scopes": ["read"], "created_at": NOW, **facts}
    )


def test_keys_are_unique() -> None:
    keys = [ApiKey.generate() for _ in range(100)]
    assert len({key.key_id for key in keys}) == len({key.sha256 for key in keys}) == 100


@given(KEYS)
def test_every_key_can_be_parsed(key: ApiKey) -> None:
    assert ApiKey.parse(key.reveal()) == key


@given(st.text() | st.builds("{}{}{}".format, st.text(max_size=1), KEYS.map(ApiKey.reveal), st.text(max_size=1)))
def test_a_parsed_key_has_the_same_text(text: str) -> None:
    key = ApiKey.parse(text)
    assert key is None or key.reveal() == text


@given(KEYS, st.data())
def test_a_key_with_one_wrong_missing_or_additional_character_is_invalid(key: ApiKey, data: st.DataObject) -> None:
    text = key.reveal()
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(sorted({*DIGITS, "A", "_", " ", "٣"} - {text[at]})))
    for wrong in (text[:at] + letter + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + letter + text[at:]):
        assert ApiKey.parse(wrong) is None


def test_the_secret_of_a_key_appears_in_no_representation() -> None:
    key = ApiKey.generate()
    record = record_of(key)
    shown = [repr(key), str(key), f"{key}", str(asdict(key)), json.dumps(asdict(key), default=str)]
    shown += [repr(record), record.model_dump_json(), str(record.item())]
    assert not any(key.secret.get_secret_value() in text for text in shown)


@given(
    st.builds(
        record_of,
        KEYS,
        name=st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=100),
        scopes=st.sets(st.sampled_from(list(Scope)), min_size=1),
        rate_per_minute=st.none() | st.integers(1, 60_000),
        monthly_quota=st.none() | st.integers(0),
        expires_at=st.none() | st.datetimes(timezones=st.just(UTC)),
        revoked_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    )
)
def test_a_record_is_read_from_the_table_as_it_was_written(record: KeyRecord) -> None:
    assert KeyRecord.of_item(record.item()) == record


@pytest.mark.parametrize(
    "facts",
    [
        {"name": ""},
        {"name": "\x1b[2J"},
        {"name": "x" * 101},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"rate_per_minute": 0},
        {"rate_per_minute": 60_001},
        {"monthly_quota": -1},
        {"hashes": []},
    ],
    ids=str,
)
def test_an_invalid_record_is_rejected(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        record_of(ApiKey.generate(), **facts)


def test_only_its_own_secret_is_accepted_for_a_key() -> None:
    key = ApiKey.generate()
    assert record_of(key).fault(key, NOW) is None
    assert record_of(key).fault(replace(key, secret=ApiKey.generate().secret), NOW) == "wrong secret"


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"expires_at": NOW + DAY}, None),
        ({"expires_at": NOW}, "expired"),
        ({"revoked_at": NOW - DAY}, "revoked"),
        ({"revoked_at": NOW - DAY, "expires_at": NOW - DAY}, "revoked"),
    ],
    ids=["not yet expired", "expired", "revoked", "both"],
)
def test_a_key_is_active_until_it_expires_or_is_revoked(facts: dict[str, datetime], fault: str | None) -> None:
    key = ApiKey.generate()
    assert record_of(key, **facts).fault(key, NOW) == fault
    assert record_of(key, **facts).status(NOW) == (fault or "active")


def test_after_a_rotation_both_secrets_work_until_the_grace_period_ends() -> None:
    old = ApiKey.generate()
    record, new = record_of(old).rotated(NOW, DAY)
    assert new.key_id == old.key_id and new.sha256 != old.sha256
    assert record.fault(old, NOW + DAY / 2) is None and record.fault(new, NOW) is None
    assert record.fault(old, NOW + DAY) == "wrong secret" and record.fault(new, NOW + 999 * DAY) is None


def test_without_a_grace_period_earlier_secrets_stop_working_at_once() -> None:
    first = ApiKey.generate()
    record, second = record_of(first).rotated(NOW, DAY)
    record, third = record.rotated(NOW, timedelta(0))
    assert [record.fault(key, NOW) for key in (first, second, third)] == ["wrong secret", "wrong secret", None]


def test_a_second_rotation_does_not_extend_the_grace_period_of_the_first() -> None:
    first = ApiKey.generate()
    record, second = record_of(first).rotated(NOW, DAY)
    record, _ = record.rotated(NOW + DAY / 2, DAY)
    assert record.fault(first, NOW + DAY * 0.9) is None
    assert record.fault(first, NOW + DAY) == "wrong secret"
    assert record.fault(second, NOW + DAY * 1.4) is None
    record, _ = record.rotated(NOW + 9 * DAY, DAY)
    assert len(record.hashes) == 2, "secrets that are over are forgotten"


def test_months_begin_and_end_in_utc() -> None:
    in_auckland = datetime.fromisoformat("2026-04-01T09:00:00+13:00")
    assert quota_meter("k", in_auckland) == "quota#k#2026-03"
