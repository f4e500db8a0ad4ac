"""`why`: registry, provider and bucket side by side, with the verdict and the next command."""

from __future__ import annotations

import json

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.why import why
from lora_pipeline_tests.fixtures.pipeline import run_row
from lora_pipeline_tests.versions.fleets import add_served, push_versions, row, train_at_provider
from lora_pipeline_tests.versions.test_sync import KEY, submit, sync


def test_an_old_version_is_shown_from_all_three_sides(
    connections: Connections, simulator: RunningSimulator
) -> None:
    made = train_at_provider(simulator, KEY, times=3)
    add_served(connections.database, KEY, made[0]["version"], email="fifty@example.org")
    answer = why(connections, KEY)
    assert answer.drift.verdict is Verdict.BEHIND
    assert answer.next_command == f"lora-pipeline sync {KEY}"
    assert answer.registry["servedVersion"] == made[0]["version"]
    assert answer.provider["latestVersion"] == made[2]["version"].partition(":")[2]
    assert answer.provider["totalVersionsOnReplicate"] == 3
    assert answer.provider["simulated"] is True
    assert "not archived by us: at replicate.delivery" in answer.bucket["address"]
    shown = json.dumps(answer.as_json())
    assert "fifty@example.org" not in shown
    assert "trained_model.tar" not in shown


def test_up_to_date_with_bad_quality_leads_through_the_guide(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, made["version"])
    answer = why(on_sqlite, KEY)
    assert answer.guide == 'If User Shows "Up to Date" But Quality is Still Bad'
    steps = (
        "version hash matches Replicate's latest",
        "trigger word",
        "LoRA scale",
        "retrain with better images",
    )
    assert all(step in text for step, text in zip(steps, answer.advice, strict=True))
    assert (answer.registry["triggerWord"], answer.registry["loraScale"]) == ("user50c", 1.0)
    assert answer.next_command is None


def test_archived_weights_that_are_gone_or_shorter_are_found(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    (old,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, old["version"])
    submit(on_sqlite)
    simulator.advance(7200)
    sync(on_sqlite)
    whole = why(on_sqlite, KEY)
    assert whole.drift.verdict is Verdict.UP_TO_DATE
    assert whole.bucket["size"]
    assert whole.bucket["sha256"]
    key = on_sqlite.store.key_of(str(row(on_sqlite, KEY).lora_weights_url))
    assert key is not None
    on_sqlite.store.put_bytes(key, b"short")
    assert "5 bytes" in why(on_sqlite, KEY).drift.detail
    on_sqlite.store.delete(key)
    gone = why(on_sqlite, KEY)
    assert (gone.drift.verdict, gone.bucket["problem"]) == (
        Verdict.WEIGHTS_MISSING,
        "its archived weights are gone from the store",
    )


@pytest.mark.parametrize(
    ("fault", "verdict", "check"),
    [
        ({"status": 401}, Verdict.PROVIDER_ERROR, "token is valid"),
        ({"status": 404}, Verdict.MODEL_NOT_FOUND, "model exists on Replicate"),
        ({"status": 500}, Verdict.PROVIDER_ERROR, "server logs"),
    ],
)
def test_an_error_says_what_to_check(
    on_sqlite: Connections, simulator: RunningSimulator, fault: dict[str, int], verdict: Verdict, check: str
) -> None:
    add_served(on_sqlite.database, KEY, "a" * 64)
    simulator.fault("models.versions.list", "answer", times=9, **fault)
    answer = why(on_sqlite, KEY)
    assert answer.drift.verdict is verdict
    assert answer.guide == 'If User Shows "Error"'
    assert any(check in text for text in answer.advice)
    assert answer.next_command
    assert answer.provider["problem"]


def test_a_malformed_model_id_is_told_without_asking(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    add_served(on_sqlite.database, KEY, None, replicate_model_id="k8sy6bgx31rm80cr2cwbn2bqkw")
    simulator.control("requests/reset")
    answer = why(on_sqlite, KEY)
    assert answer.drift.verdict is Verdict.MALFORMED_MODEL_ID
    assert any("owner/name, not a training id" in text for text in answer.advice)
    assert simulator.requests() == {}


def test_a_model_that_was_never_trained_says_how_far_it_is(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    run_id = submit(on_sqlite)
    answer = why(on_sqlite, KEY)
    assert answer.drift.verdict is Verdict.NEVER_TRAINED
    assert answer.registry["openTraining"]["run"] == run_id
    assert answer.next_command == f"lora-pipeline trainings list --model {KEY}"
    assert run_row(on_sqlite.database, run_id).state == "submitted"


def test_a_version_without_known_weights_is_an_error_with_its_reason(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    push_versions(simulator, KEY, "a" * 64)
    add_served(on_sqlite.database, KEY, None)
    sync(on_sqlite)
    assert why(on_sqlite, KEY).drift.verdict is Verdict.WEIGHTS_MISSING


def test_nobody_of_that_name_is_said(on_sqlite: Connections) -> None:
    with pytest.raises(ModelNotFound, match="nobody"):
        why(on_sqlite, "nobody")
