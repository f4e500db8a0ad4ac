"""Deliberate choices: what they pin, what they survive, and how far a rollback goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, ModelVersion, UserModel
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.pinning import (
    ChoiceRefused,
    Chooser,
    activate_version,
    pin_model,
    roll_back,
    unpin_model,
)
from lora_pipeline.versions.version_lookup import VersionNotFound
from lora_pipeline_tests.fixtures.pipeline import add_model
from lora_pipeline_tests.versions.registered import NOW, activations, add_version, provider_version

KEY = "user-50c"
BY = Chooser("cli:ana", "because", NOW + timedelta(days=1))


def versions(database: Database, count: int) -> None:
    for number in range(1, count + 1):
        add_version(database, KEY, number, now=NOW + timedelta(minutes=number))


def rolled_back_to(database: Database) -> int:
    return roll_back(database, KEY, BY).version


def test_an_older_version_is_pinned_and_a_retrain_does_not_replace_it(database: Database) -> None:
    versions(database, 2)
    choice = activate_version(database, KEY, "V1", BY)
    assert (choice.version, choice.previous, choice.changed, choice.pinned) == (1, 2, True, True)
    add_version(database, KEY, 3)
    assert activations(database)[-1] == (1, True, True)


def test_the_newest_version_is_not_pinned_and_a_retrain_replaces_it(database: Database) -> None:
    versions(database, 2)
    activate_version(database, KEY, "V1", BY)
    choice = activate_version(database, KEY, "V2", BY)
    assert not choice.pinned
    add_version(database, KEY, 3)
    assert activations(database)[-1] == (3, False, True)


def test_choosing_the_same_again_changes_nothing(database: Database) -> None:
    versions(database, 2)
    activate_version(database, KEY, "V1", BY)
    pin_model(database, KEY, BY)
    before = activations(database)
    assert not activate_version(database, KEY, "V1", BY).changed
    assert not pin_model(database, KEY, BY).changed
    assert activations(database) == before


def test_activating_the_pinned_newest_keeps_the_pin(database: Database) -> None:
    versions(database, 1)
    pin_model(database, KEY, BY)
    assert activate_version(database, KEY, "V1", BY).pinned


def test_unpinning_serves_the_same_version_until_the_next_retrain(database: Database) -> None:
    versions(database, 2)
    activate_version(database, KEY, "V1", BY)
    choice = unpin_model(database, KEY, BY)
    assert (choice.version, choice.pinned, choice.changed) == (1, False, True)
    assert "lora-pipeline activate user-50c V2" in choice.explanation
    add_version(database, KEY, 3)
    assert activations(database)[-1] == (3, False, True)


def test_a_rollback_pins_and_repeated_goes_further_back(database: Database) -> None:
    versions(database, 4)
    assert [rolled_back_to(database) for _ in range(3)] == [3, 2, 1]
    assert activations(database)[-1] == (1, True, True)
    with pytest.raises(ChoiceRefused, match="has served no other version before this one"):
        roll_back(database, KEY, BY)
    add_version(database, KEY, 5)
    assert activations(database)[-1] == (1, True, True)


def test_a_rollback_goes_back_in_time_not_in_numbers(database: Database) -> None:
    versions(database, 3)
    activate_version(database, KEY, "V1", BY)
    assert [rolled_back_to(database) for _ in range(3)] == [3, 2, 1]


def test_pinning_between_two_rollbacks_does_not_turn_the_second_around(database: Database) -> None:
    versions(database, 3)
    assert rolled_back_to(database) == 2
    unpin_model(database, KEY, BY)
    pin_model(database, KEY, BY)
    assert rolled_back_to(database) == 1


def test_a_retrain_after_a_rollback_is_rolled_back_to_what_was_live_before_it(database: Database) -> None:
    versions(database, 3)
    assert rolled_back_to(database) == 2
    unpin_model(database, KEY, BY)
    add_version(database, KEY, 4)
    assert rolled_back_to(database) == 2
    assert rolled_back_to(database) == 1


def test_two_people_who_roll_back_the_same_version_go_one_step(database: Database) -> None:
    versions(database, 3)
    with ThreadPoolExecutor(2) as pool:
        choices = list(pool.map(lambda _: roll_back(database, KEY, BY, only_from="V3"), range(2)))
    assert sorted(choice.changed for choice in choices) == [False, True]
    assert activations(database)[-1] == (2, True, True)
    (late,) = [choice for choice in choices if not choice.changed]
    assert "V2 is served since" in late.explanation


def test_versions_without_weights_are_refused_and_passed_over(database: Database) -> None:
    versions(database, 3)
    with database.begin() as session:
        session.query(ModelVersion).filter_by(number=2).one().weights_state = "missing"
    with pytest.raises(ChoiceRefused, match="V2: its weights are missing"):
        activate_version(database, KEY, "V2", BY)
    choice = roll_back(database, KEY, BY)
    assert choice.version == 1
    assert choice.warnings == ("V2 was passed over: its weights are missing",)


def test_unverified_weights_are_served_with_a_warning(database: Database) -> None:
    versions(database, 1)
    add_version(database, KEY, 2, serve=False, weights_state="unverified")
    assert "have not been downloaded and verified" in activate_version(database, KEY, "V2", BY).warnings[0]


def test_what_cannot_be_chosen_says_why_and_changes_nothing(database: Database) -> None:
    add_model(database, "user-new")
    versions(database, 1)
    for choose in (pin_model, unpin_model, roll_back):
        with pytest.raises(ChoiceRefused, match="user-new serves no registered version yet"):
            choose(database, "user-new", BY)
    with pytest.raises(VersionNotFound):
        activate_version(database, KEY, "V9", BY)
    with pytest.raises(ModelNotFound):
        activate_version(database, "nobody", "V1", BY)
    assert activations(database) == [(1, False, True)]


def test_a_pin_does_not_quietly_replace_what_was_set_past_the_history(database: Database) -> None:
    versions(database, 2)
    with database.begin() as session:
        session.query(UserModel).one().replicate_version_id = provider_version(KEY, 1)
    for choose in (pin_model, unpin_model):
        with pytest.raises(ChoiceRefused, match="which its history does not know; V2 is active there"):
            choose(database, KEY, BY)
    assert activate_version(database, KEY, "V1", BY).pinned
    assert not pin_model(database, KEY, BY).changed


def test_every_choice_is_audited_under_its_own_name(database: Database) -> None:
    versions(database, 2)
    for choose in (pin_model, unpin_model, roll_back):
        choose(database, KEY, BY)
    with database.read() as session:
        entries = session.query(AuditEntry).filter_by(actor="cli:ana").order_by(AuditEntry.id)
        assert [entry.action for entry in entries] == ["pin", "unpin", "rollback"]
