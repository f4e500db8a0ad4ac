"""A user who lived through the whole pipeline is erased, and nothing of them is left anywhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.observing import Observing
from lora_pipeline.database.tables import (
    ArtifactLocation,
    AuditEntry,
    Erasure,
    ErasureStep,
    Image,
    MergePlan,
    ModelVersion,
    User,
    UserModel,
)
from lora_pipeline.erasure.belongings import ErasureRefused, UserNotFound
from lora_pipeline.erasure.carrying_out import Carried, carry_out
from lora_pipeline.erasure.journal import begin_erasure, look
from lora_pipeline.erasure.names import Erased
from lora_pipeline.erasure.plan import ErasurePlan
from lora_pipeline.erasure.receipts import receipt
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import take_in_from_inbox
from lora_pipeline.image_sets.readiness import ready_models
from lora_pipeline.lineage.meanings import LineageNotFound
from lora_pipeline.lineage.tracing import trace
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline.versions.lookup import ModelNotFound, find_model
from lora_pipeline.versions.resolve import resolve
from lora_pipeline_tests.erasure.lives import (
    EMAIL,
    KEY,
    OTHERS_FILE,
    USER,
    Traces,
    drop_user,
    found_in_database,
    found_in_files,
    found_in_store,
)


def erase(connections: Connections, user: str = USER) -> Carried:
    erasure_id, _ = begin_erasure(connections, user, "test")
    return carry_out(connections, erasure_id, forget_partition=lambda _: True)


@pytest.mark.deep
def test_the_plan_names_everything_and_changes_nothing(connections: Connections, lived: Traces) -> None:
    plan = look(connections, EMAIL.upper())
    assert isinstance(plan, ErasurePlan)
    kinds = [item.kind.value for item in plan.going]
    assert kinds.count("original") == kinds.count("normalised image") == 6
    for kind in (
        "manifest",
        "contact sheet",
        "weights",
        "provider version",
        "provider model",
        "inbox folder",
    ):
        assert kinds.count(kind) == 1, kind
    assert {item.sha256 for item in plan.going if item.kind == "original"} == lived.hashes
    assert plan.as_json()["undo"] is None
    assert [info.key for info in connections.store.list()] == lived.files
    with connections.database.read() as session:
        assert session.query(Erasure).count() == 0


def test_nothing_of_the_user_is_left(
    connections: Connections, lived: Traces, simulator: RunningSimulator
) -> None:
    assert erase(connections).completed
    everything = [*lived.names, *lived.jobs]
    assert found_in_database(connections, everything) == set()
    assert found_in_store(connections, Traces(lived.names, [], set(), [])) == []
    assert found_in_files(connections, lived.names) == set()
    assert not any((connections.settings.home / "inbox" / KEY).glob("*"))
    assert list(connections.provider_named("replicate").list_trainings())
    with pytest.raises(Exception, match="knows nothing"):
        list(connections.provider_named("replicate").list_versions(f"acme/{KEY}-selfie-lora"))


@pytest.mark.deep
def test_the_other_user_with_the_same_photographs_keeps_all(connections: Connections, lived: Traces) -> None:
    erase(connections)
    with connections.database.read() as session:
        images = session.query(Image).all()
        assert {image.user_id for image in images} == {"other"}
        assert {image.sha256 for image in images} == lived.hashes
        for image in images:
            assert connections.store.get_bytes(image.object_key)
        version = session.query(ModelVersion).one()
        assert connections.store.head(str(connections.store.key_of(str(version.weights_url)))).size
        assert session.query(AuditEntry).filter_by(subject="other").count() == 1
    assert list(connections.provider_named("replicate").list_versions("acme/user-50-selfie-lora"))
    assert (connections.settings.home / "inbox" / "user-50" / OTHERS_FILE).is_file()


@pytest.mark.deep
def test_the_receipt_says_what_was_deleted_and_names_nobody(connections: Connections, lived: Traces) -> None:
    carried = erase(connections)
    again = look(connections, USER)
    assert isinstance(again, Erased)
    assert again.id == carried.erasure_id
    for name in (EMAIL, KEY):
        assert look(connections, name) == again
    with connections.database.read() as session:
        shown = receipt(session, carried.erasure_id)
        assert session.query(ErasureStep).filter(ErasureStep.target.is_not(None)).count() == 0
    assert shown["state"] == "completed"
    assert shown["deleted"]["original"] == 6
    assert lived.hashes <= set(shown["sha256"])
    assert shown["rows"]["images"] == 6
    assert shown["waiting"] == []
    assert begin_erasure(connections, USER, "test") == (carried.erasure_id, None)


@pytest.mark.deep
def test_every_id_of_the_user_says_that_it_was_erased(connections: Connections, lived: Traces) -> None:
    erase(connections)
    with connections.database.read() as session:
        for name in (USER, KEY, EMAIL, f"acme/{KEY}-selfie-lora"):
            with pytest.raises(ModelNotFound, match="was erased on"):
                find_model(session, name)
    for name in (USER, KEY, f"user:{USER}", f"model:{KEY}", *lived.jobs):
        with pytest.raises(LineageNotFound, match="was erased on"):
            trace(connections.database, name)
    with pytest.raises(ModelNotFound, match="was erased on"):
        resolve(connections, KEY)


@pytest.mark.deep
def test_nobody_comes_back_through_the_inbox(
    connections: Connections, lived: Traces, simulator: RunningSimulator
) -> None:
    erase(connections)
    drop_user(connections)
    readiness = ready_models(
        connections.database,
        connections.inbox,
        ready_images=5,
        ready_quiet=timedelta(0),
        now=connections.now(),
    )
    assert "was erased on" in "".join(readiness.problems)
    assert start_ready(connections, lease=None).done == ()
    # Under a new folder, but for the erased user.
    folder = connections.settings.home / "inbox" / KEY
    folder.rename(folder.with_name("someone"))
    with pytest.raises(IntakeError, match="this user was erased on"):
        take_in_from_inbox(
            connections.database,
            connections.store,
            connections.inbox,
            "someone",
            profile=connections.image_profile,
        )
    with connections.database.read() as session:
        assert session.get(User, USER) is None
        assert session.query(UserModel).count() == 1


@pytest.mark.deep
def test_a_training_under_way_is_to_be_ended_first(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_user(connections)
    start_ready(connections, lease=None)
    for ask in (lambda: look(connections, USER), lambda: begin_erasure(connections, USER, "test")):
        with pytest.raises(ErasureRefused, match=r"trainings cancel [0-9]+"):
            ask()
    with connections.database.read() as session:
        assert session.query(Erasure).count() == 0
        assert session.query(Image).count() == 6


def test_the_house_is_refused_and_strangers_are_not_found(
    connections: Connections, simulator: RunningSimulator
) -> None:
    folder = drop_user(connections, "style_1")
    (folder / "model.toml").write_text('model_type = "style"\n')
    take_in_from_inbox(
        connections.database,
        connections.store,
        connections.inbox,
        "style_1",
        profile=connections.image_profile,
    )
    with pytest.raises(ErasureRefused, match="is the house"):
        look(connections, "style_1")
    with pytest.raises(UserNotFound, match="no user has this id"):
        look(connections, "nobody")


@pytest.mark.deep
def test_observing_erases_nobody(connections: Connections, lived: Traces) -> None:
    observing = Connections(connections.settings.model_copy(update={"observe": True}))
    assert isinstance(look(observing, USER), ErasurePlan)
    with pytest.raises(Observing, match="LORA_OBSERVE"):
        begin_erasure(observing, USER, "test")
    observing.database.close()
    assert [info.key for info in connections.store.list()] == lived.files


@pytest.mark.deep
def test_weights_that_another_users_version_has_stay_for_them(
    connections: Connections, lived: Traces
) -> None:
    with connections.database.begin() as session:
        mine = session.query(ModelVersion).join(UserModel, UserModel.id == ModelVersion.model_id)
        one = mine.filter(UserModel.model_key == KEY).one()
        other = mine.filter(UserModel.model_key == "user-50").one()
        other.artifact_id, other.weights_url = one.artifact_id, one.weights_url
        address, artifact = str(one.weights_url), one.artifact_id
    plan = look(connections, USER)
    assert isinstance(plan, ErasurePlan)
    assert address in {item.target for item in plan.staying}
    assert erase(connections).completed
    assert connections.store.head(str(connections.store.key_of(address))).size
    with connections.database.read() as session:
        assert session.query(ArtifactLocation).filter_by(artifact_id=artifact, deleted_at=None).count() == 1


@pytest.mark.deep
def test_what_the_provider_is_still_deleting_is_waited_for(
    connections: Connections, lived: Traces, simulator: RunningSimulator
) -> None:
    simulator.settings(deletion_s=120)
    carried = erase(connections)
    assert not carried.completed
    assert {what for what, _ in carried.waiting} == {"provider version", "provider model"}
    with connections.database.read() as session:
        assert receipt(session, carried.erasure_id)["state"] == "in progress"
    simulator.advance(121)
    assert erase(connections).completed
    assert found_in_database(connections, lived.names) == set()


@pytest.mark.deep
def test_what_the_provider_refuses_is_told(
    connections: Connections, lived: Traces, simulator: RunningSimulator
) -> None:
    simulator.fault("models.versions.delete", "answer", status=403)
    carried = erase(connections)
    with connections.database.read() as session:
        shown = receipt(session, carried.erasure_id)
    assert carried.completed
    assert {one["what"] for one in shown["stays"]} == {"provider version", "provider model"}
    assert any(f"acme/{KEY}-selfie-lora" in said for said in carried.told)


@pytest.mark.deep
def test_a_provider_that_is_away_is_asked_again(connections: Connections, lived: Traces) -> None:
    with Unreachable(connections) as away:
        erasure_id, _ = begin_erasure(away, USER, "test")
        carried = carry_out(away, erasure_id)
    assert not carried.completed
    assert erase(connections).completed


class Unreachable(Connections):
    """The same installation, whose provider does not answer."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections.settings.model_copy(update={"replicate_base_url": "http://127.0.0.1:9"}))

    def __enter__(self) -> Unreachable:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()


@pytest.mark.deep
def test_files_that_no_row_knows_go_too(connections: Connections, lived: Traces) -> None:
    connections.store.put_bytes(f"users/{USER}/originals/half", b"a crash left this")
    carried = erase(connections)
    assert found_in_store(connections, Traces(lived.names, [], set(), [])) == []
    with connections.database.read() as session:
        assert receipt(session, carried.erasure_id)["deleted"]["file"] == 1


def test_photographs_elsewhere_are_named_and_left(connections: Connections, tmp_path: Path) -> None:
    from lora_pipeline.image_sets.intake import take_in
    from lora_pipeline.image_sets.sources import source_from_path
    from lora_pipeline_tests.fixtures.photographs import drop_photographs
    from lora_pipeline_tests.fixtures.pipeline import add_model

    add_model(connections.database, KEY)
    (path,) = drop_photographs(tmp_path / "elsewhere", 1)
    take_in(
        connections.database,
        connections.store,
        KEY,
        [source_from_path(path)],
        profile=connections.image_profile,
    )
    plan = look(connections, KEY)
    assert isinstance(plan, ErasurePlan)
    assert plan.outside == (path.as_uri(),)
    assert erase(connections, KEY).completed
    assert path.is_file()
    with connections.database.read() as session:
        assert session.query(MergePlan).count() == 0
