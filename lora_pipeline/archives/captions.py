"""What stands in a caption, so that the trigger word is what the training learns.

Trainers differ in what they do with the trigger word (replace a placeholder, put it in front, ignore it), so
every caption carries it literally, and once: twice would be learnt as part of the picture.
"""

import re

_GENDERS = {
    "woman": "woman",
    "female": "woman",
    "f": "woman",
    "man": "man",
    "male": "man",
    "m": "man",
}
# ai-toolkit, on which the Flux trainers are built, replaces these by the trigger word.
_PLACEHOLDERS = (r"\[trigger\]", r"\[name\]")
# Line breaks and other control characters, and what is left of bytes that were no UTF-8.
_SPACE = re.compile("[\\s\x00-\x1f\x7f\ud800-\udfff]+")


def default_caption(trigger: str, model_type: str, gender: str | None = None) -> str:
    """The caption of an image that came without one. ``model_type`` is ``person``, ``object`` or ``style``.

    ``gender`` counts for persons: woman/female/f, man/male/m in any case; anything else is "person".
    """
    _check_trigger(trigger)
    if model_type == "style":
        return f"an image in the style of {trigger}"
    if model_type == "person":
        return f"a photo of {trigger}, a {_GENDERS.get((gender or '').strip().lower(), 'person')}"
    return f"a photo of {trigger}"


def caption_with_trigger(
    caption: str | None, trigger: str, model_type: str, gender: str | None = None
) -> str:
    """The caption to be written: one line of text in which ``trigger`` stands literally, exactly once, as a word.

    Without a caption the default one is taken. A trigger in another case, or a trainer's placeholder, counts as the
    trigger: the first becomes the literal word, further ones go. A caption without any gets it in front.
    """
    _check_trigger(trigger)
    text = _SPACE.sub(" ", caption or "").strip()
    if not text:
        return default_caption(trigger, model_type, gender)
    mentions = re.compile("|".join([rf"(?<!\w){re.escape(trigger)}(?!\w)", *_PLACEHOLDERS]), re.IGNORECASE)
    first = mentions.search(text)
    if first is None:
        return f"{trigger}, {text}"
    before, after = text[: first.start()], text[first.end() :]
    # A placeholder may touch other letters ("[trigger]s"); the trigger itself has to stay a word of its own.
    before += " " * bool(re.search(r"\w$", before))
    after = " " * bool(re.match(r"\w", after)) + after
    if mentions.search(after):
        return _tidy(before + trigger + _without(mentions, after))
    return before + trigger + after


def _without(mentions: re.Pattern[str], text: str) -> str:
    while mentions.search(text):  # removing one may bring another together: "[[name]name]"
        text = mentions.sub(" ", text)
    return text


def _tidy(text: str) -> str:
    """One space between words, none before a comma, no comma twice: what taking words out leaves behind."""
    text = _SPACE.sub(" ", text)
    text = re.sub(r" (?=[,.;])", "", text)
    return re.sub(r",(?:,)+", ",", text).strip(" ,")


def _check_trigger(trigger: str) -> None:
    if not re.fullmatch(r"\w+(-\w+)*", trigger):
        raise ValueError(
            f"The trigger word is {trigger!r}. It has to be one word of letters, digits, '_' or '-', such as 'user50'"
        )
