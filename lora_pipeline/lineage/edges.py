"""Rows as edges: what came about through what, and what is to be said of that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row

from lora_pipeline.lineage.graph import Edge, Kind, Relation
from lora_pipeline.lineage.node_ids import node_id, object_id, zip_id
from lora_pipeline.lineage.periods import moment, period
from lora_pipeline.lineage.rows import INCLUDED, Rows, by_version, place_of_row, versions_by_job
from lora_pipeline.lineage.weights import WeightsPlaces, is_there


def edges_of(rows: Rows, places: WeightsPlaces) -> Iterator[Edge]:
    """An edge for everything that the rows say came about through something else."""
    yield from _member_edges(rows)
    yield from _training_edges(rows)
    yield from _version_edges(rows)
    yield from _weights_edges(rows, places)
    yield from _served_edges(rows)


def _member_edges(rows: Rows) -> Iterator[Edge]:
    """One edge for a photograph and a set, also where the set holds the file twice: it is included if one of them is."""
    found: dict[tuple[int, int], list[Row[Any]]] = {}
    for member in rows.members.values():
        found.setdefault((member.image_id, member.image_set_id), []).append(member)
    for (image_id, set_id), members in found.items():
        image = rows.images.get(image_id)
        if image is None:
            continue
        member = next((one for one in members if one.verdict == INCLUDED), members[0])
        yield Edge(
            node_id(Kind.IMAGE, image.sha256),
            node_id(Kind.SET, set_id),
            Relation.MEMBER,
            {
                "included": member.verdict == INCLUDED,
                "verdict": member.verdict,
                "number": None if member.position is None else f"{member.position:03}",
                "chosen_by_hand": member.chosen_by is not None,
                # The codes alone: a message may name another file, and file names name people.
                "reasons": [
                    str(one["code"]) for one in member.findings if one.get("severity") in ("exclude", "block")
                ],
            },
        )


def _training_edges(rows: Rows) -> Iterator[Edge]:
    packed = set()
    for run in rows.runs.values():
        run_node = node_id(Kind.RUN, run.id)
        set_node = node_id(Kind.SET, run.image_set_id)
        if not run.zip_sha256:
            yield Edge(set_node, run_node, Relation.TRAINED_ON)
            continue
        zip_node = zip_id(run.zip_sha256, run.image_set_id)
        if zip_node not in packed:
            packed.add(zip_node)
            yield Edge(set_node, zip_node, Relation.PACKED)
        yield Edge(zip_node, run_node, Relation.TRAINED_ON, {"zip_deleted_at": moment(run.zip_deleted_at)})


def _version_edges(rows: Rows) -> Iterator[Edge]:
    made: defaultdict[int, set[int]] = defaultdict(set)
    for version in rows.versions.values():
        made[version.training_run_id].add(version.id)
    by_job = versions_by_job(rows.aliases.values())
    for run in rows.runs.values():
        # By its job too: of two merged versions only one keeps its link to its run.
        for version_id in sorted(made[run.id] | by_job.get(f"{run.provider}:{run.training_id}", set())):
            yield Edge(node_id(Kind.RUN, run.id), node_id(Kind.VERSION, version_id), Relation.REGISTERED)
    for old in rows.merged.values():
        yield Edge(node_id(Kind.VERSION, old.id), node_id(Kind.VERSION, old.version_id), Relation.MERGED_INTO)


def _weights_edges(rows: Rows, places: WeightsPlaces) -> Iterator[Edge]:
    for artifact_id, found in places.locations.items():
        artifact = rows.artifacts.get(artifact_id)
        if artifact is None:
            continue
        for row in found:
            yield Edge(
                node_id(Kind.ARTIFACT, artifact.content_key),
                object_id(place_of_row(row)),
                Relation.LIES_AT,
                {
                    "now": is_there(row),
                    "first_seen": moment(row.first_seen),
                    "last_seen": moment(row.last_seen),
                    "overwritten_at": moment(row.overwritten_at),
                    "deleted_at": moment(row.deleted_at),
                },
            )
    for version in rows.versions.values():
        version_node = node_id(Kind.VERSION, version.id)
        artifact = rows.artifacts.get(version.artifact_id)
        if artifact is not None:
            yield Edge(version_node, node_id(Kind.ARTIFACT, artifact.content_key), Relation.WEIGHTS)
        located = {place_of_row(row).ref for row in places.locations.get(version.artifact_id, ())}
        for place in places.of_version.get(version.id, ()):
            if place.ref not in located:
                yield Edge(version_node, object_id(place), Relation.WEIGHTS, {"now": None, "verified": False})


def _served_edges(rows: Rows) -> Iterator[Edge]:
    for version_id, found in by_version(rows.activations.values()).items():
        version = rows.versions[version_id]
        yield Edge(
            node_id(Kind.VERSION, version_id),
            node_id(Kind.MODEL, version.model_key),
            Relation.SERVED,
            {
                "live": any(one.active_to is None for one in found),
                "periods": [period(one) for one in found],
            },
        )
