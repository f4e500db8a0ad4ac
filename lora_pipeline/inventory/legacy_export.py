"""Write training_versions.json files that the old application reads, from what the registry knows.

An entry that was imported is written as it came, with the ids merged into it since; what the registry trained itself
is written in the same shape. Existing files are never overwritten.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    MergeJournal,
    MergePlan,
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.inventory.entries import MERGED_IDS, moment
from lora_pipeline.inventory.legacy_file import VERSIONS
from lora_pipeline.inventory.legacy_import import SCOPE
from lora_pipeline.inventory.legacy_tree import NAME
from lora_pipeline.objects.private_files import flush_folder, flush_to_disk, private_temporary_file

_NEVER = datetime.min.replace(tzinfo=UTC)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_STYLE = re.compile(r"style_([0-9]+)")
_ACTOR = re.compile(r"actor_([0-9]+)")


@dataclass(slots=True)
class ExportReport:
    """The files that are (or would be) written, and those that are there with other content."""

    applied: bool
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    entries: int = 0


@dataclass(slots=True)
class _Kept:
    """What imports kept of one model."""

    path: str | None = None
    wrapper: dict[str, Any] = field(default_factory=dict)
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)


def export_tree(database: Database, target: Path, *, apply: bool) -> ExportReport:
    """Write a file for every model that has a version or a failed training. Without `apply` only say which."""
    report = ExportReport(apply)
    with database.read() as session:
        kept = _kept(session)
        for model in session.scalars(select(UserModel).order_by(UserModel.id)):
            known = kept.get(model.model_key, _Kept())
            entries = _entries(session, model, known)
            if not entries:
                continue
            report.entries += len(entries)
            path = _inside(known.path) or _path(model)
            text = json.dumps({VERSIONS: entries, **known.wrapper}, indent=2, ensure_ascii=False)
            _write(target, path, text, report)
    return report


def _kept(session: Session) -> dict[str, _Kept]:
    found: dict[str, _Kept] = {}
    for line in session.scalars(
        select(MergeJournal)
        .join(MergePlan, MergePlan.id == MergeJournal.plan_id)
        .where(MergePlan.scope.startswith(SCOPE))
        .order_by(MergeJournal.id)
    ):
        key, _, entry_id = line.target.partition("/")
        kept = found.setdefault(key, _Kept())
        if not entry_id:
            kept.path, kept.wrapper = line.after["path"], line.before["wrapper"]
        elif "version" in line.after:
            kept.versions[line.after["version"]] = line.before
        else:
            kept.runs[line.after["run"]] = line.before
    return found


def _entries(session: Session, model: UserModel, known: _Kept) -> list[dict[str, Any]]:
    merged: dict[int, list[int]] = {}
    redirects = select(VersionRedirect).join(ModelVersion, ModelVersion.id == VersionRedirect.old_version_id)
    for redirect in session.scalars(redirects.where(ModelVersion.model_id == model.id)):
        merged.setdefault(redirect.version_id, []).append(redirect.old_version_id)
    losers = {loser for group in merged.values() for loser in group}
    versions = session.scalars(select(ModelVersion).where(ModelVersion.model_id == model.id)).all()
    runs = session.scalars(
        select(TrainingRun).where(TrainingRun.model_id == model.id, TrainingRun.status == "failed")
    ).all()
    entries = [
        _of_version(session, model, version, known, merged.get(version.id, []))
        for version in versions
        if version.id not in losers
    ]
    entries += [known.runs.get(run.id) or _of_run(run) for run in runs]
    return sorted(entries, key=lambda entry: moment(entry.get("timestamp")) or _NEVER, reverse=True)


def _of_version(
    session: Session, model: UserModel, version: ModelVersion, known: _Kept, losers: list[int]
) -> dict[str, Any]:
    kept = known.versions.get(version.id)
    entry = dict(kept) if kept is not None else _new_entry(session, model, version)
    others = [one["id"] for loser in losers if (one := known.versions.get(loser)) is not None]
    ids = [one for one in [*entry.get(MERGED_IDS, []), *others] if one != entry["id"]]
    return {**entry, MERGED_IDS: list(dict.fromkeys(ids))} if ids else entry


def _new_entry(session: Session, model: UserModel, version: ModelVersion) -> dict[str, Any]:
    job = session.scalar(
        select(VersionAlias.alias).where(
            VersionAlias.version_id == version.id, VersionAlias.kind == "training_id"
        )
    )
    trained = _time(version.trained_at or version.created_at)
    return {
        "id": job.partition(":")[2] if job else f"{model.model_key}_V{version.number}",
        "name": f"V{version.number}",
        "timestamp": trained,
        "parameters": version.parameters,
        "status": "completed",
        "imageCount": version.image_count or 0,
        "loraUrl": version.weights_url,
        "completedAt": trained,
    }


def _of_run(run: TrainingRun) -> dict[str, Any]:
    return {
        "id": run.training_id or run.token,
        "name": f"attempt {run.attempt}",
        "timestamp": _time(run.created_at),
        "parameters": run.parameters,
        "status": "failed",
        "imageCount": 0,
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
    file = target / path
    if file.is_symlink() or file.exists():
        same = not file.is_symlink() and file.read_text() == text
        (report.unchanged if same else report.refused).append(path)
        return
    report.written.append(path)
    if not report.applied:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with private_temporary_file(file.parent) as (temporary, name):
        temporary.write(text.encode())
        os.fchmod(temporary.fileno(), 0o644)
        flush_to_disk(temporary)
        name.replace(file)
    flush_folder(file.parent)
