"""Rows as nodes: what each thing is called and which facts it shows.

Nothing personal becomes a fact: no file name, no e-mail, no user id, no signed address, no picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row

from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.lineage.graph import Kind, Node
from lora_pipeline.lineage.node_ids import address_of, node_id, object_id, zip_id
from lora_pipeline.lineage.periods import moment, period
from lora_pipeline.lineage.rows import OBJECT, Rows, by_version, place_of_row
from lora_pipeline.lineage.weights import WeightsPlaces

_SHORT = 12
_LEGACY = "legacy_id"


def nodes_of(rows: Rows, places: WeightsPlaces) -> Iterator[Node]:
    """A node for everything that was read, in the order of the pipeline."""
    yield from _image_nodes(rows)
    yield from _set_nodes(rows)
    yield from _zip_nodes(rows)
    yield from _run_nodes(rows)
    yield from _version_nodes(rows, places)
    yield from _artifact_nodes(rows)
    yield from _object_nodes(places)
    yield from _model_nodes(rows)


def _image_nodes(rows: Rows) -> Iterator[Node]:
    for image in rows.images.values():
        yield Node(
            node_id(Kind.IMAGE, image.sha256),
            Kind.IMAGE,
            f"photograph {image.sha256[:_SHORT]}",
            {
                "sha256": image.sha256,
                "normalised_sha256": image.normalised_sha256,
                "format": image.format,
                "width": image.width,
                "height": image.height,
                "added_at": moment(image.created_at),
            },
        )


def _set_nodes(rows: Rows) -> Iterator[Node]:
    for one in rows.sets.values():
        yield Node(
            node_id(Kind.SET, one.id),
            Kind.SET,
            f"image set {one.id}",
            {
                "image_set": one.id,
                "model": one.model_key,
                "external_id": one.external_id,
                "state": one.state,
                "digest": one.digest,
                "images": one.image_count,
                "usable": one.usable_count,
                "consent_recorded": one.consent is not None,
                "created_at": moment(one.created_at),
                "ready_at": moment(one.ready_at),
            },
        )


def _zip_nodes(rows: Rows) -> Iterator[Node]:
    packed: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for run in rows.runs.values():
        if run.zip_sha256:
            packed[zip_id(run.zip_sha256, run.image_set_id)].append(run)
    for key, runs in packed.items():
        yield Node(
            key,
            Kind.ZIP,
            f"ZIP {runs[0].zip_sha256[:_SHORT]}",
            {
                "sha256": runs[0].zip_sha256,
                "size": runs[0].zip_size,
                "image_set": runs[0].image_set_id,
                "model": runs[0].model_key,
                "deleted": all(run.zip_deleted_at is not None for run in runs),
            },
        )


def _run_nodes(rows: Rows) -> Iterator[Node]:
    for run in rows.runs.values():
        yield Node(
            node_id(Kind.RUN, run.id),
            Kind.RUN,
            f"training {run.id}",
            {
                "run": run.id,
                "model": run.model_key,
                "attempt": run.attempt,
                "provider": run.provider,
                "training_id": run.training_id,
                "state": run.state,
                "reason": run.hold_reason or run.error,
                "simulated": run.simulated,
                "trainer": run.trainer_returned or run.trainer_requested,
                "base_model": run.base_model,
                "trigger_word": run.trigger_word,
                "parameters": run.parameters,
                "zip_sha256": run.zip_sha256,
                "cost": run.cost,
                "submitted_at": moment(run.submitted_at),
                "completed_at": moment(run.completed_at),
            },
        )


def _version_nodes(rows: Rows, places: WeightsPlaces) -> Iterator[Node]:
    names = by_version(rows.aliases.values())
    served = by_version(rows.activations.values())
    merged = by_version(rows.merged.values())
    for version in rows.versions.values():
        current = next((one for one in served[version.id] if one.active_to is None), None)
        yield Node(
            node_id(Kind.VERSION, version.id),
            Kind.VERSION,
            f"{version.model_key} V{version.number}",
            {
                "version_id": version.id,
                "model": version.model_key,
                "version": f"V{version.number}",
                "live": current is not None,
                "live_since": moment(current.active_from) if current is not None else None,
                "pinned": current is not None and current.pinned,
                "served": [period(one) for one in served[version.id]],
                "weights": version.weights_state,
                "weights_at": places.weights_at(version),
                "provider": version.provider,
                "provider_version": version.provider_version,
                "trigger_word": version.trigger_word,
                "images": version.image_count,
                "simulated": version.simulated,
                "trained_at": moment(version.trained_at),
                # Addresses are told as the places that they name.
                "names": [_name(one) for one in names[version.id] if one.kind != OBJECT],
                "merged": [f"V{one.number}" for one in merged[version.id]],
                "merged_into": None,
            },
        )
    for old in rows.merged.values():
        survivor = rows.versions[old.version_id]
        yield Node(
            node_id(Kind.VERSION, old.id),
            Kind.VERSION,
            f"{old.model_key} V{old.number}",
            {
                "version_id": old.id,
                "model": old.model_key,
                "version": f"V{old.number}",
                "live": False,
                "merged_into": f"V{survivor.number}",
            },
        )


def _artifact_nodes(rows: Rows) -> Iterator[Node]:
    for artifact in rows.artifacts.values():
        yield Node(
            node_id(Kind.ARTIFACT, artifact.content_key),
            Kind.ARTIFACT,
            f"weights {artifact.file_sha256[:_SHORT]}",
            {
                "sha256": artifact.file_sha256,
                "content_key": artifact.content_key,
                "autov2": artifact.autov2,
                "autov3": artifact.autov3,
                "size": artifact.size,
                "rank": artifact.rank,
            },
        )


def _object_nodes(places: WeightsPlaces) -> Iterator[Node]:
    seen = {place_of_row(row) for found in places.locations.values() for row in found}
    said = {place for found in places.of_version.values() for place in found}
    for place in sorted(seen | said, key=address_of):
        address = address_of(place)
        yield Node(
            object_id(place),
            Kind.OBJECT,
            address,
            {"address": address, "object_version": place.object_version or None, "seen": place in seen},
        )


def _model_nodes(rows: Rows) -> Iterator[Node]:
    for model in rows.models.values():
        yield Node(
            node_id(Kind.MODEL, model.model_key),
            Kind.MODEL,
            f"model {model.model_key}",
            {"model": model.model_key, "model_type": model.model_type, "trigger_word": model.trigger_word},
        )


def _name(alias: Row[Any]) -> dict[str, str]:
    """Another name of a version. Which model an old id was given in, the version says itself."""
    kind = _LEGACY if alias.kind.startswith(_LEGACY) else alias.kind
    return {"kind": kind, "name": without_secrets(alias.alias)}
