"""`train MODEL`: one training, because a person asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections


@click.command()
@click.argument("model")
@click.option("--steps", type=click.IntRange(1), help="Training steps; the same as --set steps=…")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Any parameter of the trainer.")
@click.option("--policy", help="How parameters are chosen: default/1 or adaptive/1.")
@json_option
def train(model: str, steps: int | None, changes: tuple[str, ...], policy: str | None, as_json: bool) -> int:
    """Train MODEL now, without waiting for the end.

    Takes in what lies in its inbox, checks, packs and submits.
    """
    from lora_pipeline.cli.assignments import assignments
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.trainings.parameters import DEFAULT_POLICY
    from lora_pipeline.trainings.runs import provider_of
    from lora_pipeline.trainings.starting import start_training
    from lora_pipeline.trainings.submission import Submission

    overrides = assignments(changes)
    if steps is not None:
        overrides["steps"] = steps
    connections = connect()
    model_key = _model_key(connections, model)
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        click.echo(f"Warning: {text}", err=True)

    result = start_training(
        connections,
        model_key,
        asked_by=actor(),
        overrides=overrides,
        policy=policy or DEFAULT_POLICY,
        say=lambda text: None if as_json else click.echo(f"{model_key}: {text}", err=True),
        warn=warn,
    )
    simulated = provider_of(connections, result.run_id).simulated
    if as_json:
        show_json({"model": model_key, "simulated": simulated, **result.__dict__, "warnings": warnings})
    elif result.outcome is Submission.SUBMITTED:
        click.echo(
            f"{model_key}: training {result.training_id} is submitted{' (SIMULATED)' if simulated else ''}. "
            f"Follow it: lora-pipeline trainings show {result.run_id}"
        )
    elif result.outcome is Submission.TAKEN:
        click.echo(
            f"{model_key}: is trained already. Follow it: lora-pipeline trainings show {result.run_id}"
        )
    else:
        click.echo(f"{model_key}: {result.outcome.value}: {result.reason}", err=True)
    if result.outcome in (Submission.SUBMITTED, Submission.TAKEN):
        return Exit.FINE
    return Exit.ERROR if result.outcome is Submission.REFUSED else Exit.TRY_AGAIN


def _model_key(connections: Connections, model: str) -> str:
    """The key of the model that is meant; a new key is left to intake, which makes it from the inbox's folder."""
    from lora_pipeline.image_sets.names import is_model_key
    from lora_pipeline.versions.lookup import ModelNotFound, find_model

    try:
        with connections.database.read() as session:
            return find_model(session, model).model_key
    except ModelNotFound:
        if is_model_key(model) and "@" not in model:
            return model
        raise
