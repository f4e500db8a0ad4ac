"""Pages of listings become complete stretches, and stretches compared with what is stored become changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.inventory.bucket_changes import StoredFile, compare
from lora_pipeline.inventory.bucket_listing import (
    DisorderedListing,
    ListedFile,
    Stretch,
    stretches,
    version_stretches,
)

T = datetime(2026, 3, 1, tzinfo=UTC)
NOW = T + timedelta(days=1)

# Few different characters, so that keys meet: what sorts otherwise in other orders, and a surrogate pair in UTF-16.
KEYS = st.text("aB/+% ü\uffff\U0001f600.", min_size=1, max_size=4).map(lambda text: f"{text}.safetensors")


def entry(key: str, etag: str = '"e"', size: int = 1, at: datetime = T) -> dict[str, Any]:
    return {"Key": key, "ETag": etag, "Size": size, "LastModified": at}


def pages_of(entries: Sequence[Mapping[str, Any]], length: int) -> Iterator[dict[str, Any]]:
    """As S3 gives them: in the order of the keys' bytes."""
    ordered = sorted(entries, key=lambda one: one["Key"].encode())
    for start in range(0, max(len(ordered), 1), length):
        yield {
            "Contents": ordered[start : start + length],
            "IsTruncated": start + length < len(ordered),
        }


def version(
    key: str, name: str, at: datetime = T, *, latest: bool = False, marker: bool = False
) -> dict[str, Any]:
    found = {"Key": key, "VersionId": name, "IsLatest": latest, "LastModified": at, "marker": marker}
    return found if marker else found | {"ETag": f'"{name}"', "Size": 1}


def version_pages(entries: Sequence[Mapping[str, Any]], length: int) -> Iterator[dict[str, Any]]:
    """Entries in S3's order already: by key, each key's newest first; versions and markers in lists of their own."""
    for start in range(0, max(len(entries), 1), length):
        page = entries[start : start + length]
        yield {
            "Versions": [one for one in page if not one["marker"]],
            "DeleteMarkers": [one for one in page if one["marker"]],
            "IsTruncated": start + length < len(entries),
        }


def files_of(found: Sequence[Stretch]) -> list[ListedFile]:
    return [file for stretch in found for file in stretch.files]


@given(st.sets(KEYS, max_size=12), st.integers(1, 5))
def test_every_file_is_in_one_stretch_whatever_the_length_of_a_page(keys: set[str], length: int) -> None:
    found = list(stretches(pages_of([entry(key) for key in keys], length), ""))
    assert [file.key for file in files_of(found)] == sorted(keys, key=str.encode)
    assert [stretch.upto is None for stretch in found] == [False] * (len(found) - 1) + [True]
    after = ""
    for stretch in found:
        assert all(after < file.key <= (stretch.upto or file.key) for file in stretch.files)
        after = stretch.upto or after


def test_other_objects_are_counted_and_end_stretches() -> None:
    entries = [entry("a.json"), entry("b.SafeTensors"), entry("c.safetensors.tmp"), entry("d.png")]
    found = list(stretches(pages_of(entries, 2), ""))
    assert [(one.upto, len(one.files), one.others) for one in found] == [
        ("b.SafeTensors", 1, 1),
        (None, 0, 2),
    ]


def test_an_empty_bucket_is_one_empty_stretch() -> None:
    assert list(stretches([{"IsTruncated": False}], "")) == [Stretch(None, [], 0)]
    assert list(version_stretches([{"IsTruncated": False}], "")) == [Stretch(None, [], 0)]


def test_an_empty_page_in_the_middle_proves_nothing() -> None:
    pages: list[dict[str, Any]] = [
        {"IsTruncated": True},
        {"Contents": [entry("z.safetensors")], "IsTruncated": False},
    ]
    (found,) = stretches(pages, "")
    assert found.upto is None


def test_a_listing_that_is_not_in_order_is_refused() -> None:
    page = {"Contents": [entry("b.safetensors"), entry("a.safetensors")], "IsTruncated": False}
    with pytest.raises(DisorderedListing, match="directory buckets"):
        list(stretches([page], ""))
    with pytest.raises(DisorderedListing):
        list(stretches([{"Contents": [entry("a")], "IsTruncated": False}], "b"))
    pages = [
        {"Versions": [version("b", "1", latest=True), version("c", "1", latest=True)], "IsTruncated": True},
        {"Versions": [version("a", "1", latest=True)], "IsTruncated": False},
    ]
    with pytest.raises(DisorderedListing):
        list(version_stretches(pages, ""))


KEY = "a.safetensors"
LATER, LATEST = T + timedelta(hours=1), T + timedelta(hours=2)


def test_older_versions_say_when_they_were_overwritten() -> None:
    entries = [version(KEY, "2", LATER, latest=True), version(KEY, "1", T), version(KEY, "null", T)]
    newest, older, oldest = files_of(list(version_stretches(version_pages(entries, 9), "")))
    assert newest.is_current
    assert (older.overwritten_at, older.deleted_at) == (LATER, None)
    assert (oldest.object_version, oldest.overwritten_at) == ("", T)


def test_a_delete_marker_deletes_the_newest_version_and_no_other() -> None:
    entries = [
        version(KEY, "3", LATEST, latest=True, marker=True),
        version(KEY, "2", LATER),
        version(KEY, "1", T),
    ]
    newest, older = files_of(list(version_stretches(version_pages(entries, 9), "")))
    assert (newest.overwritten_at, newest.deleted_at) == (None, LATEST)
    assert (older.overwritten_at, older.deleted_at) == (LATER, None)


def test_a_delete_marker_that_was_followed_by_an_upload_deletes_nothing_now() -> None:
    entries = [
        version(KEY, "3", LATEST, latest=True),
        version(KEY, "2", LATER, marker=True),
        version(KEY, "1", T),
    ]
    newest, older = files_of(list(version_stretches(version_pages(entries, 9), "")))
    assert newest.is_current
    assert (older.overwritten_at, older.deleted_at) == (LATEST, None)


@given(
    st.lists(st.tuples(KEYS, st.integers(1, 4), st.booleans()), max_size=6, unique_by=lambda one: one[0]),
    st.integers(1, 5),
)
def test_a_keys_versions_stay_together_wherever_the_pages_are_cut(
    keys: list[tuple[str, int, bool]], length: int
) -> None:
    entries = []
    for key, count, deleted in sorted(keys, key=lambda one: one[0].encode()):
        if deleted:
            entries.append(version(key, "marker", LATEST, latest=True, marker=True))
        entries += [
            version(key, str(number), T, latest=number == count and not deleted)
            for number in range(count, 0, -1)
        ]
    whole = list(version_stretches(version_pages(entries, 1000), ""))
    cut = list(version_stretches(version_pages(entries, length), ""))
    assert files_of(cut) == files_of(whole)
    assert len(files_of(whole)) == sum(count for _, count, _ in keys)
    for stretch in cut[:-1]:
        assert stretch.upto is not None
        assert all(file.key <= stretch.upto for file in stretch.files)
    ends = [stretch.upto for stretch in cut[:-1]]
    assert ends == sorted(set(ends), key=lambda end: str(end).encode())


def test_older_versions_of_the_key_that_a_listing_goes_on_behind_are_left_alone() -> None:
    entries = [version(KEY, "1"), version("b.safetensors", "1", latest=True)]
    (found,) = version_stretches(version_pages(entries, 9), KEY)
    assert [file.key for file in found.files] == ["b.safetensors"]


# What a bucket may hold under a key: nothing, or one of a few contents.
BUCKET = st.dictionaries(st.sampled_from([f"{name}.safetensors" for name in "abcd"]), st.integers(1, 3))


def listed(bucket: Mapping[str, int]) -> list[ListedFile]:
    return [ListedFile(key, "", f'"{content}"', content, T) for key, content in sorted(bucket.items())]


def stored(bucket: Mapping[str, int]) -> list[StoredFile]:
    return [
        StoredFile(number, key, "", f'"{content}"', content, None, None)
        for number, (key, content) in enumerate(sorted(bucket.items()))
    ]


@given(BUCKET, BUCKET)
def test_a_comparison_tells_new_changed_overwritten_and_deleted(
    before: dict[str, int], now: dict[str, int]
) -> None:
    changes = compare(listed(now), stored(before), NOW)
    assert bool(changes) == (before != now)
    assert {file.key for file in changes.new} == {key for key in now if now[key] != before.get(key)}
    assert changes.known_keys == {key for key in now if key in before and now[key] != before[key]}
    gone = {mark.file.key: (mark.overwritten_at, mark.deleted_at) for mark in changes.gone}
    for key, content in before.items():
        if key not in now:
            assert gone.pop(key) == (None, NOW)
        elif now[key] != content:
            assert gone.pop(key) == (T, None)
    assert gone == {}


def test_equal_times_hide_nothing() -> None:
    changes = compare(listed({"a.safetensors": 1, "b.safetensors": 1}), stored({"a.safetensors": 1}), NOW)
    assert [file.key for file in changes.new] == ["b.safetensors"]


@pytest.mark.parametrize("other", [("", '"1"', 2), ("", '"2"', 1), ("v", '"1"', 1)])
def test_version_etag_and_size_each_make_another_file(other: tuple[str, str, int]) -> None:
    now = [ListedFile(KEY, other[0], other[1], other[2], T)]
    assert compare(now, stored({KEY: 1}), NOW).new == now


def test_marks_of_versions_are_set_and_taken_back() -> None:
    file = ListedFile(KEY, "v", '"1"', 1, T, None, LATER)
    row = StoredFile(7, KEY, "v", '"1"', 1, None, None)
    (mark,) = compare([file], [row], NOW).marked
    assert (mark.overwritten_at, mark.deleted_at) == (None, LATER)
    back = compare([file._replace(deleted_at=None)], [row._replace(deleted_at=LATER)], NOW)
    assert (back.marked[0].deleted_at, back.new, back.gone) == (None, (), ())


def test_a_version_that_was_removed_for_good_is_gone_though_its_key_has_another() -> None:
    row = StoredFile(7, KEY, "1", '"1"', 1, None, None)
    changes = compare([ListedFile(KEY, "2", '"2"', 1, LATER)], [row], NOW)
    assert [(mark.overwritten_at, mark.deleted_at) for mark in changes.gone] == [(None, NOW)]
