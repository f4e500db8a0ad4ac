"""`sync-status`: who serves an old version, who a wrong one, and whom nobody can tell about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.versions.sync_status import SyncReport

_COLUMNS = ["user", "model", "status", "verdict", "current", "latest", "versions", "counted", "completed"]


@click.command("sync-status")
@click.option("--user", help="One user (id or e-mail) or one model, asked for live.")
@click.option("--deep", is_flag=True, help="Ask for every model by itself, and count its versions.")
@click.option("--tests", is_flag=True, help="Test rows too.")
@click.option(
    "--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help="Write it there as CSV."
)
@click.option("--all", "show_all", is_flag=True, help="Show those that are up to date too.")
@json_option
def sync_status(
    user: str | None, deep: bool, tests: bool, csv_path: Path | None, show_all: bool, as_json: bool
) -> int:
    """Compare each user's active model with the provider's latest version. Changes nothing.

    Exit code 3 where somebody needs a sync, 6 where the provider has trouble, 1 for other errors.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import console, show_json
    from lora_pipeline.cli.verdicts import exit_of
    from lora_pipeline.versions.sync_status import ReportOptions
    from lora_pipeline.versions.sync_status import sync_status as ask

    options = ReportOptions(user=user, deep=deep, include_tests=tests)
    notes = console(stderr=True)
    report = ask(connect(), options, say=lambda text: None if as_json else notes.print(text))
    if csv_path is not None:
        from lora_pipeline.versions.sync_tables import to_csv

        csv_path.write_text(to_csv(report), encoding="utf-8")
    if as_json:
        show_json(report.as_json())
    else:
        _show(report, everybody=show_all or user is not None)
    return exit_of(row.drift.verdict for row in report.rows)


def _show(report: SyncReport, *, everybody: bool) -> None:
    from lora_pipeline.cli.output import show_table
    from lora_pipeline.versions.drift import Word

    hidden = () if everybody else report.with_word(Word.UP_TO_DATE)
    rows = [row for row in report.rows if row not in hidden]
    if rows:
        show_table([_line(row.as_json()) for row in rows], _COLUMNS)
    for row in rows:
        if row.drift.word is Word.ERROR:
            click.echo(f"{row.model_key}: {row.drift.detail}")
    simulated = " (SIMULATED provider)" if report.simulated else ""
    click.echo(
        f"Total users: {report.total_users}. Users needing sync: {report.users_needing_sync}. "
        f"Errors: {len(report.with_word(Word.ERROR))}. {report.requests} requests{simulated}."
    )
    for hint in report.hints:
        click.echo(f"  {hint}")
    if report.users_needing_sync:
        click.echo("Repair one: lora-pipeline sync MODEL. All: lora-pipeline sync --all, then with --apply.")


def _line(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "user": facts["user"],
        "model": facts["modelKey"],
        "status": facts["status"],
        "verdict": facts["verdict"],
        "current": _short(facts["currentVersion"]),
        "latest": _short(facts["latestVersion"]),
        "versions": facts["totalVersionsOnReplicate"],
        "counted": str(facts["countedAt"] or "")[:16],
        "completed": str(facts["completed_at"] or "")[:16],
    }


def _short(version: str | None) -> str:
    return f"{version[:12]}…" if version and len(version) > 13 else version or ""
