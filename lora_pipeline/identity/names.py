"""Names that this project and its predecessors gave: version names (`V7`) and model keys (`user-50c`)."""

import re

from lora_pipeline.identity.errors import refusal, require_text
from lora_pipeline.identity.kinds import RUNPOD_JOB, kind_of

_VERSION_NAME = re.compile(
    r"(?:[^/\\\x00-\x1f]*[_ -])?[vV]{1,2}0*(?P<number>[1-9][0-9]{0,5})(?:\.[sS]afetensors|\.SAFETENSORS)?"
)
_VERSION_EXPECTED = "a name that ends in V and a number, such as V7, style_1_vV7 or 0006_V1"
_STEP_CHECKPOINT = re.compile(r".+[_-][0-9]{3,}")
_NUMBERED = re.compile(r".+[_ -][0-9]+")

_MODEL_KEY = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_MODEL_KEY_EXPECTED = "1 to 63 lower-case letters, digits, - and _, with a letter or digit at both ends, such as user-50c or style_1"


def parse_version_name(text: str) -> int:
    """The number in a version's name: `V7`, `v7`, `vV7`, `style_1_vV7`, `actor_6_V7.safetensors` are 7.

    `V` and `v` come doubled where a template added one to a name that had its own. A step checkpoint
    (`style_91_4000`), a plain number and a name without a V are refused: their last number is no version.
    Raises IdentityError.
    """
    text = require_text(text, "version name", _VERSION_EXPECTED).strip()
    name = _VERSION_NAME.fullmatch(text)
    if name:
        return int(name["number"])
    advice = "Give only the file's name." if "/" in text or "\\" in text else "Number the version by hand."
    raise refusal("version name", text, _what_name(text), _VERSION_EXPECTED, advice)


def _what_name(text: str) -> str:
    stem = text[: -len(".safetensors")] if text.lower().endswith(".safetensors") else text
    if "/" in text or "\\" in text:
        return "a path or address"
    if RUNPOD_JOB.search(stem):
        return "a name made of a job id"
    if _STEP_CHECKPOINT.fullmatch(stem):
        return "a step checkpoint: its last number counts training steps"
    if _NUMBERED.fullmatch(stem):
        return "a name whose number is not a version's"
    if re.fullmatch(r"[0-9]+", stem):
        return "a number alone"
    return kind_of(stem).words


def parse_model_key(text: str) -> str:
    """`text` where it can be a model's key: the partition in Dagster, a segment of paths and object keys,
    and the start of the destination's name at Replicate.

    The alphabet is what is safe in all of them: lower-case letters, digits, `-` and `_`, 63 at most, a letter
    or digit at both ends. Dagster forbids `...` and control characters in dynamic partition keys and `|`, `,`,
    `[`, `]` elsewhere; Replicate takes no capitals; file systems that ignore case would merge two keys that
    differ by it; a dot could make `..`. Keys are opaque: an e-mail address is refused because what Dagster
    stores cannot be erased. Nothing is corrected, not even surrounding space. Raises IdentityError.
    """
    text = require_text(text, "model key", _MODEL_KEY_EXPECTED)
    if _MODEL_KEY.fullmatch(text):
        return text
    stripped = text.strip()
    if "@" in text:
        found, advice = (
            "an e-mail address",
            "Use the user's id, such as user-50c: keys must not name a person.",
        )
    elif _MODEL_KEY.fullmatch(stripped.lower()) and kind_of(stripped).name != "token":
        found, advice = "a key with capitals or surrounding space", f"Use {stripped.lower()!r}."
    else:
        found, advice = kind_of(stripped).words, "Choose a key of those characters."
    raise refusal("model key", text, found, _MODEL_KEY_EXPECTED, advice)
