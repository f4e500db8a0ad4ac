"""What holds for any text whatever: one kind of error, no surprises, and a cheap, pure package."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.identity import (
    Endpoint,
    IdentityError,
    ObjectPrefix,
    ObjectUrlRules,
    PrefixRename,
    parse_job_id,
    parse_model,
    parse_model_key,
    parse_object_url,
    parse_version,
    parse_version_name,
)

RULES = ObjectUrlRules(
    aliases={"cdn.example.com": ObjectPrefix("s3/aws", "b", "p/")},
    endpoints={"localhost:9000": Endpoint("minio", "virtual")},
    renames=(PrefixRename("b", "old", "new"),),
)


def parse_under_rules(text: str) -> object:
    return parse_object_url(text, RULES)


PARSERS: list[Callable[[str], object]] = [
    parse_job_id,
    parse_model,
    parse_model_key,
    parse_object_url,
    parse_under_rules,
    parse_version,
    parse_version_name,
]
ANY_CHARACTER = st.characters(exclude_categories=())
PIECES = st.sampled_from(
    [
        *[
            "s3://",
            "gs://",
            "https://",
            "http://",
            "replicate.com",
            "api.replicate.com/v1/models/",
            ".amazonaws.com",
        ],
        *[
            "b.s3",
            "s3.us-west-1",
            ".cn",
            "storage.googleapis.com",
            "cdn.example.com",
            "localhost:9000",
            "/",
            "//",
            ":",
        ],
        *[
            "@",
            "?",
            "#",
            "&",
            "%",
            "%FF",
            "%00",
            "+",
            "..",
            "\\",
            " ",
            "\t",
            "\n",
            "versionId=",
            "acl",
            "arn:",
            "acme",
        ],
        *[
            "V7",
            "v",
            "_",
            "-e1",
            "a" * 64,
            "A" * 63,
            "k8sy6bgx31rm80cr2cwbn2bqkw",
            "\ud800",
            "\u212a",
            "versions",
        ],
        *[
            "3e248bb6-012c-4384-ae6c-4b19c126d093",
            "ap-s3alias",
            "s3-website-us-west-1",
            "[",
            "]",
            "xn--",
            "\u3002",
        ],
    ]
)
TEXTS = st.one_of(
    st.text(ANY_CHARACTER), st.lists(PIECES | st.text(ANY_CHARACTER, max_size=3), max_size=9).map("".join)
)


@settings(max_examples=500)
@given(TEXTS)
def test_no_text_raises_anything_but_an_identity_error(text: str) -> None:
    for parse in PARSERS:
        refusal = refusal_of(parse, text)
        assert len(refusal) < 3000
        assert "\n" not in refusal


def refusal_of(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except IdentityError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [None, 7, b"V7", ["V7"]])
def test_a_value_that_is_no_text_raises_an_identity_error(
    parse: Callable[[Any], object], value: object
) -> None:
    with pytest.raises(IdentityError, match="no text"):
        parse(value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("parse", PARSERS)
def test_a_huge_text_is_answered_at_once(parse: Callable[[str], object]) -> None:
    for unit in ("a", "/", ":", "a/", "a:", "V", "_", "%41", "@", "s3.", "https://a", "?", "-e1"):
        assert len(refusal_of(parse, unit * 30_000)) < 3000
        assert len(refusal_of(parse, "https://b.s3.amazonaws.com/" + unit * 30_000)) < 3000


def test_an_error_survives_the_way_between_processes() -> None:
    with pytest.raises(IdentityError) as refused:
        parse_version("26dce37a")
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_importing_the_parsers_loads_nothing_but_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import lora_pipeline.identity; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
        "; print(*sorted(name for name in sys.modules if name.startswith('lora_pipeline.')))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    others, ours = answer.stdout.splitlines()
    assert others == "lora_pipeline"
    assert all(name.startswith("lora_pipeline.identity") for name in ours.split())
