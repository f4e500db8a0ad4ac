"""Write training_versions.json files that the old application reads, from what the registry knows.

An entry that was imported is written as it came, with the ids merged into it since; what the registry trained itself
is written in the same shape. Existing files are never overwritten.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    ImageSet,
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.inventory.entries import MERGED_IDS, is_empty, moment
from lora_pipeline.inventory.import_journal import KeptEntries, read_kept
from lora_pipeline.inventory.legacy_file import VERSIONS
from lora_pipeline.inventory.legacy_tree import NAME
from lora_pipeline.inventory.survivors import choose_survivor, merged_entry
from lora_pipeline.objects.private_files import flush_folder, flush_to_disk, private_temporary_file

_NEVER = datetime.min.replace(tzinfo=UTC)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_STYLE = re.compile(r"style_([0-9]+)")
_ACTOR = re.compile(r"actor_([0-9]+)")
_UNDER_WAY = ("pending", "starting", "training")


@dataclass(slots=True)
class ExportReport:
    """The files that are (or would be) written, and those that are there with other content."""

    applied: bool
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    entries: int = 0


def export_tree(database: Database, target: Path, *, apply: bool) -> ExportReport:
    """Write a file for every model that has a version, or a training that failed or is under way. Without `apply` only say which."""
    report = ExportReport(apply)
    with database.read() as session:
        kept = read_kept(session)
        for model in session.scalars(select(UserModel).order_by(UserModel.id)):
            known = kept.get(model.model_key, KeptEntries())
            entries = _entries(session, model, known)
            if not entries:
                continue
            report.entries += len(entries)
            path = _inside(known.path) or _path(model)
            text = json.dumps({VERSIONS: entries, **known.wrapper}, indent=2, ensure_ascii=False)
            _write(target, path, text, report)
    return report


def _entries(session: Session, model: UserModel, known: KeptEntries) -> list[dict[str, Any]]:
    merged: dict[int, list[int]] = {}
    redirects = select(VersionRedirect).join(ModelVersion, ModelVersion.id == VersionRedirect.old_version_id)
    for redirect in session.scalars(redirects.where(ModelVersion.model_id == model.id)):
        merged.setdefault(redirect.version_id, []).append(redirect.old_version_id)
    losers = {loser for group in merged.values() for loser in group}
    versions = session.scalars(select(ModelVersion).where(ModelVersion.model_id == model.id)).all()
    trained = _trainings(session, model)
    ids = _old_ids(session, model)
    entries = [
        _of_version(
            model,
            version,
            known,
            merged.get(version.id, []),
            ids.get(version.id, []),
            trained.get(version.training_run_id or 0),
        )
        for version in versions
        if version.id not in losers
    ]
    entries += [
        _of_run(one, known.runs.get(one.run.id))
        for one in trained.values()
        if one.run.status in ("failed", *_UNDER_WAY)
    ]
    return sorted(entries, key=lambda entry: moment(entry.get("timestamp")) or _NEVER, reverse=True)


class _Training(NamedTuple):
    """A training run, and what it was trained with where that is known."""

    run: TrainingRun
    image_set: ImageSet | None

    @property
    def facts(self) -> dict[str, Any]:
        """What an entry says of a training from its start."""
        about = {"timestamp": _time(self.run.created_at)}
        if self.image_set is None:
            return about
        chosen = self.image_set.external_id
        selection = int(chosen) if chosen and chosen.isdecimal() else chosen
        return {
            **about,
            **({"selectionSetId": selection} if selection else {}),
            "imageCount": self.image_set.usable_count,
        }


def _trainings(session: Session, model: UserModel) -> dict[int, _Training]:
    """Run id → the training."""
    rows = session.execute(
        select(TrainingRun, ImageSet)
        .outerjoin(ImageSet, ImageSet.id == TrainingRun.image_set_id)
        .where(TrainingRun.model_id == model.id)
        .order_by(TrainingRun.id)
    )
    return {run.id: _Training(run, image_set) for run, image_set in rows}


def _old_ids(session: Session, model: UserModel) -> dict[int, list[str]]:
    """What the versions are called in the old application: the provider's jobs first, then names of files."""
    found: dict[int, list[str]] = {}
    for version_id, kind, alias in session.execute(
        select(VersionAlias.version_id, VersionAlias.kind, VersionAlias.alias)
        .join(ModelVersion, ModelVersion.id == VersionAlias.version_id)
        .where(ModelVersion.model_id == model.id)
        .order_by(VersionAlias.kind.desc(), VersionAlias.id)
    ):
        if kind == "training_id":
            found.setdefault(version_id, []).append(alias.partition(":")[2])
        elif kind.startswith("legacy_id"):
            found.setdefault(version_id, []).append(alias)
    return found


def _of_version(
    model: UserModel,
    version: ModelVersion,
    known: KeptEntries,
    losers: Sequence[int],
    ids: Sequence[str],
    training: _Training | None,
) -> dict[str, Any]:
    """The one entry of a version: its own and those of the versions merged into it, field by field."""
    kept = [entry for one in (version.id, *losers) for entry in known.versions.get(one, ())]
    if kept:
        entry = merged_entry(kept, choose_survivor(kept, range(len(kept))))
        synced = moment(entry.get("lastSynced"))
        if version.last_synced_at is not None and synced is not None and synced < version.last_synced_at:
            del entry["lastSynced"]
        entry |= {key: value for key, value in _learnt(version).items() if is_empty(entry.get(key))}
    else:
        entry = _new_entry(model, version, ids, training)
    others = [one for one in dict.fromkeys([*entry.pop(MERGED_IDS, []), *ids]) if one != entry["id"]]
    return {**entry, MERGED_IDS: others} if others else entry


def _learnt(version: ModelVersion) -> dict[str, Any]:
    """What the registry may know of a version that its entry did not."""
    found = {
        "parameters": version.parameters,
        "loraUrl": version.weights_url,
        "isGood": version.is_good,
        "lastSynced": _time(version.last_synced_at) if version.last_synced_at is not None else None,
    }
    return {key: value for key, value in found.items() if not is_empty(value)}


def _new_entry(
    model: UserModel, version: ModelVersion, ids: Sequence[str], training: _Training | None
) -> dict[str, Any]:
    trained = _time(version.trained_at or version.created_at)
    return {
        "id": ids[0] if ids else f"{model.model_key}_V{version.number}",
        "name": f"V{version.number}",
        "timestamp": trained,
        "parameters": {},
        "status": "completed",
        "imageCount": version.image_count or 0,
        **(training.facts if training is not None else {}),
        **_learnt(version),
        "completedAt": trained,
    }


def _of_run(training: _Training, kept: dict[str, Any] | None) -> dict[str, Any]:
    run = training.run
    if kept is not None and kept.get("status") == "failed":
        return kept
    entry = kept or {
        "id": run.training_id or run.token,
        "name": f"attempt {run.attempt}",
        "parameters": run.parameters,
        "imageCount": 0,
        **training.facts,
    }
    if run.status in _UNDER_WAY:
        return {**entry, "status": "pending"}
    # What the old system left pending for ever has failed.
    return {
        **entry,
        "status": "failed",
        "error": run.error or "Training failed",
        "failedAt": _time(run.completed_at or run.updated_at),
    }


def _time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"


def _path(model: UserModel) -> str:
    slug = _NOT_SLUG.sub("_", model.model_name.lower()).strip("_")[:80] or "model"
    if found := _STYLE.fullmatch(model.model_key):
        return f"resources/style_images/{found[1]}_{slug}/{NAME}"
    if found := _ACTOR.fullmatch(model.model_key):
        return f"resources/actors/{int(found[1]):04d}_{slug}/{NAME}"
    return f"resources/models/{model.model_key}/{NAME}"


def _inside(path: str | None) -> str | None:
    """The path that an import kept, where it stays below the target."""
    return path if path and not path.startswith("/") and ".." not in path.split("/") else None


def _write(target: Path, path: str, text: str, report: ExportReport) -> None:
    file, content = target / path, text.encode()
    if file.is_symlink() or file.exists():
        same = file.is_file() and not file.is_symlink() and file.read_bytes() == content
        (report.unchanged if same else report.refused).append(path)
        return
    report.written.append(path)
    if not report.applied:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with private_temporary_file(file.parent) as (temporary, name):
        temporary.write(content)
        os.fchmod(temporary.fileno(), 0o644)
        flush_to_disk(temporary)
        name.replace(file)
    flush_folder(file.parent)
