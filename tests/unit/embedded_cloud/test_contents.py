"""Contents of objects are in one file on disk."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
from moto.s3.models import FakeKey

from embedded_cloud import moto_patches
from embedded_cloud.contents import Contents

ACCOUNT, REGION = "123456789012", "eu-west-1"


@pytest.fixture(autouse=True, scope="module")
def _patched() -> None:
    moto_patches.apply()


def test_data_is_read_at_the_offset_where_it_was_added() -> None:
    shared = Contents()
    added = [bytes([number]) * (1000 + number) for number in range(50)]
    with ThreadPoolExecutor(4) as pool:
        offsets = list(pool.map(shared.add, added))
    assert [shared.read(offset, len(data)) for offset, data in zip(offsets, added, strict=True)] == added


def test_an_object_keeps_its_content_and_its_hash() -> None:
    key = FakeKey("key", b"abc", ACCOUNT, REGION)
    assert key.value == key.value == b"abc"
    assert key.etag == '"900150983cd24fb0d6963f7d28e17f72"'
    key.value = b"de"
    assert key.value == b"de" and key.size == 2


def test_the_hash_of_a_new_object_needs_no_read_that_others_could_disturb() -> None:
    key = FakeKey("key", b"abc", ACCOUNT, REGION)
    key._value_buffer.read = lambda _size: b""
    assert key.etag == '"900150983cd24fb0d6963f7d28e17f72"'
    assert FakeKey("key", b"abc", ACCOUNT, REGION, etag="parts-2").etag == '"parts-2"'


def test_a_copy_shares_the_content_and_changes_without_the_original() -> None:
    key = FakeKey("key", b"abc", ACCOUNT, REGION)
    other = copy.deepcopy(key)
    other.value = b"d"
    assert (key.value, other.value) == (b"abc", b"d")
