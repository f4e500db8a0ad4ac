"""Stored versions spelled anew: planned first, then in one go, the unreadable listed and never touched."""

from __future__ import annotations

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ModelVersion, UserModel
from lora_pipeline.versions.normalisation import _write, normalise_versions
from lora_pipeline_tests.versions.fleets import add_served, audit, provider_model, row, statements_on
from lora_pipeline_tests.versions.registered import add_version

HASH = "925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738"
SPELLINGS = {
    "bare": HASH,
    "named": f"named-selfie-lora:{HASH}",
    "whole": f"acme/whole-selfie-lora:{HASH}",
    "page": f"https://replicate.com/acme/page-selfie-lora/versions/{HASH}",
    "doubled": f"acme/doubled-selfie-lora:acme/doubled-selfie-lora:{HASH}",
    "loud": f"  ACME/Loud-Selfie-Lora:{HASH.upper()} ",
}
MALFORMED = {"short": "925da5f5", "job": "k8sy6bgx31rm80cr2cwbn2bqkw", "other": f"acme/somebody:{HASH}"}


def stored(connections: Connections) -> dict[str, tuple[str | None, str | None]]:
    with connections.database.read() as session:
        return {
            model.model_key: (model.replicate_model_id, model.replicate_version_id)
            for model in session.query(UserModel)
        }


def test_every_spelling_is_planned_then_written_and_the_malformed_are_listed(
    connections: Connections,
) -> None:
    for key, text in (SPELLINGS | MALFORMED).items():
        add_served(connections.database, key, text)
    add_served(
        connections.database, "pages", None, replicate_model_id="https://replicate.com/acme/pages-selfie-lora"
    )
    before, changed_at = stored(connections), row(connections, "bare").updated_at

    plan = normalise_versions(connections)
    assert not plan.applied
    assert {one.model_key for one in plan.respellings} == set(SPELLINGS) - {"whole"} | {"pages"}
    assert {one.model_key for one in plan.malformed} == set(MALFORMED)
    assert stored(connections) == before
    assert audit(connections, "normalise version") == []

    done = normalise_versions(connections, apply=True, actor="test")
    assert (done.respellings, done.malformed) == (plan.respellings, plan.malformed)
    after = stored(connections)
    for key in SPELLINGS:
        assert after[key] == (provider_model(key), f"{provider_model(key)}:{HASH}")
    for key in MALFORMED:
        assert after[key] == before[key]
    assert after["pages"] == (provider_model("pages"), None)
    assert row(connections, "bare").updated_at == changed_at
    entries = {entry.subject: entry.details for entry in audit(connections, "normalise version")}
    assert entries["bare"]["before"] == HASH
    assert entries["bare"]["after"] == f"{provider_model('bare')}:{HASH}"
    assert all(entry.actor == "test" for entry in audit(connections, "normalise version"))

    again = normalise_versions(connections, apply=True)
    assert again.respellings == ()
    assert len(audit(connections, "normalise version")) == len(entries)


def test_a_trainers_version_is_listed_and_not_touched(on_sqlite: Connections) -> None:
    trainer = on_sqlite.settings.trainer.partition(":")[2]
    add_served(on_sqlite.database, "user-50c", trainer)
    plan = normalise_versions(on_sqlite, apply=True)
    assert "trainer's version" in plan.malformed[0].problem
    assert row(on_sqlite, "user-50c").replicate_version_id == trainer


def test_a_row_changed_after_it_was_read_is_left_as_it_is(on_sqlite: Connections) -> None:
    add_served(on_sqlite.database, "user-50c", HASH)
    newer = "a" * 64
    plan = normalise_versions(on_sqlite)
    with on_sqlite.database.begin() as session:
        session.query(UserModel).one().replicate_version_id = newer
    with on_sqlite.database.begin() as session:
        _write(session, list(plan.respellings))
    assert row(on_sqlite, "user-50c").replicate_version_id == newer


def test_the_registrys_own_column_is_spelled_anew_and_a_second_entry_is_listed(
    on_sqlite: Connections,
) -> None:
    qualified = f"acme/user-50c-selfie-lora:{HASH}"
    add_version(on_sqlite.database, number=1, provider_version=qualified)
    add_version(on_sqlite.database, number=2, provider_version=HASH.upper(), serve=False)
    add_version(
        on_sqlite.database, number=3, provider_version=qualified.replace("925", "825").upper(), serve=False
    )
    plan = normalise_versions(on_sqlite, apply=True)
    with on_sqlite.database.read() as session:
        texts = [one.provider_version for one in session.query(ModelVersion).order_by(ModelVersion.number)]
    assert texts == [qualified, HASH.upper(), qualified.replace("925", "825")]
    assert "a second time" in plan.malformed[0].problem


def test_as_many_statements_for_a_thousand_rows_as_for_one(on_sqlite: Connections) -> None:
    counts = []
    for total in (1, 300):
        with on_sqlite.database.begin() as session:
            session.query(UserModel).delete()
        for n in range(total):
            add_served(on_sqlite.database, f"m{n}", HASH)
        with statements_on(on_sqlite) as statements:
            assert len(normalise_versions(on_sqlite, apply=True).respellings) == total
        counts.append(len(statements))
    assert counts[0] == counts[1]
