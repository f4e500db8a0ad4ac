"""Nobody who was erased comes back by an old file, an old table, an upload or a start."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import MergeJournal, MergePlan, ModelVersion, User, UserModel
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure, look
from lora_pipeline.erasure.plan import ErasurePlan
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.legacy_import import import_tree
from lora_pipeline.inventory.sselfie_import import import_selfie
from lora_pipeline.inventory.sselfie_tables import read_tables
from lora_pipeline_tests.erasure.lives import found_in_database
from lora_pipeline_tests.inventory.selfie_databases import make_database, model_row
from lora_pipeline_tests.inventory.trees import WEBHOOK_ENTRY, actor_file, write

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def erase(connections: Connections, user: str) -> None:
    erasure_id, _ = begin_erasure(connections, user, "test")
    carry_out(connections, erasure_id, forget_partition=lambda _: True)


def test_old_files_of_an_actor_who_was_erased_are_named_and_skipped(
    connections: Connections, tmp_path: Path
) -> None:
    for number in (6, 7):
        entry = WEBHOOK_ENTRY | {
            "id": f"3e248bb6-012c-4384-ae6c-4b19c126d09{number}-e1",
            "loraUrl": f"s3://storyboard/actor_{number}_V7.safetensors",
        }
        write(actor_file(tmp_path / "tree", number), {"versions": [entry]})
    tree = tmp_path / "tree"
    import_tree(connections.database, tree, ObjectUrlRules(), NOW, apply=True)
    plan = look(connections, "actor_6")
    assert isinstance(plan, ErasurePlan)
    assert plan.outside == (str(actor_file(tree, 6)),)
    assert "s3://storyboard/actor_6_V7.safetensors" in {item.target for item in plan.going}

    with connections.database.begin() as session:
        # No server stands behind the address of the test.
        session.query(ModelVersion).update({"weights_url": None})
    erase(connections, "actor_6")
    assert found_in_database(connections, ["actor_6", "0006_ada", "4b19c126d096"]) == set()
    report = import_tree(connections.database, tree, ObjectUrlRules(), NOW, apply=True)
    (skipped,) = report.skipped
    assert "0006_ada" in skipped.path
    assert "model 'actor_6' was erased on" in skipped.reason
    with connections.database.read() as session:
        assert [model.model_key for model in session.query(UserModel)] == ["actor_7"]
        assert session.query(MergeJournal).count() == 2, (
            "what was loaded of others can still be written again"
        )
        assert session.query(MergePlan).count() == 1


def test_old_rows_of_a_user_who_was_erased_are_named_and_skipped(
    connections: Connections, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    make_database(url, [model_row()])
    assert import_selfie(connections.database, read_tables(url), NOW, apply=True).models_new == 1
    with connections.database.read() as session:
        user = session.query(User).one().id
    erase(connections, user)
    report = import_selfie(connections.database, read_tables(url), NOW, apply=True)
    (defect,) = report.defects
    assert (defect.kind, defect.where) == ("erased", f"users {user}")
    assert (report.users_new, report.models_new, report.left_out) == (0, 0, 0)
    assert found_in_database(connections, [f"user-{user}", "selfie-lora"]) == set()


def test_neither_the_user_nor_the_model_can_be_made_again_under_the_old_name(
    connections: Connections,
) -> None:
    described = ModelDescription(user_id="42", email="m@example.org")
    with connections.database.begin() as session:
        ensure_model(session, "user-42", described, NOW)
    erase(connections, "42")
    with connections.database.begin() as session:
        with pytest.raises(IntakeError, match="this user was erased on"):
            ensure_model(session, "another-key", described, NOW)
        with pytest.raises(IntakeError, match="model 'user-42' was erased on"):
            ensure_model(session, "user-42", ModelDescription(user_id="43"), NOW)
        # Whoever comes back does so as somebody new, with the same address if they like.
        again = ModelDescription(user_id="43", email="m@example.org")
        assert ensure_model(session, "user-43", again, NOW).user_id == "43"
