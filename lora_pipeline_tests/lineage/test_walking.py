"""Walking a lineage: what reaches what, whatever was merged, shared or left out, and at any size."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ArtifactLocation, ModelVersion, UserModel, VersionRedirect
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.registry_merging import apply_registry_plan, undo_registry_plan
from lora_pipeline.inventory.registry_plan import load_plan, plan_registry, store_plan
from lora_pipeline.lineage.graph import Edge, Kind, Lineage, Node, Relation
from lora_pipeline.lineage.meanings import AmbiguousId, LineageNotFound
from lora_pipeline.lineage.picture import lineage_svg
from lora_pipeline.lineage.rows import Scope
from lora_pipeline.lineage.tracing import Trace, trace
from lora_pipeline_tests.fixtures.pipeline import add_model
from lora_pipeline_tests.lineage.world import (
    NOW,
    add_artifact,
    add_many,
    add_photograph,
    add_result,
    add_set,
    add_training,
    counted_queries,
    digest_of,
)

NAMES = count()


def model_of(session: Session, key: str) -> UserModel:
    return session.query(UserModel).filter_by(model_key=key).one()


def add_life(session: Session, key: str, attempt: int, photographs: dict[str, bool], **result: Any) -> int:
    """A set of these photographs (included or not), its training and its version; the version's id."""
    model = model_of(session, key)
    members = []
    for name, included in photographs.items():
        known = session.query(_image()).filter_by(user_id=model.user_id, sha256=digest_of(name)).first()
        members.append((known.id if known else add_photograph(session, model.user_id, name), included))
    run = add_training(session, model, add_set(session, model, members), attempt)
    return add_result(session, model, run, attempt, **result)


def _image() -> Any:
    from lora_pipeline.database.tables import Image

    return Image


def labels(found: Trace) -> list[str]:
    return sorted(node.label for node in found.lineage.versions)


def photographs(found: Trace) -> set[str]:
    return {node.facts["sha256"] for node in found.lineage.of_kind(Kind.IMAGE)}


def test_merged_versions_of_two_trainings_lead_to_the_survivor_and_to_both_sets(database: Database) -> None:
    add_model(database, "user-50c")
    with database.begin() as session:
        artifact = add_artifact(session, "the same twice")
        first = add_life(session, "user-50c", 1, {"a": True}, artifact=artifact, live=True)
        second = add_life(session, "user-50c", 2, {"b": True}, artifact=artifact)
        # One LoRA has one version at its provider.
        session.get_one(ModelVersion, second).provider_version = None
        second_run = session.get_one(ModelVersion, second).training_run_id
    plan = plan_registry(database, ObjectUrlRules(), NOW)
    store_plan(database, plan, NOW)
    assert apply_registry_plan(database, plan, NOW, "test").changed == 1
    with database.read() as session:
        (redirect,) = session.query(VersionRedirect).all()
    old, kept = redirect.old_version_id, redirect.version_id
    assert {old, kept} == {first, second}

    for text in ("user-50c:V1", "user-50c:V2", f"version:{old}", f"run:{second_run}", digest_of("b")):
        found = trace(database, text)
        assert [node.id for node in found.lineage.versions] == [f"version:{kept}"], text
        assert found.lineage.nodes[f"version:{old}"].facts["merged_into"], text
    assert photographs(trace(database, f"version:{old}")) == {digest_of("a"), digest_of("b")}
    assert "merged into" in trace(database, f"version:{old}").meaning

    undo_registry_plan(database, load_plan(database, plan.id), NOW, "test")
    assert photographs(trace(database, f"version:{second}")) == {digest_of("b")}


def test_an_overwritten_key_leads_to_what_lies_there_and_to_what_lay_there(database: Database) -> None:
    add_model(database, "user-50c")
    with database.begin() as session:
        add_life(session, "user-50c", 1, {"a": True})
        add_life(session, "user-50c", 2, {"b": True}, live=True)
        before, after = session.query(ArtifactLocation).order_by(ArtifactLocation.id).all()
        before.overwritten_at = NOW
        session.flush()
        address = f"https://bucket.s3.us-west-1.amazonaws.com/{before.key}"
        after.key, after.first_seen = before.key, NOW
    found = trace(database, address)
    assert labels(found) == ["user-50c V1", "user-50c V2"]
    lying = {edge.source: edge.facts["now"] for edge in found.lineage.edges if edge.kind is Relation.LIES_AT}
    assert sorted(lying.values()) == [False, True]
    (old,) = (node for node in found.lineage.versions if node.label == "user-50c V1")
    assert old.facts["weights_at"] == [], "its weights lie nowhere any more"


def test_an_object_version_of_a_bucket_that_keeps_them_is_a_thing_of_its_own(database: Database) -> None:
    add_model(database, "user-50c")
    with database.begin() as session:
        add_life(session, "user-50c", 1, {"a": True})
        add_life(session, "user-50c", 2, {"b": True})
        first, second = session.query(ArtifactLocation).order_by(ArtifactLocation.id).all()
        first.object_version, second.object_version = "v1", "v2"
        session.flush()
        second.key = first.key
    address = f"https://bucket.s3.amazonaws.com/{first.key}"
    assert labels(trace(database, f"{address}?versionId=v1")) == ["user-50c V1"]
    assert labels(trace(database, f"{address}?versionId=v2")) == ["user-50c V2"]
    assert labels(trace(database, address)) == ["user-50c V1", "user-50c V2"]
    for node in trace(database, address).lineage.of_kind(Kind.OBJECT):
        if node.facts["object_version"]:
            assert trace(database, node.id).starts == (node.id,)


@pytest.fixture
def two_users(database: Database) -> Database:
    """Two users with the same photograph and, by chance, the same weights."""
    add_model(database, "user-1")
    add_model(database, "user-2")
    with database.begin() as session:
        artifact = add_artifact(session, "shared")
        add_life(session, "user-1", 1, {"shared": True, "own": True}, artifact=artifact, live=True)
        add_life(session, "user-2", 1, {"shared": True, "theirs": True}, artifact=artifact, live=True)
    return database


def test_a_user_sees_their_own_and_of_nobody_else_that_it_exists(two_users: Database) -> None:
    own = Scope("user-1")
    everything = trace(two_users, "user-2")
    foreign = [
        *(node for node, one in everything.lineage.nodes.items() if one.facts.get("model") == "user-2"),
        f"image:{digest_of('theirs')}",
        digest_of("theirs"),
        digest_of("theirs")[:12],
        digest_of("zip user-2 1"),
        digest_of("token user-2 1")[:32],
        digest_of("job user-2 1")[:26],
        f"s3://bucket/loras/user-2/{digest_of('user-2 1')}.safetensors",
        f"acme/user-2:{digest_of('version user-2 1')}",
        digest_of("version user-2 1"),
        "user-2:V1",
        "user:user-2",
    ]
    assert set(foreign[:-10]) <= set(everything.lineage.nodes)
    for text in foreign:
        with pytest.raises(LineageNotFound) as refused:
            trace(two_users, text, scope=own)
        if "user-2" in text:
            assert trace(two_users, text).starts
            with pytest.raises(LineageNotFound) as unknown:
                trace(two_users, text.replace("user-2", "user-3"), scope=own)
            assert str(unknown.value) == str(refused.value).replace("user-2", "user-3")
    for text in (digest_of("shared"), digest_of("content shared"), "user-1"):
        found = trace(two_users, text, scope=own)
        assert labels(found) == ["user-1 V1"], text
        assert "user-2" not in str(found.as_json())
        assert "user-2" not in lineage_svg(found)
    assert labels(trace(two_users, digest_of("shared"))) == ["user-1 V1", "user-2 V1"]


def test_what_is_ambiguous_only_through_others_is_plain_to_a_user(two_users: Database) -> None:
    with two_users.read() as session:
        run = session.query(ModelVersion).filter_by(model_id=model_of(session, "user-1").id).one()
    number = str(run.training_run_id)
    with pytest.raises(AmbiguousId):
        trace(two_users, number)
    with pytest.raises(AmbiguousId) as listed:
        trace(two_users, number, scope=Scope("user-1"))
    assert "user-2" not in str(listed.value)
    other = Scope("user-2")
    with pytest.raises(LineageNotFound):
        trace(two_users, number, scope=other)


def test_one_photograph_in_a_thousand_sets_takes_no_more_queries_than_in_one(database: Database) -> None:
    add_model(database, "user-50c")
    with database.begin() as session:
        add_life(session, "user-50c", 10_000, {"rare": True})
        add_many(session, model_of(session, "user-50c"), "common", 1000)
    counts = {}
    for name in ("rare", "common"):
        with counted_queries(database) as statements:
            began = time.perf_counter()
            found = trace(database, digest_of(name))
            seconds = time.perf_counter() - began
        counts[name] = len(statements)
    assert counts["common"] == counts["rare"] < 40
    assert len(found.lineage.versions) == 1000
    assert found.lineage.versions[0].facts["live"]
    assert seconds < 10
    with counted_queries(database) as statements:
        whole = trace(database, "user-50c")
    assert len(statements) < 50
    assert len(whole.lineage.of_kind(Kind.IMAGE)) == 1002
    assert len(whole.lineage.nodes) > 6000

    assert len(lineage_svg(found)) < 100_000
    assert "990 image sets" in lineage_svg(found)


Life = tuple[int, dict[str, bool]]
lives = st.lists(
    st.tuples(
        st.integers(1, 2), st.dictionaries(st.sampled_from("abcd"), st.booleans(), min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives=lives)
def test_up_from_each_version_are_its_photographs_and_down_from_each_of_them_is_the_version(
    sqlite_database: Database, lives: list[Life]
) -> None:
    salt = next(NAMES)
    keys = {1: f"one {salt}", 2: f"two {salt}"}
    for key in keys.values():
        add_model(sqlite_database, key)
    with sqlite_database.begin() as session:
        made = [
            (
                add_life(
                    session, keys[user], attempt, {f"{salt} {name}": used for name, used in names.items()}
                ),
                {digest_of(f"{salt} {name}") for name, used in names.items() if used},
            )
            for attempt, (user, names) in enumerate(lives, 1)
        ]
    everything = {name for _, names in made for name in names}
    for version, trained_on in made:
        assert photographs(trace(sqlite_database, f"version:{version}", down=False)) == trained_on
    for name in everything:
        found = trace(sqlite_database, name, up=False)
        assert {node.facts["version_id"] for node in found.lineage.versions} == {
            version for version, trained_on in made if name in trained_on
        }


@st.composite
def graphs(draw: st.DrawFn) -> Lineage:
    """Any graph at all, with members that carry and members that do not."""
    size = draw(st.integers(2, 9))
    nodes = {str(number): Node(str(number), Kind.SET, str(number)) for number in range(size)}
    pairs = draw(st.lists(st.tuples(st.integers(0, size - 2), st.integers(1, size - 1)), max_size=20))
    edges = [
        Edge(str(low), str(high), Relation.MEMBER, {"included": draw(st.booleans())})
        for low, high in sorted({pair for pair in pairs if pair[0] < pair[1]})
    ]
    return Lineage(nodes, edges)


@given(graphs())
def test_whatever_is_above_has_it_below(lineage: Lineage) -> None:
    for node in lineage.nodes:
        for other in lineage.made_from([node]):
            assert node in lineage.made_of([other])
        seen = lineage.seen_from([node])
        assert set(seen.nodes) == lineage.made_from([node]) | lineage.made_of([node])
        assert lineage.seen_from([node], up=False).nodes.keys() == lineage.made_of([node])
