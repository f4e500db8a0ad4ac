"""Provider versions and models in every spelling, and what is refused in their place."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import (
    IdentityError,
    ModelRef,
    VersionRef,
    is_trainer_version,
    parse_model,
    parse_version,
)

HASH = "925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738"
FULL = VersionRef(HASH, "acme", "user_flux")
TRAINER = VersionRef("e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497", "ostris", "trainer")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (HASH, VersionRef(HASH)),
        (HASH.upper(), VersionRef(HASH)),
        (f" \t{HASH}\n", VersionRef(HASH)),
        (f"user_flux:{HASH}", VersionRef(HASH, None, "user_flux")),
        (f"acme/user_flux:{HASH}", FULL),
        (f"Acme/User_Flux:{HASH.upper()}", FULL),
        (f"\u00a0acme/user_flux:{HASH} ", FULL),
        (f"acme/user_flux:acme/user_flux:{HASH}", FULL),
        (f"user_flux:acme/user_flux:{HASH}", FULL),
        (f"acme/user_flux:user_flux:{HASH}", FULL),
        (f"user_flux:user_flux:{HASH}", VersionRef(HASH, None, "user_flux")),
        (f"https://replicate.com/acme/user_flux/versions/{HASH}", FULL),
        (f"https://replicate.com/acme/user_flux/versions/{HASH.upper()}/", FULL),
        (f"https://replicate.com/acme/user_flux/versions/{HASH}/api?tab=python#top", FULL),
        (f"http://www.replicate.com/acme/user_flux/versions/{HASH}", FULL),
        (f"replicate.com/acme/user_flux/versions/{HASH}", FULL),
        (f"https://replicate.com/acme/user_flux:{HASH}", FULL),
        (f"https://api.replicate.com/v1/models/acme/user_flux/versions/{HASH}", FULL),
    ],
)
def test_every_spelling_that_occurs_is_one_version(text: str, version: VersionRef) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", "a Replicate training id"),
        ("acme/user_flux:k8sy6bgx31rm80cr2cwbn2bqkw", "a model followed by a Replicate training id"),
        ("3e248bb6-012c-4384-ae6c-4b19c126d093-e1", "a RunPod job id"),
        (HASH[:8], "a short hash: 8 of 64 digits"),
        (f"user_flux:{HASH[:8]}", "a short hash: 8 of 64 digits"),
        (HASH[:63], "a short hash: 63 of 64 digits"),
        (HASH + "0", "a hash of 65 digits instead of 64"),
        (HASH[:63] + "g", "64 characters that are not all hexadecimal"),
        (HASH[:63] + "\uff10", "64 characters that are not all hexadecimal"),
        ("acme/user_flux", "a model without a version"),
        ("acme/user_flux:", "a model followed by nothing"),
        ("V7", "a version name"),
        ("sandra@example.com", "an e-mail address"),
        ("r8_abcdefghijklmnop", "an API token"),
        (f"sha256:{HASH}", "no model"),
        (f"acme/a/b:{HASH}", "no model"),
        (f":{HASH}", "no model"),
        (f"{HASH}:{HASH}", "no model"),
        (f"acme/one:acme/two:{HASH}", "two different models"),
        (f"acme/one:other/one:{HASH}", "two different models"),
        ("https://replicate.com/acme/user_flux", "the page of a model"),
        (f"https://replicate.com/acme/user_flux/versions/{HASH[:8]}", "a short hash"),
        (f"https://replicate.com/docs/x/versions/{HASH}", "names no model"),
        ("https://api.replicate.com/v1/trainings/k8sy6bgx31rm80cr2cwbn2bqkw", "the address of a training"),
        ("https://replicate.com/p/k8sy6bgx31rm80cr2cwbn2bqkw", "the address of a prediction"),
        (f"https://replicate.com.evil.example/a/b/versions/{HASH}", "a URL of replicate.com.evil.example"),
        (f"https://evil.example/replicate.com/a/versions/{HASH}", "a URL of evil.example"),
        (f"https://replicate.com:8443/a/b/versions/{HASH}", "a URL of replicate.com:8443"),
        (f"https://replicate.com@evil.example/a/b/versions/{HASH}", "credentials"),
        (f"https://replicate.com//a/b/versions/{HASH}", "names no model"),
        (f"https://repl\u0456cate.com/a/b/versions/{HASH}", "no plain host name"),
        (f"https://replicate.delivery/xezq/{HASH}/trained_model.tar", "a URL of replicate.delivery"),
        (f"s3://bucket/{HASH}", "the address of a file or object"),
    ],
)
def test_what_is_no_version_is_named_for_what_it_is(text: str, what: str) -> None:
    with pytest.raises(IdentityError, match=r"No valid version: got .* Expected .*\. \w+") as refused:
        parse_version(text)
    assert what in str(refused.value)


def test_tokens_and_e_mail_addresses_are_not_repeated() -> None:
    for text in ("r8_abcdefghijklmnop", "sandra@example.com", "acme/x:r8_abcdefghijklmnop"):
        with pytest.raises(IdentityError) as refused:
            parse_version(text)
        assert "abcdef" not in str(refused.value)
        assert "sandra" not in str(refused.value)


PARTS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,30}", fullmatch=True).filter(
    lambda part: part not in ("md5", "sha1", "sha256")
)
HASHES = st.text(st.sampled_from(string.hexdigits.lower()), min_size=64, max_size=64)
VERSIONS = st.one_of(
    HASHES.map(VersionRef),
    st.builds(lambda digits, name: VersionRef(digits, None, name), HASHES, PARTS),
    st.builds(VersionRef, HASHES, PARTS, PARTS),
)


@given(VERSIONS)
def test_the_canonical_form_reads_back_as_the_same_version(version: VersionRef) -> None:
    assert parse_version(str(version)) == version
    assert parse_version(f"  {version} ".upper()) == version


@given(HASHES, PARTS, PARTS)
def test_each_endpoint_gets_the_form_it_takes(digits: str, owner: str, name: str) -> None:
    version = VersionRef(digits, owner, name)
    assert version.for_predictions == digits
    assert version.qualified == f"{owner}/{name}:{digits}"
    assert version.api_path == f"models/{owner}/{name}/versions/{digits}"
    assert parse_version(f"https://api.replicate.com/v1/{version.api_path}") == version
    assert VersionRef(digits).of_model(ModelRef(owner, name)) == version
    assert VersionRef(digits, None, name).of_model(ModelRef(owner, name)) == version


@pytest.mark.parametrize("version", [VersionRef(HASH), VersionRef(HASH, None, "user_flux")])
def test_a_form_that_needs_the_owner_is_refused_where_it_is_unknown(version: VersionRef) -> None:
    assert version.for_predictions == HASH
    assert version.model is None
    with pytest.raises(IdentityError, match="without its owner"):
        _ = version.qualified
    with pytest.raises(IdentityError, match="without its owner"):
        _ = version.api_path


def test_a_version_is_not_completed_with_another_model() -> None:
    with pytest.raises(IdentityError, match="another model"):
        FULL.of_model(ModelRef("acme", "other"))
    with pytest.raises(IdentityError, match="another model"):
        VersionRef(HASH, None, "user_flux").of_model(ModelRef("acme", "other"))


@pytest.mark.parametrize(
    ("digits", "owner", "name"),
    [
        (HASH.upper(), None, None),
        (HASH[:8], None, None),
        (HASH, "acme", None),
        (HASH, "Acme", "x"),
        (HASH, "a/b", "x"),
    ],
)
def test_a_version_record_cannot_hold_another_spelling(
    digits: str, owner: str | None, name: str | None
) -> None:
    with pytest.raises(IdentityError):
        VersionRef(digits, owner, name)


@pytest.mark.parametrize(
    ("version", "is_trainer"),
    [
        (TRAINER, True),
        (VersionRef(TRAINER.hash), True),
        (VersionRef(TRAINER.hash, "acme", "user_flux"), True),
        (VersionRef(HASH, "ostris", "trainer"), True),
        (VersionRef(HASH, None, "trainer"), False),
        (VersionRef(HASH), False),
        (FULL, False),
    ],
)
def test_a_trainers_version_is_recognised(version: VersionRef, is_trainer: bool) -> None:
    assert is_trainer_version(version, [VersionRef("0" * 64, "ostris", "older"), TRAINER]) is is_trainer
    assert is_trainer_version(version, []) is False


def test_a_bare_trainer_hash_does_not_match_every_bare_hash() -> None:
    assert not is_trainer_version(VersionRef(HASH), [VersionRef(TRAINER.hash)])


@pytest.mark.parametrize(
    "text",
    [
        "acme/user_flux",
        " Acme/User_Flux\n",
        "https://replicate.com/acme/user_flux",
        "https://replicate.com/acme/user_flux/",
        "https://www.replicate.com/acme/user_flux/versions",
        "replicate.com/acme/user_flux/api?x=1",
        "https://api.replicate.com/v1/models/acme/user_flux",
        "https://api.replicate.com/v1/models/acme/user_flux/versions",
    ],
)
def test_every_spelling_of_a_model_is_one_model(text: str) -> None:
    assert parse_model(text) == ModelRef("acme", "user_flux")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("user_flux", "other text"),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", "a Replicate training id"),
        (f"acme/user_flux:{HASH}", "a version"),
        (f"https://replicate.com/acme/user_flux/versions/{HASH}", "The model is acme/user_flux"),
        (HASH, "a 64-digit hash"),
        ("acme/user/flux", "other text"),
        ("acme/../x", "other text"),
        ("sandra@example.com", "an e-mail address"),
        ("https://replicate.com/acme", "names no model"),
        ("https://replicate.com/collections/flux", "names no model"),
        ("https://api.replicate.com/acme/user_flux", "names no model"),
        ("https://huggingface.co/acme/user_flux", "a URL of huggingface.co"),
    ],
)
def test_what_is_no_model_is_named_for_what_it_is(text: str, what: str) -> None:
    with pytest.raises(IdentityError, match="No valid model: got ") as refused:
        parse_model(text)
    assert what in str(refused.value)


@given(PARTS, PARTS)
def test_a_model_reads_back_from_its_name_and_its_page(owner: str, name: str) -> None:
    model = ModelRef(owner, name)
    assert parse_model(str(model)) == model
    assert parse_model(ModelRef("acme", name).page_url) == ModelRef("acme", name)


@pytest.mark.parametrize(
    ("owner", "name"), [("Acme", "x"), ("acme", ""), ("", "x"), ("acme", "x:y"), ("..", "x")]
)
def test_a_model_record_cannot_hold_another_spelling(owner: str, name: str) -> None:
    with pytest.raises(IdentityError):
        ModelRef(owner, name)
