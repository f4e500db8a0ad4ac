"""`inventory`: what lies in the buckets, against the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.connections import Connections
    from lora_pipeline.inventory.bucket_inventory import Progress
    from lora_pipeline.inventory.bucket_plan import InventoryPlan
    from lora_pipeline.inventory.bucket_report import InventoryReport

_ROWS = 60


@click.command()
@click.option(
    "--apply", "applied", is_flag=True, help="Read what is new, and attach it. Without it nothing is changed."
)
@json_option
def inventory(applied: bool, as_json: bool) -> int:
    """Hold the LoRA files in the buckets against the registry.

    LORA_INVENTORY names the buckets. A file belongs to the version that its training's id or token, its content or
    its place names; never its file name. Nothing in a bucket is ever changed. Exit codes: 3 something is not
    attached, new, doubtful or gone; 1 something could not be read; 6 the bucket has trouble, try again.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.inventory.bucket_pass import InventoryAtWork
    from lora_pipeline.objects.errors import StoreUnavailable

    try:
        return _take(connect(), as_json) if applied else _plan(connect(), as_json)
    except (InventoryAtWork, StoreUnavailable) as error:
        click.echo(f"Error: {error}", err=True)
        return Exit.TRY_AGAIN


def _plan(connections: Connections, as_json: bool) -> Exit:
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.bucket_plan import plan_inventory

    with _progress(quiet=as_json) as progress:
        plan = plan_inventory(connections, progress)
    if as_json:
        show_json(plan.as_json())
    else:
        _show_plan(plan)
    return Exit.DRIFT if plan.has_findings else Exit.FINE


def _take(connections: Connections, as_json: bool) -> Exit:
    from lora_pipeline.cli.exits import Exit, most_serious
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.bucket_inventory import UNBOUNDED, take_inventory

    with _progress(quiet=as_json) as progress:
        report = take_inventory(connections, budget=UNBOUNDED, progress=progress)
    if as_json:
        show_json({"applied": True, **report.as_json()})
    else:
        _show_report(report)
    unread = report.failures or any(place.problem for place in report.places)
    return most_serious(
        [Exit.DRIFT if report.has_findings else Exit.FINE, Exit.ERROR if unread else Exit.FINE]
    )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal: files counted while listing, files done while reading."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from lora_pipeline.cli.output import console
    from lora_pipeline.inventory.bucket_inventory import Progress

    terminal = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=terminal, transient=True, disable=quiet or not terminal.is_terminal) as bar:
        listing = bar.add_task("listing", total=None)
        reading = bar.add_task("reading", total=None, visible=False)
        yield Progress(
            listed=lambda files: bar.update(listing, completed=files),
            reading=lambda files: bar.update(reading, total=files, visible=True),
            read=lambda files: bar.advance(reading, files),
        )


def _show_plan(plan: InventoryPlan) -> None:
    from lora_pipeline.cli.output import counted, show_table

    _show_places(plan.report)
    if plan.changes:
        show_table(plan.changes[:_ROWS], ["what", "object", "size"], title="since it was last listed:")
        _tell_more(plan.report.counts, len(plan.changes[:_ROWS]))
    _show_standings(plan.report)
    if plan.to_read:
        click.echo(f"To read: {counted(plan.to_read, 'file')}, {counted(plan.bytes_to_read, 'byte')}")
    if plan.to_read or plan.changes:
        click.echo("Nothing was changed. Read and attach them: lora-pipeline inventory --apply")
    else:
        click.echo(f"Next: {plan.report.next_step}")


def _show_report(report: InventoryReport) -> None:
    from lora_pipeline.cli.output import counted, show_table

    _show_places(report)
    _show_standings(report)
    if report.failures:
        rows = [{"object": address, "why": reason} for address, reason in report.failures[:_ROWS]]
        show_table(rows, ["object", "why"], title=f"{len(report.failures)} could not be read, and wait:")
    if report.ended_early:
        click.echo(f"Ended early: {report.ended_early}")
    click.echo(
        f"{counted(report.read, 'file')} read, {counted(report.bytes_hashed, 'byte')} hashed, "
        f"{counted(report.attached, 'file')} attached"
    )
    click.echo(f"Next: {report.next_step}")


def _show_places(report: InventoryReport) -> None:
    from lora_pipeline.cli.output import show_table

    rows = [
        {
            "place": place.place,
            "LoRA_files": place.counts.files,
            "new": place.counts.new,
            "changed": place.counts.changed,
            "overwritten": place.counts.overwritten,
            "deleted": place.counts.deleted,
            "other_objects": place.counts.others,
            "": place.problem or ("" if place.is_complete else "not listed to its end"),
        }
        for place in report.places
    ]
    columns = ["place", "LoRA_files", "new", "changed", "overwritten", "deleted", "other_objects", ""]
    show_table(rows, columns)


def _show_standings(report: InventoryReport) -> None:
    from lora_pipeline.cli.output import show_table

    standings = ", ".join(f"{count} {standing}" for standing, count in report.standings.items() if count)
    if standings:
        click.echo(f"Files as they stand: {standings}")
    rows = [_file(file) for file in report.notable[:_ROWS]]
    if rows:
        show_table(rows, ["object", "size", "standing", "version", "why"])
    lost = [
        {"model": one.model, "version": one.version, "address": one.address, "what": one.what}
        for one in report.lost[:_ROWS]
    ]
    if lost:
        title = f"{len(report.lost)} served without weights:"
        show_table(lost, ["model", "version", "address", "what"], title=title)


def _file(file: Any) -> dict[str, Any]:
    version = f"{file.model} {file.version}" if file.version else ""
    return {
        "object": file.address,
        "size": file.size,
        "standing": file.standing,
        "version": version,
        "why": file.reason,
    }


def _tell_more(counts: Any, shown: int) -> None:
    rest = counts.new + counts.changed + counts.overwritten + counts.deleted - shown
    if rest > 0:
        click.echo(f"… and {rest} more")
