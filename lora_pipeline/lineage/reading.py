"""Reading a lineage: from some nodes upwards and downwards, in a number of queries that does not grow with what is found.

The pipeline has a fixed order (photographs, sets, trainings, versions, artifacts, objects), so a walk is one query a
step and never one a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, or_
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Artifact,
    ArtifactLocation,
    Image,
    ImageSet,
    ImageSetMember,
    ModelVersion,
    TrainingRun,
    UserModel,
)
from lora_pipeline.lineage.building import build
from lora_pipeline.lineage.graph import Kind, Lineage
from lora_pipeline.lineage.node_ids import address_of, places_meant, read_node_id
from lora_pipeline.lineage.reader import Reader
from lora_pipeline.lineage.rows import INCLUDED, Scope, at_place


@dataclass
class _Seeds:
    """Where the walk begins, as row ids."""

    images: set[int] = field(default_factory=set)
    sets: set[int] = field(default_factory=set)
    runs: set[int] = field(default_factory=set)
    zipped: set[int] = field(default_factory=set)
    """Runs whose ZIPs are meant, not they themselves."""
    versions: set[int] = field(default_factory=set)
    artifacts: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    """Artifacts whose objects are meant."""
    lying: set[int] = field(default_factory=set)
    """Versions whose objects are meant."""


def read_lineage(
    session: Session, starts: Iterable[str], scope: Scope, *, up: bool = True, down: bool = True
) -> Lineage:
    """What is above and below the nodes with these ids. A model stands for all that was made for it.

    Ids of nothing, or of something outside the scope, are not among the nodes of the answer.
    """
    reader = Reader(session, scope)
    wanted = list(starts)
    seeds = _seeds(reader, wanted)
    if up:
        _upwards(reader, seeds)
    if down:
        _downwards(reader, seeds)
    _about_versions(reader)
    whole = build(reader.rows, scope)
    return whole.seen_from(_walked_from(whole, wanted), up=up, down=down)


def _seeds(reader: Reader, starts: Iterable[str]) -> _Seeds:
    keys: defaultdict[Kind, list[str]] = defaultdict(list)
    for start in starts:
        kind, key = read_node_id(start) or (Kind.OBJECT, start.removeprefix(f"{Kind.OBJECT}:"))
        keys[kind].append(key)
    seeds = _Seeds()
    if keys[Kind.IMAGE]:
        seeds.images = reader.images(reader.among(Image.sha256, keys[Kind.IMAGE]))
    if keys[Kind.SET]:
        seeds.sets = reader.sets(reader.among(ImageSet.id, _numbers(keys[Kind.SET])))
    if keys[Kind.ZIP]:
        seeds.zipped = _zipped(reader, keys[Kind.ZIP])
    if keys[Kind.RUN]:
        seeds.runs = reader.runs(reader.among(TrainingRun.id, _numbers(keys[Kind.RUN])))
    if keys[Kind.VERSION]:
        seeds.versions = reader.versions(reader.among(ModelVersion.id, _numbers(keys[Kind.VERSION])))
    if keys[Kind.ARTIFACT]:
        seeds.artifacts = reader.artifacts(reader.among(Artifact.content_key, keys[Kind.ARTIFACT]))
    places = [place for key in keys[Kind.OBJECT] for place in places_meant(key, reader.scope.rules)]
    if places:
        found = reader.locations(or_(*(at_place(place) for place in places)))
        held = {reader.rows.locations[one].artifact_id for one in found}
        seeds.held = reader.artifacts(reader.among(Artifact.id, held))
        seeds.lying = reader.versions_at(address_of(place) for place in places)
        seeds.lying |= reader.versions(reader.among(ModelVersion.artifact_id, seeds.held))
    if keys[Kind.MODEL]:
        models = reader.models(reader.among(UserModel.model_key, keys[Kind.MODEL]))
        seeds.sets |= reader.sets(reader.among(ImageSet.model_id, models))
        seeds.runs |= reader.runs(reader.among(TrainingRun.model_id, models))
        seeds.versions |= reader.versions(reader.among(ModelVersion.model_id, models))
    return seeds


def _numbers(keys: Iterable[str]) -> list[int]:
    return [int(key) for key in keys]


def _zipped(reader: Reader, keys: Iterable[str]) -> set[int]:
    pairs = [key.partition("@") for key in keys]
    return reader.runs(
        or_(
            *(
                and_(
                    TrainingRun.zip_sha256 == sha256,
                    TrainingRun.image_set_id == int(number) if at else TrainingRun.image_set_id.is_(None),
                )
                for sha256, at, number in pairs
            )
        )
    )


def _upwards(reader: Reader, seeds: _Seeds) -> None:
    rows = reader.rows
    versions = seeds.versions | seeds.lying
    versions |= reader.versions(reader.among(ModelVersion.artifact_id, seeds.artifacts))
    reader.aliases(versions)
    of_versions = {rows.versions[one].training_run_id for one in versions} - {None}
    runs = seeds.runs | seeds.zipped | reader.runs(reader.among(TrainingRun.id, of_versions))
    runs |= reader.runs_of_jobs()
    sets = seeds.sets | {rows.runs[one].image_set_id for one in runs} - {None}
    reader.sets(reader.among(ImageSet.id, sets))
    reader.members(reader.among(ImageSetMember.image_set_id, sets))
    reader.images(reader.among(Image.id, {member.image_id for member in rows.members.values()}))


def _downwards(reader: Reader, seeds: _Seeds) -> None:
    rows = reader.rows
    members = reader.members(reader.among(ImageSetMember.image_id, seeds.images))
    lain_in = {rows.members[one].image_set_id for one in members}
    reader.sets(reader.among(ImageSet.id, lain_in))
    sets = seeds.sets | {
        rows.members[one].image_set_id for one in members if rows.members[one].verdict == INCLUDED
    }
    runs = seeds.runs | seeds.zipped | reader.runs(reader.among(TrainingRun.image_set_id, sets))
    reader.versions(reader.among(ModelVersion.training_run_id, runs))
    reader.versions_of_jobs()


def _about_versions(reader: Reader) -> None:
    """What is told of every version that was met: its names, its history, and where its weights lie."""
    rows = reader.rows
    versions = set(rows.versions)
    reader.aliases(versions)
    reader.merged(versions)
    reader.activations(versions)
    artifacts = {row.artifact_id for row in rows.versions.values()} - {None}
    known = reader.artifacts(reader.among(Artifact.id, artifacts)) | set(rows.artifacts)
    reader.locations(reader.among(ArtifactLocation.artifact_id, known))
    models = {row.model_id for row in rows.versions.values()}
    reader.models(reader.among(UserModel.id, models))


def _walked_from(whole: Lineage, starts: Sequence[str]) -> set[str]:
    """Where to walk from: a merged version lives on in its survivor, a model is all that was made for it."""
    found = {whole.survivor(start) for start in starts} | set(starts)
    models = {
        whole.nodes[start].facts["model"]
        for start in found
        if start in whole.nodes and whole.nodes[start].kind is Kind.MODEL
    }
    return found | {node.id for node in whole.nodes.values() if node.facts.get("model") in models}
