"""`erase USER`: everything of a user, with a receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections
    from lora_pipeline.erasure.carrying_out import Carried
    from lora_pipeline.erasure.plan import ErasurePlan


@click.command()
@click.argument("user", required=False)
@click.option(
    "--apply", "applied", is_flag=True, help="Erase. Without it the plan is shown. There is no undo."
)
@click.option("--receipt", "receipt_id", metavar="ID", help="Show this receipt.")
@json_option
def erase(user: str | None, applied: bool, receipt_id: str | None, as_json: bool) -> int:
    """Erase a USER (id, e-mail address or model key): photographs, weights, versions at the provider, every row.

    An erasure that was killed goes on with the same command, or by the retention schedule. Of somebody who was erased
    it shows the receipt.
    """
    if (user is None) == (receipt_id is None) or (receipt_id and applied):
        raise click.UsageError("Give a USER, or --receipt ID alone.")
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.erasure.carrying_out import PATIENCE, carry_out
    from lora_pipeline.erasure.journal import begin_erasure, look
    from lora_pipeline.erasure.names import Erased

    connections = connect()
    if receipt_id is not None:
        return _show_receipt(connections, receipt_id, as_json)
    assert user is not None
    if not applied:
        found = look(connections, user)
        if isinstance(found, Erased):
            return _show_receipt(connections, found.id, as_json)
        _show_plan(found, user, as_json)
        return Exit.FINE
    erasure_id, plan = begin_erasure(connections, user, actor())
    carried = carry_out(connections, erasure_id, forget_partition=_dagster(connections), patience=PATIENCE)
    _show_trouble(carried, plan)
    shown = _show_receipt(connections, erasure_id, as_json)
    return Exit.TRY_AGAIN if carried.busy and not carried.completed else shown


def _show_plan(plan: ErasurePlan, user: str, as_json: bool) -> None:
    from lora_pipeline.cli.output import counted, show_json, show_table
    from lora_pipeline.erasure.plan import NO_UNDO

    if as_json:
        show_json(plan.as_json())
        return
    models = ", ".join(plan.models) or "no model"
    click.echo(f"user {plan.user_id} ({models}): {counted(len(plan.going), 'thing')} to delete")
    rows = [{"what": one.kind, "where": one.target, "sha256": (one.sha256 or "")[:12]} for one in plan.going]
    show_table(rows, ["what", "where", "sha256"])
    click.echo("rows: " + ", ".join(f"{count} {table}" for table, count in plan.rows.items()))
    stays = [
        {"what": one.kind, "where": one.target, "why": one.stays, "until": one.until} for one in plan.staying
    ]
    if stays:
        show_table(stays, ["what", "where", "why", "until"], title="Stays:")
    if plan.outside:
        click.echo("Not ours, and left where it lies; remove it yourself:")
        for address in plan.outside:
            click.echo(f"  {address}")
    click.echo(f"{NO_UNDO}\nNothing was changed. Erase: lora-pipeline erase {user} --apply")


def _show_trouble(carried: Carried, plan: ErasurePlan | None) -> None:
    """What the receipt cannot say, because it names nobody."""
    for said in carried.told:
        click.echo(said, err=True)
    for one in plan.staying if plan else ():
        click.echo(f"stays: {one.kind} {one.target}: {one.stays}", err=True)
    for address in plan.outside if plan else ():
        click.echo(f"left, since it is not ours: {address}", err=True)
    if carried.busy:
        click.echo("Another process is at work on this erasure.", err=True)


def _show_receipt(connections: Connections, erasure_id: str, as_json: bool) -> int:
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.erasure.receipts import receipt

    with connections.database.read() as session:
        found = receipt(session, erasure_id)
    code = Exit.FINE if found["completed_at"] else Exit.TRY_AGAIN
    if as_json:
        show_json(found)
        return code
    when = found["completed_at"] or found["began_at"]
    click.echo(f"receipt {found['receipt']}: {found['state']}, {when:%Y-%m-%d %H:%M} UTC, by {found['by']}")
    click.echo(f"user     {found['user_hash']}  (keyed hash of the user's id)")
    click.echo(f"deleted  {_counts(found['deleted'])}; already gone: {found['already_gone']}")
    click.echo(f"rows     {_counts(found['rows'])}")
    for sha256 in found["sha256"]:
        click.echo(f"sha256   {sha256}")
    for title in ("stays", "waiting"):
        if found[title]:
            show_table(_grouped(found[title]), ["what", "number", "why", "until"], title=f"{title}:")
    if code is not Exit.FINE:
        click.echo(
            "Not everything is deleted yet. Go on: the same command; the retention schedule does so too"
        )
    return code


def _grouped(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], int] = {}
    for one in entries:
        key = (one["what"], one["why"], one.get("until"))
        groups[key] = groups.get(key, 0) + 1
    return [
        {"what": what, "number": number, "why": why, "until": until}
        for (what, why, until), number in groups.items()
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "nothing"


def _dagster(connections: Connections) -> Any:
    """What takes a partition out of the Dagster that this machine has; None where it has none."""
    import os

    folder = os.environ.get("DAGSTER_HOME") or str(connections.settings.home / "dagster")
    if not os.path.isfile(os.path.join(folder, "dagster.yaml")):  # noqa: PTH113, PTH118
        return None
    import dagster as dg
    from sqlalchemy.exc import SQLAlchemyError

    from lora_pipeline.defs.partitions import forget_model

    def forget(key: str) -> bool:
        try:
            with dg.DagsterInstance.from_config(folder) as instance:
                forget_model(instance, key)
        except (OSError, SQLAlchemyError, dg.DagsterError) as error:
            click.echo(f"Dagster's storage cannot be reached ({type(error).__name__})", err=True)
            return False
        return True

    return forget
