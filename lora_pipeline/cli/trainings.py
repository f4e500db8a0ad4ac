"""`trainings`: which there are, one of them, and the switch that stops new ones. What ends or retries one is in
`training_actions`."""

from __future__ import annotations

import click

from lora_pipeline.cli.listing_group import ListingGroup
from lora_pipeline.cli.output import json_option
from lora_pipeline.cli.training_actions import cancel, resolve, retry

_COLUMNS = ["run", "model", "attempt", "state", "progress", "training_id", "asked_by", "created_at", "reason"]


@click.group(cls=ListingGroup)
def trainings() -> None:
    """Training runs: list (the default), show, cancel, retry, resolve, pause, resume."""


@trainings.command("list")
@click.option("--model", help="Of this model only.")
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_command(model: str | None, open_only: bool, limit: int, as_json: bool) -> None:
    """The newest training runs."""
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.trainings.listing import list_trainings
    from lora_pipeline.versions.lookup import find_model

    database = connect().database
    model_id = None
    if model is not None:
        with database.read() as session:
            model_id = find_model(session, model).id
    rows = list_trainings(database, model_id=model_id, open_only=open_only, limit=limit)
    if as_json:
        show_json(rows)
        return
    shown = [
        {
            **row,
            "progress": f"{row['progress']} %{' estimated' if row['progress_estimated'] else ''}",
            "created_at": str(row["created_at"])[:19],
            "reason": row["error"] or row["hold_reason"] or ("SIMULATED" if row["simulated"] else ""),
        }
        for row in rows
    ]
    show_table(shown, _COLUMNS, empty="no training yet. Start one: lora-pipeline train MODEL")


@trainings.command("show")
@click.argument("training")
@json_option
def show_command(training: str, as_json: bool) -> None:
    """Everything about TRAINING (a run's number, or the provider's training id)."""
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.trainings.listing import show_training

    facts = show_training(connect().database, training)
    if as_json:
        show_json(facts)
        return
    losses = facts.pop("loss_history")
    if losses:
        facts["loss"] = (
            f"{losses[0][1]:.4g} at step {losses[0][0]} → {losses[-1][1]:.4g} at step {losses[-1][0]}"
        )
    show_table(
        [
            {"what": name.replace("_", " "), "value": value}
            for name, value in facts.items()
            if value is not None
        ],
        ["what", "value"],
    )


@trainings.command("pause")
@click.option(
    "--reason", default="paused by hand", show_default=True, help="Shown wherever a training waits."
)
def pause(reason: str) -> None:
    """Start no new training until `resume`; what runs is followed to its end."""
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.trainings.controls import pause_submissions

    connections = connect()
    pause_submissions(connections.database, reason=reason, actor=actor(), now=connections.now())
    click.echo("Submissions are paused. Continue with: lora-pipeline trainings resume")


@trainings.command("resume")
def resume() -> None:
    """Let trainings start again."""
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.trainings.controls import resume_submissions

    connections = connect()
    resume_submissions(connections.database, actor=actor(), now=connections.now())
    click.echo("Submissions go on.")


for command in (cancel, retry, resolve):
    trainings.add_command(command)
