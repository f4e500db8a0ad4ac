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
    from lora_pipeline.cli.output import counted, show_json
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
        f"{'loaded' if applied else 'to load'}: {counted(report.users_new, 'user')}, "
        f"{counted(report.models_new, 'model')}, {counted(report.versions_new, 'version')}, "
        f"{counted(report.runs_new, 'training')}; known already: {counted(report.versions_known, 'version')}, "
        f"{counted(report.runs_known, 'training')}; still training: {report.waiting}; left out: {report.left_out}; "
        f"for a person: {len(report.untrusted)}"
    )
    if not applied:
        click.echo("Nothing was changed. Load it: the same command with --apply")
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
        from lora_pipeline.cli.output import counted

        word = "written" if applied else "to write"
        click.echo(
            f"{counted(report.entries, 'entry', 'entries')}; {counted(len(report.written), 'file')} {word}; "
            f"there already: {len(report.unchanged)}"
        )
        for path in report.written:
            click.echo(f"  {path}")
        if not applied:
            click.echo(
                f"Nothing was written. Write it: lora-pipeline export training-versions {folder} --apply"
            )
        for path in report.refused:
            click.echo(f"refused: {path} is there with other content; choose an empty folder", err=True)
    if not report.refused:
        return Exit.FINE
    return Exit.ERROR if report.written or report.unchanged else Exit.REFUSED


def _show(report: ImportReport, folder: Path) -> None:
    from lora_pipeline.cli.output import counted, show_table

    click.echo(
        f"{counted(report.files, 'file')} with {counted(report.entries, 'entry', 'entries')} read; "
        f"duplicates of another: {report.duplicates}"
    )
    show_defects([(path, defect.where, defect.kind, defect.what) for path, defect in report.defects], "entry")
    if report.skipped:
        rows = [{"file": item.path, "reason": item.reason} for item in report.skipped]
        show_table(rows, ["file", "reason"], title=f"{len(rows)} skipped:")
    click.echo(
        f"{'loaded' if report.applied else 'to load'}: {counted(report.models_new, 'model')}, "
        f"{counted(report.versions_new, 'version')}, {counted(report.runs_new, 'failed or forgotten training')}; "
        f"known already: {counted(report.versions_known, 'version')}, {counted(report.runs_known, 'training')}; "
        f"left out: {report.left_out}"
    )
    if not report.applied:
        click.echo(f"Nothing was changed. Load it: lora-pipeline import training-versions {folder} --apply")


def show_defects(defects: list[tuple[Any, ...]], record: str) -> None:
    """Every kind of defect with its count, and every one of them."""
    from lora_pipeline.cli.output import counted, show_table

    if not defects:
        return
    counts = Counter(kind for _, _, kind, _ in defects)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    click.echo(f"{counted(len(defects), 'defect')}: {kinds}")
    rows = [
        {"where": path, record: where, "defect": kind, "what": what} for path, where, kind, what in defects
    ]
    show_table(rows, ["where", record, "defect", "what"])
