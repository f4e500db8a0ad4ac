"""Names are data: shown as they are, never followed as paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.image_sets.names import (
    is_apple_double,
    is_bystander,
    is_caption,
    is_model_key,
    path_segment,
    shown,
    stem,
)
from lora_pipeline.objects.keys import check_key


@pytest.mark.parametrize(
    "name",
    [
        "my photo.jpg",
        "Grün & süß.HEIC",
        "🏖️ beach 👩‍🦰.jpg",
        "../../etc/passwd.jpg",
        "a+b%20c.jpg",
        "写真.png",
    ],
)
def test_ordinary_strange_names_are_shown_as_they_are(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize("name", ["a\x00.jpg", "a\nb.jpg", "a\x1b[31m.jpg", "gpj.\u202eexe", "caf\udce9.jpg"])
def test_what_hides_or_cannot_be_stored_is_replaced(name: str) -> None:
    text = shown(name)
    assert "\ufffd" in text
    text.encode()
    assert text.isprintable() or "\ufffd" in text


@given(st.text(st.characters(codec=None), max_size=30))
def test_every_name_can_be_stored_and_is_stable(name: str) -> None:
    text = shown(name)
    text.encode()
    assert "\x00" not in text
    assert shown(text) == text


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "model.toml", "a.txt", "b/A.TXT", ".gitkeep"],
)
def test_what_systems_leave_is_no_image_and_no_fault(name: str) -> None:
    assert is_bystander(name)


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", "a", "notes.pdf", "._a.jpg", "b/._a.jpg", "._a.txt", "a.mov"]
)
def test_everything_else_is_taken_for_an_image(name: str) -> None:
    assert not is_bystander(name)


def test_apple_doubles_are_known_by_name() -> None:
    assert is_apple_double("photos/._a.jpg")
    assert not is_apple_double("photos/_.a.jpg")
    assert not is_caption("._a.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", "a"), ("b/a.tar.png", "b/a.tar"), ("a", "a"), (".jpg", ".jpg"), ("a b.JPG", "a b"), ("", "")],
)
def test_the_stem_ties_an_image_to_its_caption(name: str, expected: str) -> None:
    assert stem(name) == expected


@pytest.mark.parametrize("key", ["user-50c", "style_1", "42585527", "a", "A.b-c_d", "x" * 100])
def test_model_keys(key: str) -> None:
    assert is_model_key(key)


@pytest.mark.parametrize(
    "key", ["", "a@b.c", "a b", "ü", "..", "a..b", "-a", "a-", ".hidden", "a/b", "x" * 101, "a\n", "🏖️"]
)
def test_what_is_no_model_key(key: str) -> None:
    assert not is_model_key(key)


@given(st.text(min_size=1, max_size=64))
def test_any_user_id_is_one_plain_segment_of_a_key(user_id: str) -> None:
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return
    segment = path_segment(user_id)
    assert check_key(f"users/{segment}/originals/x").count("/") == 3
    assert segment not in (".", "..")
    assert len(segment) <= 200


@given(st.lists(st.text(min_size=1, max_size=64), min_size=2, max_size=2, unique=True))
def test_two_users_never_share_a_segment(ids: list[str]) -> None:
    one, other = ids
    assert path_segment(one) != path_segment(other)


@pytest.mark.parametrize("user_id", [".", "..", "a/b", "../x", "a=2Fb"])
def test_ids_that_look_like_paths_are_escaped(user_id: str) -> None:
    assert "/" not in path_segment(user_id)
    assert "." not in path_segment(user_id)
