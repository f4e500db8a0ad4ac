from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import UserModel, VersionAlias, VersionRedirect
from lora_pipeline.versions.version_lookup import (
    NamedVersion,
    VersionNotFound,
    find_version,
    match_version,
    versions_named,
)
from lora_pipeline_tests.versions.registered import (
    NOW,
    add_version,
    job_id,
    provider_version,
    version_hash,
)

KEY = "user-50c"


def number_of(database: Database, text: str, key: str = KEY) -> int:
    with database.read() as session:
        model = session.query(UserModel).filter_by(model_key=key).one()
        return find_version(session, model, text).number


SPELLINGS = [
    "2",
    "V2",
    "v2",
    " vV2 ",
    "V02",
    "user-50c_V2",
    "user-50c-v2.safetensors",
    provider_version(KEY, 2),
    version_hash(KEY, 2),
    version_hash(KEY, 2).upper(),
    f"user-50c-selfie-lora:{version_hash(KEY, 2)}",
    f"https://replicate.com/acme/user-50c-selfie-lora/versions/{version_hash(KEY, 2)}",
    f"acme/user-50c-selfie-lora:{provider_version(KEY, 2)}",
    job_id(KEY, 2),
    f"replicate:{job_id(KEY, 2)}",
    "s3://loras/user-50c/2.safetensors",
    "https://loras.s3.amazonaws.com/user-50c/2.safetensors?X-Amz-Signature=abc",
    "legacy entry 2",
]


def test_a_version_is_found_by_every_name_it_goes_by(database: Database) -> None:
    for number in (1, 2, 3):
        version_id = add_version(database, KEY, number)
        alias = f"legacy entry {number}"
        with database.begin() as session:
            session.add(VersionAlias(kind="entry", alias=alias, version_id=version_id, created_at=NOW))
    assert {text: number_of(database, text) for text in SPELLINGS} == dict.fromkeys(SPELLINGS, 2)


def test_another_models_version_is_refused_and_its_model_named(database: Database) -> None:
    add_version(database, KEY, 1)
    add_version(database, "user-7", 1)
    for text in (
        provider_version("user-7", 1),
        version_hash("user-7", 1),
        job_id("user-7", 1),
        "s3://loras/user-7/1.safetensors",
    ):
        with pytest.raises(VersionNotFound, match="is a version of user-7, not of user-50c, which has V1"):
            number_of(database, text)


def test_the_same_hash_under_another_models_name_is_refused(database: Database) -> None:
    add_version(database, KEY, 1)
    with pytest.raises(VersionNotFound, match="has no version"):
        number_of(database, f"acme/other-lora:{version_hash(KEY, 1)}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("V9", "has no version 'V9'; it has V1"),
        ("user-7_V1", "has no version"),
        (version_hash(KEY, 1)[:12], "a short hash: 12 of 64 digits"),
        ("acme/user-50c-selfie-lora", "a model without a version"),
        ("", "has no version"),
    ],
)
def test_what_names_no_version_is_refused_by_what_it_is(
    sqlite_database: Database, text: str, what: str
) -> None:
    add_version(sqlite_database, KEY, 1)
    with pytest.raises(VersionNotFound, match=what):
        number_of(sqlite_database, text)


def test_a_merged_version_leads_to_the_one_that_took_its_place(database: Database) -> None:
    loser, survivor = add_version(database, KEY, 1), add_version(database, KEY, 2)
    with database.begin() as session:
        session.add(VersionRedirect(old_version_id=loser, version_id=survivor, created_at=NOW))
    assert number_of(database, "V1") == 2
    assert number_of(database, job_id(KEY, 1)) == 2


def runpod(number: int, job: str) -> NamedVersion:
    return NamedVersion(number, number, None, (("training_id", f"runpod:{job}"),))


def test_a_runpod_job_is_found_without_its_suffix_but_its_exact_id_wins() -> None:
    uuid = "3f2b8c1e-0000-4000-8000-1234567890ab"
    known = [runpod(1, f"{uuid}-e1"), runpod(2, f"{uuid}-e2"), runpod(3, uuid.replace("3f", "4f") + "-e1")]
    assert match_version(f"{uuid}-e2", "m", known) == 2
    assert match_version(uuid.replace("3f", "4F"), "m", known) == 3
    assert match_version(uuid, "m", known) is None, "two jobs share the base: neither is meant"


def test_a_job_or_an_address_leads_to_its_version_however_it_is_written(database: Database) -> None:
    uuid = "3f2b8c1e-0000-4000-8000-1234567890ab"
    version_id = add_version(database, KEY, 1)
    with database.begin() as session:
        for job in (f"{uuid}-e1", f"{uuid.replace('3f', '5f')}-e1"):
            session.add(
                VersionAlias(kind="training_id", alias=f"runpod:{job}", version_id=version_id, created_at=NOW)
            )
    named = (
        uuid,
        uuid.upper(),
        f"{uuid}-e2",
        f"runpod:{uuid}-e1",
        "https://loras.s3-accelerate.amazonaws.com/user-50c/1.safetensors",
        "https://s3.us-west-1.amazonaws.com/loras/user-50c/1.safetensors?X-Amz-Signature=abc",
    )
    with database.read() as session:
        found = {text: [version.id for version in versions_named(session, text)] for text in named}
    assert found == {text: [version_id] for text in named}


@given(st.text(max_size=80), st.integers(1, 9))
def test_any_text_finds_a_version_or_none_and_never_fails(text: str, number: int) -> None:
    known = [
        NamedVersion(n, n, provider_version(KEY, n), (("training_id", f"replicate:{job_id(KEY, n)}"),))
        for n in range(1, number + 1)
    ]
    found = match_version(text.strip(), KEY, known)
    assert found is None or 1 <= found <= number
