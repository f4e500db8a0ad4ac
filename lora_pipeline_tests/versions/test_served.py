"""What a model serves, for every spelling that a row may have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.versions.served import ModelRow, RegisteredVersion, served_lora, unregistered_version

HASH, OTHER = "ab" * 32, "cd" * 32
MODEL = "acme/user-50c-selfie-lora"
TRAINER = "ostris/flux-dev-lora-trainer:26dce37af90b9d997eeb970d92e47de3064d46c300504ae376c75bef6a9022d2"
DELIVERED = "https://replicate.delivery/xezq/abc/trained_model.tar"
ROW = ModelRow("user-50c", MODEL, f"{MODEL}:{HASH}", DELIVERED, 0.8, "user50c")
ACTIVE = RegisteredVersion(
    3, f"{MODEL}:{HASH}", "s3://loras/3.safetensors", "verified", "user50c", 1.0, False
)


@pytest.mark.parametrize(
    "stored",
    [
        HASH,
        HASH.upper(),
        f"user-50c-selfie-lora:{HASH}",
        f" {MODEL}:{HASH} ",
        f"{MODEL}:{MODEL}:{HASH}",
        f"https://replicate.com/{MODEL}/versions/{HASH}",
    ],
)
def test_every_stored_spelling_works_at_once_without_a_registry(stored: str) -> None:
    found = served_lora(replace(ROW, replicate_version_id=stored), None)
    assert found is not None
    assert found.provider_version is not None
    assert found.provider_version.qualified == f"{MODEL}:{HASH}"
    assert found.provider_version.for_predictions == HASH
    assert (found.weights_url, found.lora_scale, found.weights_state) == (DELIVERED, 0.8, "unverified")


@pytest.mark.parametrize(
    "stored", [None, "", HASH[:12], "q2vx7cp1rnrm80cng1m8kxwc9r", TRAINER, f"acme/another-lora:{OTHER}"]
)
def test_what_is_no_trained_version_of_the_model_is_never_given_out(stored: str | None) -> None:
    row = replace(ROW, replicate_version_id=stored)
    assert served_lora(row, None) is None
    found = served_lora(row, ACTIVE)
    assert found is not None
    assert (found.version, str(found.provider_version)) == (3, f"{MODEL}:{HASH}")
    assert found.weights_url == "s3://loras/3.safetensors"
    assert (found.problem is None) == (stored in (None, ""))


def test_the_active_version_has_its_own_weights_and_the_rows_scale() -> None:
    found = served_lora(ROW, ACTIVE)
    assert found is not None
    assert (found.version, found.weights_url, found.lora_scale) == (3, "s3://loras/3.safetensors", 0.8)


def test_a_version_set_past_the_history_is_served_with_its_own_weights() -> None:
    row = replace(ROW, replicate_version_id=OTHER)
    assert unregistered_version(row, ACTIVE) == f"{MODEL}:{OTHER}"
    other = replace(
        ACTIVE, number=2, provider_version=f"{MODEL}:{OTHER}", weights_url="s3://loras/2.safetensors"
    )
    found = served_lora(row, ACTIVE, other)
    assert found is not None
    assert (found.version, found.weights_url) == (2, "s3://loras/2.safetensors")


@pytest.mark.parametrize("url", [None, "", "unknown", f"https://replicate.delivery/{HASH}/weights.tar"])
def test_weights_whose_address_cannot_be_right_are_missing_not_guessed(url: str | None) -> None:
    found = served_lora(replace(ROW, lora_weights_url=url), None)
    assert found is not None
    assert (found.weights_url, found.weights_state) == (None, "missing")
    assert found.problem


def test_a_provider_without_versions_serves_its_weights() -> None:
    active = replace(ACTIVE, provider_version=None, provider="runpod")
    row = replace(ROW, replicate_model_id=None, replicate_version_id=None)
    found = served_lora(row, active)
    assert found is not None
    assert (found.version, found.provider_version, found.weights_url) == (3, None, "s3://loras/3.safetensors")


@given(st.text() | st.none(), st.text() | st.none(), st.text() | st.none(), st.booleans())
def test_whatever_a_row_holds_the_answer_is_a_version_of_this_model_or_none(
    model: str | None, version: str | None, url: str | None, registered: bool
) -> None:
    row = ModelRow("user-50c", model, version, url, 1.0, "user50c")
    found = served_lora(row, ACTIVE if registered else None)
    assert found is not None or not registered
    if found is not None and found.provider_version is not None:
        assert found.provider_version.qualified


def test_a_signed_address_is_kept_out_of_what_is_printed() -> None:
    assert DELIVERED not in repr(served_lora(ROW, None))
