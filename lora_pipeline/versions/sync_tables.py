"""The sync status report as tables: rows for a screen, a pandas DataFrame, CSV that a spreadsheet cannot run."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from lora_pipeline.versions.sync_status import ModelStatus, SyncReport

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula."""

COLUMNS = (
    "user",
    "email",
    "modelKey",
    "modelId",
    "status",
    "verdict",
    "currentVersion",
    "latestVersion",
    "needsSync",
    "updated_at",
    "completed_at",
    "totalVersionsOnReplicate",
    "countedAt",
    "allVersions",
    "detail",
)


def to_records(report: SyncReport) -> list[dict[str, Any]]:
    """A flat record for each line: what JSON nests (`allVersions`) as one text."""
    return [_record(row) for row in report.rows]


def to_frame(report: SyncReport) -> pd.DataFrame:
    """The report as a DataFrame with these columns, empty reports too. Times are aware, in UTC."""
    import pandas as pd

    frame = pd.DataFrame(to_records(report), columns=list(COLUMNS))
    for column in ("updated_at", "completed_at", "countedAt"):
        frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601")
    frame["totalVersionsOnReplicate"] = frame["totalVersionsOnReplicate"].astype("Int64")
    return frame


def to_csv(report: SyncReport) -> str:
    """The report as CSV. A cell that a spreadsheet would run as a formula is preceded by an apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in to_records(report):
        writer.writerow({name: _cell(value) for name, value in record.items()})
    return out.getvalue()


def _record(row: ModelStatus) -> dict[str, Any]:
    facts = row.as_json()
    facts["allVersions"] = " ".join(
        f"{version['id'][:12]}@{str(version['created_at'] or '')[:10]}" for version in facts["allVersions"]
    )
    return {name: facts[name] for name in COLUMNS}


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
