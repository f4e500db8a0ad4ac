"""`import` and `export`: what older systems know, into the registry, and back into their files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.dedupe import rename_option
from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.inventory.legacy_import import ImportReport

_ROWS = 100


@click.group("import")
def import_() -> None:
    """Load what an older system knows. Its files and tables are only read."""


@click.group("export")
def export() -> None:
    """Write the registry in an older system's form."""


@import_.command("training-versions")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--apply", "applied", is_flag=True, help="Load. Without it the plan and the defects are shown.")
@rename_option
@json_option
def training_versions(folder: Path, applied: bool, renames: tuple[str, ...], as_json: bool) -> int:
    """Load the training_versions.json files below DIR: styles, actors, their versions and failed trainings.

    Every defect is told first. Loading twice changes nothing.
    """
    from dataclasses import asdict

    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.legacy_import import import_tree
    from lora_pipeline.inventory.renames import configured_rules

    connections = connect()
    rules = configured_rules(connections.settings, renames)
    report = import_tree(connections.database, folder, rules, connections.now(), apply=applied)
    if as_json:
        show_json(asdict(report))
    else:
        _show(report, folder)
    return Exit.ERROR if report.incomplete else Exit.FINE


@import_.command("sselfie")
@click.argument("url")
@click.option("--apply", "applied", is_flag=True, help="Load. Without it the plan and the defects are shown.")
@json_option
def sselfie(url: str, applied: bool, as_json: bool) -> int:
    """Load the selfie product's tables from the database at URL (postgresql://…, sqlite:///…), which is only read.

    Every row that could not be trusted is told with a verdict. Loading twice changes nothing.
    """
    from dataclasses import asdict

    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.sselfie_import import import_selfie
    from lora_pipeline.inventory.sselfie_tables import read_tables

    connections = connect()
    report = import_selfie(connections.database, read_tables(url), connections.now(), apply=applied)
    if as_json:
        show_json({**asdict(report), "untrusted": len(report.untrusted)})
        return Exit.ERROR if report.left_out else Exit.FINE
    click.echo(
        f"generation: {report.generation}; read: "
        + ", ".join(f"{count} {name}" for name, count in report.rows.items())
    )
    show_defects([(*item.where.split(" ", 1), item.kind, item.what) for item in report.defects], "row")
    click.echo(
        f"{'loaded' if applied else 'to load'}: {report.users_new} users, {report.models_new} models, "
        f"{report.versions_new} versions, {report.runs_new} trainings; known already: {report.versions_known} versions, "
        f"{report.runs_known} trainings; still training: {report.waiting}; left out: {report.left_out}; "
        f"for a person: {len(report.untrusted)}"
    )
    if not applied:
        click.echo("Nothing was changed. Load it with --apply")
    return Exit.ERROR if report.left_out else Exit.FINE


@export.command("training-versions")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--apply", "applied", is_flag=True, help="Write. Without it the files are only named.")
@json_option
def export_training_versions(folder: Path, applied: bool, as_json: bool) -> int:
    """Write a training_versions.json for every model into DIR. No existing file is overwritten."""
    from dataclasses import asdict

    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.legacy_export import export_tree

    report = export_tree(connect().database, folder, apply=applied)
    if as_json:
        show_json(asdict(report))
    else:
        word = "written" if applied else "to write; nothing was written, add --apply"
        click.echo(
            f"{report.entries} entries; {len(report.written)} files {word}; {len(report.unchanged)} are there already"
        )
        for path in report.written[:_ROWS]:
            click.echo(f"  {path}")
        for path in report.refused:
            click.echo(f"refused: {path} is there with other content; choose an empty folder", err=True)
    if not report.refused:
        return Exit.FINE
    return Exit.ERROR if report.written or report.unchanged else Exit.REFUSED


def _show(report: ImportReport, folder: Path) -> None:
    from lora_pipeline.cli.output import show_table

    click.echo(
        f"{report.files} files with {report.entries} entries read; {report.duplicates} are duplicates of another"
    )
    show_defects([(path, defect.where, defect.kind, defect.what) for path, defect in report.defects], "entry")
    if report.skipped:
        rows = [{"file": item.path, "reason": item.reason} for item in report.skipped]
        show_table(rows, ["file", "reason"], title=f"{len(rows)} skipped:")
    done = "loaded" if report.applied else "to load"
    click.echo(
        f"{done}: {report.models_new} models, {report.versions_new} versions, {report.runs_new} failed or forgotten "
        f"trainings; known already: {report.versions_known} versions, {report.runs_known} trainings; "
        f"left out: {report.left_out}"
    )
    if not report.applied:
        click.echo(f"Nothing was changed. Load it: lora-pipeline import training-versions {folder} --apply")


def show_defects(defects: list[tuple[Any, ...]], record: str) -> None:
    """Every kind of defect with its count, and the first of them one by one."""
    from lora_pipeline.cli.output import show_table

    if not defects:
        return
    counts = Counter(kind for _, _, kind, _ in defects)
    click.echo(
        f"{len(defects)} defects: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    )
    rows = [
        {"where": path, record: where, "defect": kind, "what": what}
        for path, where, kind, what in defects[:_ROWS]
    ]
    show_table(rows, ["where", record, "defect", "what"])
    if len(defects) > _ROWS:
        click.echo(f"… and {len(defects) - _ROWS} more; all of them with --json")
