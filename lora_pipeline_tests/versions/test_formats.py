"""Every stored spelling of a version is understood at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import VersionRef, is_trainer_version, parse_version
from lora_pipeline.versions.formats import KNOWN_TRAINERS, read_stored, weights_problem

HASH = "925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738"
MODEL = "acme/user-50c-selfie-lora"
NAME = "user-50c-selfie-lora"
QUALIFIED = f"{MODEL}:{HASH}"


@pytest.mark.parametrize(
    "stored",
    [
        HASH,
        HASH.upper(),
        f"  {HASH}\n",
        f"{NAME}:{HASH}",
        QUALIFIED,
        f"{MODEL}:{MODEL}:{HASH}",
        f"Acme/User-50c-Selfie-Lora:{HASH.upper()}",
        f"https://replicate.com/{MODEL}/versions/{HASH}",
        f"replicate.com/{MODEL}:{HASH}",
        f"https://api.replicate.com/v1/models/{MODEL}/versions/{HASH}",
    ],
)
def test_every_spelling_is_one_version(stored: str) -> None:
    found = read_stored(MODEL, stored)
    assert found.canonical_version == QUALIFIED
    assert found.version is not None
    assert found.version.for_predictions == HASH
    assert found.version_problem is None


@pytest.mark.parametrize(
    "stored",
    [
        MODEL,
        f" {MODEL.upper()} ",
        f"https://replicate.com/{MODEL}",
        f"https://replicate.com/{MODEL}/versions",
        QUALIFIED,
    ],
)
def test_every_spelling_of_the_model_is_one_model(stored: str) -> None:
    found = read_stored(stored, HASH)
    assert (found.canonical_model, found.canonical_version) == (MODEL, QUALIFIED)


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        ("925da5f5", "a short hash"),
        (HASH[:-1], "a short hash: 63 of 64"),
        (HASH + "0", "65 digits"),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", "training id"),
        (f"acme/somebody-else:{HASH}", "another model"),
        ("https://replicate.delivery/xezq/abc/trained_model.tar", "URL of replicate.delivery"),
    ],
)
def test_what_is_no_version_of_this_model_is_called_what_it_is(stored: str, what: str) -> None:
    found = read_stored(MODEL, stored)
    assert found.version is None
    assert found.version_problem is not None
    assert what in found.version_problem


@pytest.mark.parametrize("trainer", KNOWN_TRAINERS)
def test_a_trainers_version_is_recognised_however_it_is_spelled(trainer: object) -> None:
    digits = str(trainer).partition(":")[2]
    for text in (str(trainer), digits, f"{NAME}:{digits}", f"{MODEL}:{digits}"):
        found = read_stored(MODEL, text)
        assert found.is_trainer
        assert found.canonical_version is None


@given(
    st.sampled_from([*KNOWN_TRAINERS, parse_version(QUALIFIED)]),
    st.sampled_from(
        ["{hash}", "{name}:{hash}", "{owner}/{name}:{hash}", "{owner}/{name}:" + HASH, "other/{name}:{hash}"]
    ),
)
def test_trainers_are_those_that_the_identity_rule_knows(version: VersionRef, spelling: str) -> None:
    text = spelling.format(hash=version.hash, owner=version.owner, name=version.name)
    found = read_stored(None, text)
    assert found.is_trainer is is_trainer_version(parse_version(text), KNOWN_TRAINERS)


@pytest.mark.parametrize("stored", [None, "", "   "])
def test_nothing_stored_is_missing_and_not_malformed(stored: str | None) -> None:
    found = read_stored(MODEL, stored)
    assert (found.version, found.version_problem) == (None, None)


@pytest.mark.parametrize("stored", [None, "", "k8sy6bgx31rm80cr2cwbn2bqkw", "user-50c-selfie-lora", "a/b/c"])
def test_a_model_id_that_names_no_model_is_a_problem(stored: str | None) -> None:
    found = read_stored(stored, HASH)
    assert found.model is None
    assert found.model_problem
    assert found.canonical_version is None


@given(st.none() | st.text(max_size=120), st.none() | st.text(max_size=120))
def test_reading_never_raises(model: str | None, version: str | None) -> None:
    found = read_stored(model, version)
    assert found.model is not None or found.model_problem
    if found.canonical_version:
        again = read_stored(found.canonical_model, found.canonical_version)
        assert again.canonical_version == found.canonical_version


@pytest.mark.parametrize(
    "url", [None, "", " ", "unknown", f"https://replicate.delivery/xezq/{HASH}/trained_model.tar"]
)
def test_weights_that_nobody_knows_are_a_problem(url: str | None) -> None:
    assert weights_problem(url, read_stored(MODEL, HASH).version)


@pytest.mark.parametrize(
    "url", ["s3://loras/user-50c/ab.safetensors", "https://replicate.delivery/xezq/nAhW/trained_model.tar"]
)
def test_weights_somewhere_are_no_problem(url: str) -> None:
    assert weights_problem(url, read_stored(MODEL, HASH).version) is None
