"""What a caption says: the trigger word literally, once."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.archives import caption_with_trigger, default_caption

TRIGGERS = st.sampled_from(["user50", "user50c", "name", "trigger", "TOK", "my_style-2", "ß"])
WORDS = st.sampled_from(
    [
        "user50",
        "USER50",
        "user50c",
        "xuser50",
        "user50's",
        "[trigger]",
        "[NAME]",
        "[trigger]s",
        "a",
        "photo",
        ",",
        ".",
        "\n",
        "é",
    ]
)


def mentions(text: str, trigger: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(trigger)}(?!\w)", text))


@pytest.mark.parametrize(
    ("model_type", "gender", "caption"),
    [
        ("person", "woman", "a photo of user50, a woman"),
        ("person", " Female", "a photo of user50, a woman"),
        ("person", "M", "a photo of user50, a man"),
        ("person", "man", "a photo of user50, a man"),
        ("person", "non-binary", "a photo of user50, a person"),
        ("person", None, "a photo of user50, a person"),
        ("object", None, "a photo of user50"),
        ("object", "woman", "a photo of user50"),
        ("style", None, "an image in the style of user50"),
    ],
)
def test_an_image_without_a_caption_gets_one_by_kind(
    model_type: str, gender: str | None, caption: str
) -> None:
    assert default_caption("user50", model_type, gender) == caption
    for missing in (None, "", " \n\t "):
        assert caption_with_trigger(missing, "user50", model_type, gender) == caption


@pytest.mark.parametrize(
    ("given_caption", "written"),
    [
        ("a woman on a beach", "user50, a woman on a beach"),
        ("user50 on a beach", "user50 on a beach"),
        ("User50 on a beach", "user50 on a beach"),
        ("user50, USER50 and user50 again", "user50, and again"),
        ("a portrait of [trigger], smiling", "a portrait of user50, smiling"),
        ("[name] and [trigger]", "user50 and"),
        ("a [trigger]s hat", "a user50 s hat"),
        ("user50c at home", "user50, user50c at home"),
        ("xuser50 user500 user50_b", "user50, xuser50 user500 user50_b"),
        ("user50's hat", "user50's hat"),
        ("line one\r\nline\ttwo\x00", "user50, line one line two"),
        ("Übung mit user50 🤳", "Übung mit user50 🤳"),
        ("lost \udce4 byte", "user50, lost byte"),
    ],
)
def test_a_caption_keeps_its_words_and_gets_the_trigger_once(given_caption: str, written: str) -> None:
    assert caption_with_trigger(given_caption, "user50", "person") == written


@pytest.mark.parametrize("trigger", ["", " ", "two words", "a,b", "[trigger]", "-x", "a\n"])
def test_a_trigger_that_is_no_word_is_refused(trigger: str) -> None:
    with pytest.raises(ValueError, match="trigger word"):
        caption_with_trigger("a photo", trigger, "person")


@settings(deadline=None)
@given(
    caption=st.one_of(st.text(), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join)),
    trigger=TRIGGERS,
)
def test_whatever_the_caption_the_trigger_stands_in_it_once(caption: str, trigger: str) -> None:
    written = caption_with_trigger(caption, trigger, "person")
    assert mentions(written, trigger) == 1
    assert len(written.splitlines()) == 1
    assert written.encode()
    assert caption_with_trigger(written, trigger, "person") == written
