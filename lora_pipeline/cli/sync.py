"""`sync MODEL` and `sync --all`: bring what is served to what the provider has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lora_pipeline.cli.exits import Exit, most_serious
from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.versions.bulk_sync import BulkReport
    from lora_pipeline.versions.settling import SyncResult

_COLUMNS = ["model", "outcome", "verdict", "current", "latest", "weights", "detail"]


@click.command()
@click.argument("model", required=False)
@click.option(
    "--all", "everybody", is_flag=True, help="Every user's active model. Plans only, without --apply."
)
@click.option("--apply", is_flag=True, help="With --all: carry the plan out.")
@click.option("--deep", is_flag=True, help="With --all: ask for every model by itself.")
@click.option(
    "--filter", "only", default="*", help="With --all: only model keys or user ids like this (user-*)."
)
@click.option("--tests", is_flag=True, help="With --all: test rows too.")
@json_option
def sync(
    model: str | None, everybody: bool, apply: bool, deep: bool, only: str, tests: bool, as_json: bool
) -> int:
    """Hold MODEL against the provider and serve its latest version, with that version's own weights.

    A pinned version is a choice, reported and left alone. No retraining. --all shows a plan first; exit code 3
    says that there is something to do, 6 that the provider has trouble, 1 that something failed.
    """
    if everybody == (model is not None):
        raise click.UsageError("got both or neither; expected MODEL, or --all")
    if model is not None:
        if apply or deep or only != "*" or tests:
            raise click.UsageError(
                "--apply, --deep, --filter and --tests go with --all; one model is synced at once"
            )
        return _sync_one(model, as_json)
    return _sync_all(apply=apply, deep=deep, only=only, tests=tests, as_json=as_json)


def _sync_one(model: str, as_json: bool) -> int:
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.versions.sync import sync_model

    result = sync_model(connect(), model, actor=actor())
    if as_json:
        show_json(result.as_json())
    else:
        _tell(result)
    return _exit_of(result)


def _sync_all(*, apply: bool, deep: bool, only: str, tests: bool, as_json: bool) -> int:
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.output import console, show_json
    from lora_pipeline.versions.bulk_sync import AnotherAtWork, BulkOptions, bulk_sync

    notes = console(stderr=True)
    options = BulkOptions(apply=apply, deep=deep, only=only, include_tests=tests)
    try:
        report = bulk_sync(
            connect(), options, actor=actor(), say=lambda text: None if as_json else notes.print(text)
        )
    except AnotherAtWork as error:
        click.echo(f"Error: {error}", err=True)
        return Exit.TRY_AGAIN
    if as_json:
        show_json(report.as_json())
    else:
        _show(report)
    return most_serious(
        [*(_exit_of(result) for result in report.results), Exit.ERROR if report.ended_early else Exit.FINE]
    )


def _tell(result: SyncResult) -> None:
    from lora_pipeline.versions.sync_decisions import SyncOutcome

    if result.outcome is SyncOutcome.UPDATED:
        click.echo(f"{result.model_key}: updated from {result.previous or 'nothing'} to {result.current}")
        if result.weights == "unknown":
            click.echo("The weights of this version are unknown: no training in the provider's list made it.")
    elif result.outcome is SyncOutcome.UP_TO_DATE:
        click.echo(f"{result.model_key}: no update was needed; {result.detail}")
    else:
        click.echo(f"{result.model_key}: {result.outcome.value}: {result.detail}")
    if result.verdict.value not in ("up_to_date", "ahead"):
        from lora_pipeline.versions.drift_advice import advice

        for text in advice(result.verdict, result.model_key):
            click.echo(f"  {text}")


def _show(report: BulkReport) -> None:
    from lora_pipeline.cli.output import show_table

    rows = [
        {
            "model": result.model_key,
            "outcome": result.outcome.value,
            "verdict": result.verdict.value,
            "current": _short(result.current),
            "latest": _short(result.latest),
            "weights": result.weights,
            "detail": result.detail,
        }
        for result in report.results
    ]
    if rows:
        show_table(rows, _COLUMNS)
    click.echo(f"{report.summary}{' (SIMULATED provider)' if report.simulated else ''}")
    formats = report.normalisation
    if formats.respellings or formats.malformed:
        click.echo(f"Stored spellings: {formats.summary}")
        for one in formats.malformed:
            click.echo(f"  {one.model_key} {one.column}: {one.problem}")
    if report.ended_early:
        click.echo(f"Ended early: {report.ended_early}. Run it again: what is done stays done.")
    if not report.options.apply and (report.outcomes.get("planned") or formats.respellings):
        click.echo(
            "This was the plan; nothing was changed. Carry it out with: lora-pipeline sync --all --apply"
        )


def _exit_of(result: SyncResult) -> Exit:
    """What became of it decides; a model that still needs a sync is drift, however good the reason."""
    from lora_pipeline.cli.verdicts import exit_of
    from lora_pipeline.versions.sync_decisions import SyncOutcome

    if result.outcome is SyncOutcome.PLANNED:
        return Exit.DRIFT
    if result.outcome is SyncOutcome.CHANGED:
        return Exit.ERROR
    if result.outcome is SyncOutcome.FAILED and result.drift.needs_sync:
        # The latest is known and its weights could not be asked for.
        return Exit.TRY_AGAIN
    return exit_of([result.verdict])


def _short(version: str | None) -> str:
    if not version:
        return ""
    digits = version.rpartition(":")[2]
    return f"{digits[:12]}…" if len(digits) > 13 else digits
