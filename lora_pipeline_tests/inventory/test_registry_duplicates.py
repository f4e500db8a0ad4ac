"""Versions of the registry that are one LoRA: merged with redirects, and taken apart again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    AuditEntry,
    Base,
    InventoryObject,
    MergeJournal,
    MergePlan,
    ModelVersion,
    ReviewItem,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.plan_store import PlanRefused
from lora_pipeline.inventory.registry_merging import apply_registry_plan, undo_registry_plan
from lora_pipeline.inventory.registry_plan import RegistryPlan, load_plan, plan_registry, store_plan
from lora_pipeline.inventory.renames import rules_with_renames
from lora_pipeline.versions.listing import versions_of
from lora_pipeline.versions.overview import registry_facts
from lora_pipeline.versions.pinning import Chooser, activate_version
from lora_pipeline.versions.version_lookup import find_version
from lora_pipeline_tests.inventory.trees import SYNCED_ENTRY, WEBHOOK_ENTRY
from lora_pipeline_tests.versions.registered import NOW, add_version

RULES = ObjectUrlRules()
LATER = NOW + timedelta(days=1)
_BOOKKEEPING = {
    MergePlan.__tablename__,
    MergeJournal.__tablename__,
    AuditEntry.__tablename__,
    ReviewItem.__tablename__,
}


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that merging is about, without `updated_at`."""
    with database.read() as session:
        return {
            name: sorted(
                (
                    {key: value for key, value in row.items() if key != "updated_at"}
                    for row in session.execute(select(table)).mappings()
                ),
                key=repr,
            )
            for name, table in Base.metadata.tables.items()
            if name not in _BOOKKEEPING
        }


def planned(database: Database) -> RegistryPlan:
    return store_plan(database, plan_registry(database, RULES, NOW), NOW)


def add_webhook_version(database: Database, *, key: str = "style_1", **fields: Any) -> int:
    """As the webhook's entry left it: with parameters and the provider's job, without the file's own name."""
    version = add_version(
        database,
        key,
        7,
        **{
            "provider": "runpod",
            "provider_version": None,
            "weights_url": WEBHOOK_ENTRY["loraUrl"],
            "weights_state": "unverified",
            "parameters": WEBHOOK_ENTRY["parameters"],
            **fields,
        },
    )
    job = WEBHOOK_ENTRY["id"] if key == "style_1" else f"{UUID(int=version)}-e1"
    name_version(database, version, "training_id", f"runpod:{job}")
    return version


def add_listed_version(database: Database, *, key: str = "style_1", **fields: Any) -> int:
    version = add_version(
        database,
        key,
        8,
        **{
            "serve": False,
            "provider": "runpod",
            "provider_version": None,
            "weights_url": SYNCED_ENTRY["loraUrl"],
            "weights_state": "unverified",
            "trained_at": None,
            "image_count": 43,
            **fields,
        },
    )
    name_version(database, version, f"legacy_id:{key}", "style_1_vV7")
    return version


def name_version(database: Database, version: int, kind: str, alias: str) -> None:
    with database.begin() as session:
        generated = session.scalars(
            select(VersionAlias).where(VersionAlias.version_id == version, VersionAlias.kind == kind)
        ).all()
        for row in generated:
            session.delete(row)
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version, created_at=NOW))


def remove_jobs(database: Database, *versions: int) -> None:
    with database.begin() as session:
        for row in session.scalars(select(VersionAlias).where(VersionAlias.version_id.in_(versions))).all():
            if row.alias.startswith("replicate:"):
                session.delete(row)


@pytest.fixture
def pair(database: Database) -> tuple[int, int]:
    """Two versions of one object in two spellings; the poorer one is served."""
    rich = add_webhook_version(database)
    poor = add_listed_version(database, is_good=False, last_synced_at=LATER)
    remove_jobs(database, rich, poor)
    with database.begin() as session:
        session.scalars(select(Activation)).one().version_id = poor
        session.add(
            InventoryObject(
                namespace="s3/aws",
                bucket="b",
                key="k",
                object_version="",
                etag="",
                size=1,
                modified=NOW,
                listed=True,
                state="attached",
                reason="",
                claims={},
                version_id=poor,
                tries=0,
                first_seen=NOW,
            )
        )
    return rich, poor


def test_two_versions_of_one_object_become_one_and_every_name_leads_to_it(
    database: Database, pair: tuple[int, int]
) -> None:
    rich, poor = pair
    before = rows(database)
    plan = planned(database)
    assert rows(database) == before
    (group,) = plan.groups
    assert (group.survivor, group.losers) == (rich, (poor,))
    assert group.fields["parameters"] == {"from": rich, "because": "detailed parameters"}
    because = "the richer version does not have it"
    assert group.fields["image_count"] == {"from": poor, "because": because, "value": "43"}

    result = apply_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    assert (result.changed, result.refused) == (1, ())
    with database.read() as session:
        model = session.query(UserModel).one()
        for name in ("V7", "V8", "style_1_vV7", WEBHOOK_ENTRY["id"], SYNCED_ENTRY["loraUrl"]):
            assert find_version(session, model, name).id == rich, name
        version = session.get_one(ModelVersion, rich)
        assert (version.parameters, version.image_count) == (WEBHOOK_ENTRY["parameters"], 43)
        (listed,) = versions_of(session, model)
        assert listed["version"] == "V7"
        assert (listed["is_good"], listed["last_synced_at"]) == (False, LATER.isoformat())
        assert {f"runpod:{WEBHOOK_ENTRY['id']}", "style_1_vV7"} <= set(listed["other_names"])
        assert session.query(Activation).one().version_id == rich
        assert model.lora_weights_url == version.weights_url
        assert session.query(InventoryObject).one().version_id == rich
    assert plan_registry(database, RULES, LATER).groups == ()
    facts = registry_facts(database)
    assert (facts["versions"], facts["unverified"]) == (1, 1)
    assert [one["version"] for one in facts["newest"]] == ["V7"]
    chosen = activate_version(database, "style_1", "V8", Chooser("test", "old number", LATER))
    assert (chosen.version, chosen.changed, chosen.pinned) == (7, False, False), (
        "V8 is no newer version any more"
    )

    again = apply_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    assert (again.changed, again.already) == (0, 1)
    undone = undo_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    assert (undone.changed, undone.state) == (1, "undone")
    assert rows(database) == before


@pytest.mark.parametrize("verdicts", [(True, False), (False, True)])
def test_reviewers_who_disagree_are_for_a_person(
    database: Database, pair: tuple[int, int], verdicts: tuple[bool, bool]
) -> None:
    with database.begin() as session:
        for version, verdict in zip(pair, verdicts, strict=True):
            session.get_one(ModelVersion, version).is_good = verdict
    plan = planned(database)
    assert plan.groups == ()
    assert "reviewers disagree" in plan.reviews[0]["reason"]


def test_the_address_of_today_is_served_after_a_folder_was_renamed(database: Database) -> None:
    old = str(WEBHOOK_ENTRY["loraUrl"]).replace("actor_maker_user", "styles_maker_user")
    rich = add_webhook_version(database, weights_url=old)
    poor = add_listed_version(database)
    remove_jobs(database, rich, poor)
    rules = rules_with_renames(["storyboard-user-files/styles_maker_user=actor_maker_user"])
    plan = store_plan(database, plan_registry(database, rules, NOW), NOW)
    apply_registry_plan(database, plan, LATER, "test")
    with database.read() as session:
        assert session.query(UserModel).one().lora_weights_url == SYNCED_ENTRY["loraUrl"]


def test_the_same_plan_made_again_keeps_its_id(database: Database, pair: tuple[int, int]) -> None:
    first = planned(database)
    assert planned(database).id == first.id
    with database.begin() as session:
        session.get_one(ModelVersion, pair[0]).image_count = 12
    assert planned(database).id != first.id


def test_two_runs_of_one_plan_at_once_merge_once(database: Database) -> None:
    for number in range(1, 7):
        rich = add_webhook_version(
            database, key=f"style_{number}", weights_url=f"s3://b/{number}.safetensors"
        )
        poor = add_listed_version(
            database, key=f"style_{number}", weights_url=f"https://b.s3.amazonaws.com/{number}.safetensors"
        )
        remove_jobs(database, rich, poor)
    before = rows(database)
    plan = planned(database)
    assert len(plan.groups) == 6

    def run(_: int) -> tuple[int, int, tuple[tuple[str, str], ...]]:
        mine = Database(database.url.render_as_string(hide_password=False))
        result = apply_registry_plan(mine, load_plan(mine, plan.id), LATER, "test")
        mine.close()
        return result.changed, result.already, result.refused

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, range(3)))
    assert [refused for _, _, refused in results] == [(), (), ()]
    assert sum(changed for changed, _, _ in results) == 6
    assert plan_registry(database, RULES, LATER).groups == ()
    undo_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    assert rows(database) == before


def test_redirects_stay_one_hop(database: Database, pair: tuple[int, int]) -> None:
    rich, poor = pair
    apply_registry_plan(database, planned(database), LATER, "test")
    richer = add_version(
        database,
        "style_1",
        9,
        serve=False,
        provider="runpod",
        provider_version=None,
        weights_url=WEBHOOK_ENTRY["loraUrl"].replace("s3-accelerate", "s3"),
        trained_at=LATER,
        parameters={"network_dim": 16},
        weights_state="verified",
    )
    remove_jobs(database, richer)
    plan = planned(database)
    apply_registry_plan(database, plan, LATER, "test")
    with database.read() as session:
        found = {row.old_version_id: row.version_id for row in session.query(VersionRedirect)}
    assert found == {rich: richer, poor: richer}
    undo_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    with database.read() as session:
        assert [row.version_id for row in session.query(VersionRedirect)] == [rich]


def test_a_version_that_changed_since_the_plan_is_refused(database: Database, pair: tuple[int, int]) -> None:
    plan = planned(database)
    with database.begin() as session:
        session.get_one(ModelVersion, pair[0]).image_count = 12
    before = rows(database)
    result = apply_registry_plan(database, plan, LATER, "test")
    assert "plan again" in result.refused[0][1]
    assert rows(database) == before


def test_undo_refuses_what_was_changed_afterwards(database: Database, pair: tuple[int, int]) -> None:
    plan = planned(database)
    apply_registry_plan(database, plan, LATER, "test")
    with database.begin() as session:
        session.get_one(ModelVersion, pair[0]).image_count = 99
    before = rows(database)
    result = undo_registry_plan(database, load_plan(database, plan.id), LATER, "test")
    assert (result.state, len(result.refused)) == ("undoing", 1)
    assert rows(database) == before
    with pytest.raises(PlanRefused):
        apply_registry_plan(database, load_plan(database, plan.id), LATER, "test")


def test_the_same_content_unifies_and_verified_weights_stay_together(sqlite_database: Database) -> None:
    with sqlite_database.begin() as session:
        artifact = Artifact(
            content_key="c" * 64,
            file_sha256="f" * 64,
            autov2="f" * 10,
            autov3="e" * 64,
            size=1,
            tensor_count=1,
            created_at=NOW,
        )
        session.add(artifact)
        session.flush()
        artifact_id = artifact.id
    first = add_version(
        sqlite_database,
        number=1,
        artifact_id=artifact_id,
        provider_version=None,
        weights_state="missing",
        parameters={"steps": 1000},
    )
    second = add_version(sqlite_database, number=2, artifact_id=artifact_id)
    plan = planned(sqlite_database)
    apply_registry_plan(sqlite_database, plan, LATER, "test")
    with sqlite_database.read() as session:
        version = session.get_one(ModelVersion, first)
        assert (version.weights_state, version.weights_url) == (
            "verified",
            "s3://loras/user-50c/2.safetensors",
        )
        assert version.provider_version is not None
        assert session.get_one(ModelVersion, second).provider_version is None
        assert session.query(UserModel).one().replicate_version_id == version.provider_version


def test_contradictions_become_review_items_once(sqlite_database: Database) -> None:
    for number, address in (
        (1, "s3://loras/one.safetensors"),
        (2, "https://loras.s3.amazonaws.com/one.safetensors"),
    ):
        add_version(sqlite_database, number=number, weights_url=address)
    plan = planned(sqlite_database)
    assert plan.groups == ()
    assert "provider versions" in plan.reviews[0]["reason"]
    with sqlite_database.read() as session:
        assert session.query(ReviewItem).count() == 1
    planned(sqlite_database)
    with sqlite_database.read() as session:
        assert session.query(ReviewItem).count() == 1


def test_the_same_object_under_two_models_is_for_a_person(sqlite_database: Database) -> None:
    add_version(sqlite_database, "style_1", weights_url="s3://b/k.safetensors", provider_version=None)
    add_version(
        sqlite_database,
        "style_2",
        weights_url="https://b.s3.amazonaws.com/k.safetensors",
        provider_version=None,
    )
    plan = planned(sqlite_database)
    assert plan.groups == ()
    assert plan.reviews[0]["versions"] == ["style_1 V1", "style_2 V1"]
