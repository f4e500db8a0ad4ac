"""Which model somebody means, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.versions.lookup import ModelNotFound, find_model
from lora_pipeline_tests.fixtures.pipeline import add_model


@pytest.fixture
def models(database: Database) -> Database:
    """Two users: one with one model, one with two of which the second is active."""
    add_model(database, "user-1")
    add_model(database, "user-50c", replicate_model_id="acme/user_50c-selfie-lora")
    now = datetime.now(UTC)
    with database.begin() as session:
        second = UserModel(
            user_id="user-50c",
            model_key="user-50c-b",
            model_name="b",
            trigger_word="user50cb",
            created_at=now,
            updated_at=now,
        )
        session.add(second)
        session.flush()
        user = session.get_one(User, "user-50c")
        user.email = "Ann@example.com"
        user.active_model_id = second.id
    return database


_NAMES = {
    "user-1": "user-1",
    " user-1 ": "user-1",
    "user-50c": "user-50c",
    "ann@EXAMPLE.com": "user-50c-b",
    "acme/user_50c-selfie-lora": "user-50c",
    "Acme/User_50c-selfie-LoRA": "user-50c",
    "https://replicate.com/acme/user_50c-selfie-lora": "user-50c",
    "user_50c-selfie-lora": "user-50c",
}


def test_a_model_is_found_by_any_of_its_names(models: Database) -> None:
    with models.read() as session:
        assert {text: find_model(session, text).model_key for text in _NAMES} == _NAMES


def test_what_is_nobody_s_name_finds_nothing(models: Database) -> None:
    for text in ("nobody", "userx50c-selfie-lora", "%", "", "other/user_50c-selfie-lora"):
        with models.read() as session, pytest.raises(ModelNotFound, match="no model is called"):
            find_model(session, text)


def test_several_models_without_an_active_one_are_listed(models: Database) -> None:
    with models.begin() as session:
        session.get_one(User, "user-50c").active_model_id = None
    with (
        models.read() as session,
        pytest.raises(ModelNotFound, match=r"means 2 models.*user-50c, user-50c-b"),
    ):
        find_model(session, "ann@example.com")


def test_an_unknown_address_is_not_repeated(models: Database) -> None:
    with models.read() as session, pytest.raises(ModelNotFound) as refused:
        find_model(session, "secret.person@example.com")
    assert "secret.person" not in str(refused.value)
