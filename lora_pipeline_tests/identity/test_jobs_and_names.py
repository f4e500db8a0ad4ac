"""Job ids, version names and model keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import (
    IdentityError,
    JobId,
    parse_job_id,
    parse_model_key,
    parse_version_name,
)

UUID = "3e248bb6-012c-4384-ae6c-4b19c126d093"
HASH = "925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738"


@pytest.mark.parametrize("suffix", ["", "-u1", "-e1", "-e2", "-u12"])
def test_a_runpod_id_is_kept_whole_and_tells_its_base(suffix: str) -> None:
    assert parse_job_id(f" {UUID}{suffix}\n") == JobId(UUID + suffix, "runpod", UUID)
    upper = parse_job_id(UUID.upper() + suffix)
    assert (str(upper), upper.base) == (UUID.upper() + suffix, UUID)
    assert parse_job_id(f"sync-{UUID}{suffix}") == JobId(f"sync-{UUID}{suffix}", "runpod", UUID)


def test_a_replicate_training_id_is_kept_whole() -> None:
    text = "k8sy6bgx31rm80cr2cwbn2bqkw"
    assert parse_job_id(text) == JobId(text, "replicate", text)


@given(st.uuids(), st.sampled_from(["", "-u1", "-e1", "-e2"]))
def test_ids_of_one_job_share_their_base(uuid: object, suffix: str) -> None:
    assert parse_job_id(f"{uuid}{suffix}").base == parse_job_id(f"{uuid}-u1").base == str(uuid)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (HASH, "a 64-digit hash"),
        (f"acme/x:{HASH}", "a version"),
        ("K8SY6BGX31RM80CR2CWBN2BQKW", "other text"),
        ("k8sy6bgx31rm80cr2cwbn2bqk", "other text"),
        (f"{UUID}-", "other text"),
        (f"{UUID}-e1x", "other text"),
        ("3e248bb6", "a short hash"),
        ("style_1_vV7", "a version name"),
        ("https://api.replicate.com/v1/trainings/k8sy6bgx31rm80cr2cwbn2bqkw", "a URL of api.replicate.com"),
        ("acme/user_flux", "a model without a version"),
    ],
)
def test_what_is_no_job_is_named_for_what_it_is(text: str, what: str) -> None:
    with pytest.raises(IdentityError, match="No valid job id: got ") as refused:
        parse_job_id(text)
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("V7", 7),
        ("v7", 7),
        ("vV7", 7),
        (" V7 ", 7),
        ("V007", 7),
        ("style_1_vV7", 7),
        ("style_1_vV7.safetensors", 7),
        ("actor_6_V7.safetensors", 7),
        ("actor_6_V7.SAFETENSORS", 7),
        ("0006_V1", 1),
        ("actor_0006_V12", 12),
        ("Ink Intensity V7", 7),
        (f"style_{UUID}_V3", 3),
        ("V2_V3", 3),
    ],
)
def test_a_version_name_is_its_number(text: str, number: int) -> None:
    assert parse_version_name(text) == number


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("style_91_4000", "a step checkpoint"),
        ("style_91_4000.safetensors", "a step checkpoint"),
        ("style_1_vV7-000010.safetensors", "a step checkpoint"),
        (f"style_{UUID}", "a name made of a job id"),
        (f"{UUID}-e1", "a name made of a job id"),
        ("SBai_style_1", "number is not a version's"),
        ("7", "a number alone"),
        ("V", "other text"),
        ("V0", "a version name"),
        ("V-7", "number is not a version's"),
        ("V7.5", "other text"),
        ("V7b", "other text"),
        ("styleV7", "other text"),
        ("vvV7", "other text"),
        ("V1234567", "a version name"),
        ("V\u0667", "other text"),
        ("models/style_1_vV7.safetensors", "a path"),
        ("s3://b/style_1_vV7.safetensors", "a path or address"),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", "a Replicate training id"),
        (HASH, "a 64-digit hash"),
    ],
)
def test_a_name_without_a_version_is_refused_not_guessed(text: str, what: str) -> None:
    with pytest.raises(IdentityError, match="No valid version name: got ") as refused:
        parse_version_name(text)
    assert what in str(refused.value)


@given(
    st.integers(min_value=1, max_value=999_999),
    st.sampled_from(["V", "v", "vV"]),
    st.sampled_from(["", "style_91_", "actor_0006_", "my-style-"]),
    st.sampled_from(["", ".safetensors"]),
)
def test_every_numbered_name_gives_its_number(number: int, letter: str, prefix: str, ending: str) -> None:
    assert parse_version_name(f"{prefix}{letter}{number}{ending}") == number
    assert parse_version_name(f"{prefix}{letter}{number:06}{ending}") == number


@pytest.mark.parametrize("text", ["user-50c", "style_1", "a", "0", "x" * 63, f"user-{UUID}"])
def test_a_model_key_is_kept_as_it_is(text: str) -> None:
    assert parse_model_key(text) == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sandra@example.com", "an e-mail address"),
        ("User-50c", "Use 'user-50c'"),
        (" user-50c", "Use 'user-50c'"),
        ("-x", "other text"),
        ("x_", "other text"),
        ("a.b", "other text"),
        ("...", "other text"),
        ("..", "other text"),
        ("a/b", "a model without a version"),
        ("a|b", "other text"),
        ("a,b", "other text"),
        ("a[0]", "other text"),
        ("a\nb", "other text"),
        ("x" * 64, "64 characters"),
        (HASH, "a 64-digit hash"),
        ("é", "other text"),
    ],
)
def test_a_key_that_is_unsafe_somewhere_is_refused(text: str, what: str) -> None:
    with pytest.raises(IdentityError, match="No valid model key: got ") as refused:
        parse_model_key(text)
    assert what in str(refused.value)
    assert "sandra" not in str(refused.value)


def test_a_token_is_not_repeated_as_advice() -> None:
    with pytest.raises(IdentityError) as refused:
        parse_model_key("r8_ABCdefGHI")
    assert "abcdef" not in str(refused.value).lower()
