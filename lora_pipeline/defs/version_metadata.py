"""The sync tables as Dagster metadata: numbers that plot over time, and tables without a person in them."""

from __future__ import annotations

import dagster as dg

from lora_pipeline.defs.metadata import Metadata
from lora_pipeline.versions.bulk_sync import BulkReport
from lora_pipeline.versions.drift import Verdict, Word
from lora_pipeline.versions.registry_checks import CheckReport
from lora_pipeline.versions.sync_status import ModelStatus, SyncReport

_SHOWN = 200
_FIRST = {Word.ERROR: 0, Word.NEEDS_SYNC: 1}


def provider_metadata(report: SyncReport) -> Metadata:
    """What the provider has, as far as it was looked at."""
    seen = [row for row in report.rows if row.latest_version is not None]
    counted = [row.counted_at for row in report.rows if row.counted_at is not None]
    counts = report.counts()
    metadata: Metadata = {
        "models looked for": dg.MetadataValue.int(len(report.rows)),
        "models with a version": dg.MetadataValue.int(len(seen)),
        "models not found": dg.MetadataValue.int(counts.get(Verdict.MODEL_NOT_FOUND, 0)),
        "models without versions": dg.MetadataValue.int(counts.get(Verdict.NO_VERSIONS, 0)),
        "not answered": dg.MetadataValue.int(counts.get(Verdict.PROVIDER_ERROR, 0)),
        "versions at the last count": dg.MetadataValue.int(
            sum(row.total_versions or 0 for row in report.rows)
        ),
        "models counted": dg.MetadataValue.int(len(counted)),
        "requests": dg.MetadataValue.int(report.requests),
        "versions": _table([_provider_row(row) for row in report.rows[:_SHOWN]], "no model is trained yet"),
    }
    if counted:
        metadata["oldest count"] = dg.MetadataValue.timestamp(min(counted))
    return _labelled(metadata, report.simulated)


def report_metadata(report: SyncReport) -> Metadata:
    """Who serves what: the numbers of the report, and the lines that need somebody first."""
    rows = sorted(report.rows, key=lambda row: _FIRST.get(row.drift.word or Word.UP_TO_DATE, 2))
    hints = "; ".join(report.hints) or "nobody is listed"
    metadata: Metadata = {
        "total users": dg.MetadataValue.int(report.total_users),
        "users needing sync": dg.MetadataValue.int(report.users_needing_sync),
        "errors": dg.MetadataValue.int(len(report.with_word(Word.ERROR))),
        "up to date": dg.MetadataValue.int(len(report.with_word(Word.UP_TO_DATE))),
        "pinned": dg.MetadataValue.int(report.counts().get(Verdict.PINNED, 0)),
        "sync status": _table([_report_row(row) for row in rows[:_SHOWN]], hints),
        "lines not shown": dg.MetadataValue.int(max(0, len(rows) - _SHOWN)),
    }
    return _labelled(metadata, report.simulated)


def drift_check(report: SyncReport) -> dg.AssetCheckResult:
    """Whether everybody serves what the provider has; errors are worse than drift, and neither is up to date."""
    behind, errors = report.with_word(Word.NEEDS_SYNC), report.with_word(Word.ERROR)
    rows = [_report_row(row) for row in (*errors, *behind)][:_SHOWN]
    return dg.AssetCheckResult(
        passed=not behind and not errors,
        check_name="drift",
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        metadata={
            "needing sync": dg.MetadataValue.int(len(behind)),
            "errors": dg.MetadataValue.int(len(errors)),
            "models": _table(rows, "nobody drifts"),
            "next": dg.MetadataValue.text(
                "lora-pipeline sync-status, lora-pipeline sync --all" if rows else ""
            ),
        },
    )


def registry_check(report: CheckReport, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    """A check over the registry, with its findings."""
    rows = [
        dg.TableRecord({"model": one.model_key, "what": one.problem, "next": one.next_command})
        for one in report.findings
    ]
    return dg.AssetCheckResult(
        passed=report.passed,
        severity=severity,
        metadata={
            "checked": dg.MetadataValue.int(report.checked),
            "found": dg.MetadataValue.int(report.found),
            "findings": _table(rows, "nothing"),
        },
    )


def bulk_metadata(report: BulkReport) -> Metadata:
    """What a bulk sync did."""
    rows = [
        dg.TableRecord(
            {
                "model": result.model_key,
                "outcome": result.outcome.value,
                "verdict": result.verdict.value,
                "current": result.current or "",
                "weights": result.weights or "",
                "detail": result.detail,
            }
        )
        for result in report.results[:_SHOWN]
    ]
    metadata: Metadata = {
        "models": dg.MetadataValue.int(report.models),
        "requests": dg.MetadataValue.int(report.requests),
        "seconds": dg.MetadataValue.float(round(report.seconds, 2)),
        **{f"outcome: {name}": dg.MetadataValue.int(count) for name, count in report.outcomes.items()},
        "spelled anew": dg.MetadataValue.int(len(report.normalisation.respellings)),
        "changes and failures": _table(rows, "every model is up to date"),
    }
    return _labelled(metadata, report.simulated)


def _report_row(row: ModelStatus) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "model": row.model_key,
            "status": row.drift.word.value if row.drift.word else "",
            "verdict": row.drift.verdict.value,
            "currentVersion": (row.current_version or "")[:16],
            "latestVersion": (row.latest_version or "")[:16],
            "versions": row.total_versions if row.total_versions is not None else "",
            "completed_at": row.completed_at.isoformat()[:16] if row.completed_at else "",
            "detail": row.drift.detail,
        }
    )


def _provider_row(row: ModelStatus) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "model": row.model_key,
            "at the provider": row.model or "",
            "latestVersion": (row.latest_version or "")[:16],
            "versions": row.total_versions if row.total_versions is not None else "",
            "countedAt": row.counted_at.isoformat()[:16] if row.counted_at else "",
        }
    )


def _table(rows: list[dg.TableRecord], empty: str) -> dg.MetadataValue:
    return dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text(empty)


def _labelled(metadata: Metadata, simulated: bool | None) -> Metadata:
    if not simulated:
        return metadata
    return {"simulated": dg.MetadataValue.md("**Simulated**: no real provider was asked."), **metadata}
