"""Which prefixes the inventory lists."""

from __future__ import annotations

import pytest

from lora_pipeline.inventory.bucket_places import configured_places, place_name
from lora_pipeline.settings import SettingsError


def names(text: str, store: str = "/home/x/objects") -> list[str]:
    return [place_name(place) for place in configured_places(text, store)]


def test_our_own_store_is_listed_where_nothing_is_set() -> None:
    assert names("", "s3://b/some/prefix") == ["s3://b/some/prefix/loras/", "s3://b/some/prefix/trained/"]
    assert names("", "s3://b") == ["s3://b/loras/", "s3://b/trained/"]


def test_without_a_bucket_there_is_nothing_to_list() -> None:
    assert names("") == []
    assert names(" , ") == []


def test_a_setting_replaces_our_own_store() -> None:
    assert names("s3://b/x, s3://a", "s3://c") == ["s3://a/", "s3://b/x/"]


def test_a_folder_is_never_a_part_of_a_name() -> None:
    assert names("s3://b/users/1") == names("s3://b/users/1/") == ["s3://b/users/1/"]


def test_no_object_is_listed_twice() -> None:
    assert names("s3://b/x/y, s3://b/x, s3://b/x/y/z, s3://b/xy, s3://b/x") == ["s3://b/x/", "s3://b/xy/"]
    assert names("s3://b/x, s3://b") == ["s3://b/"]


def test_a_folder_may_hold_what_a_url_may_not() -> None:
    assert names("s3://b/a b+ü%20//c") == ["s3://b/a b+ü%20//c/"]


@pytest.mark.parametrize("text", ["b/x", "https://b.s3.amazonaws.com/x", "s3://", "s3:///x", "/folder"])
def test_what_is_no_bucket_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(SettingsError, match=r"LORA_INVENTORY names .* expected s3://bucket"):
        names(text)
