"""`trainings cancel`, `retry`, `resolve`: what a person does about one training. Each acts at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections


@click.command()
@click.argument("training")
@json_option
def cancel(training: str, as_json: bool) -> int:
    """End TRAINING (a run's number, or the provider's training id).

    At once where nothing was sent. A running one bills until the provider says that it ended; it is asked
    again at every status tick until then.
    """
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.trainings.cancelling import Cancel, cancel_training
    from lora_pipeline.trainings.runs import provider_of

    connections = connect()
    run_id = _run_id(connections, training)
    provider = provider_of(connections, run_id)
    result = cancel_training(connections.database, provider, run_id, actor(), connections.now)
    _show(
        {"run": run_id, "model": result.model_key, "outcome": result.outcome.value, "reason": result.reason},
        f"{result.model_key}: run {run_id} {result.outcome.value.replace('_', ' ')}: {result.reason}",
        as_json,
    )
    if result.outcome is Cancel.UNANSWERED:
        return Exit.TRY_AGAIN
    return Exit.REFUSED if result.outcome is Cancel.TOO_LATE else Exit.FINE


@click.command()
@click.argument("training")
@json_option
def retry(training: str, as_json: bool) -> int:
    """Try TRAINING again: a new attempt where it ended badly, its weights where only those were refused."""
    from lora_pipeline.cli.environment import connect

    connections = connect()
    return _retry(connections, _run_id(connections, training), as_json)


@click.command()
@click.argument("training")
@click.option("--resubmit", is_flag=True, help="Send it again, if the provider's list does not show it.")
@click.option("--adopt", metavar="TRAINING_ID", help="This training of the provider is its own.")
@click.option("--abandon", is_flag=True, help="Give it up: it ends as failed.")
@click.option("--retry", "again", is_flag=True, help="Fetch and verify its refused weights again.")
@click.option("--why", default="", help="Kept with the decision to abandon.")
@json_option
def resolve(
    training: str, resubmit: bool, adopt: str | None, abandon: bool, again: bool, why: str, as_json: bool
) -> int:
    """Decide over TRAINING, which is held or lost. Without an option: says what it waits for, and which fit."""
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.trainings.deciding import abandon_training, adopt_training, resubmit_training
    from lora_pipeline.trainings.runs import provider_of

    connections = connect()
    run_id = _run_id(connections, training)
    if sum((resubmit, adopt is not None, abandon, again)) != 1:
        raise click.UsageError(_what_fits(connections, run_id))
    if again:
        return _retry(connections, run_id, as_json)
    database, who, clock = connections.database, actor(), connections.now
    provider = provider_of(connections, run_id)
    if resubmit:
        decided = resubmit_training(database, provider, run_id, who, clock)
    elif adopt is not None:
        decided = adopt_training(database, provider, run_id, adopt, who, clock)
    else:
        decided = abandon_training(database, provider, run_id, who, clock, why=why)
    _show(
        {
            "run": run_id,
            "model": decided.model_key,
            "decision": decided.decision.value,
            "state": decided.state.value,
            "explanation": decided.explanation,
        },
        f"{decided.model_key}: run {run_id} {decided.decision.value}: {decided.explanation}",
        as_json,
    )
    return Exit.FINE


def _retry(connections: Connections, run_id: int, as_json: bool) -> int:
    from lora_pipeline.cli.environment import actor
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.trainings.retrying import retry_now
    from lora_pipeline.trainings.submission import Submission

    retried, sent = retry_now(
        connections, run_id, actor(), lambda text: None if as_json else click.echo(text, err=True)
    )
    outcome = sent.outcome.value if sent else None
    facts = {"run": retried.run_id, "model": retried.model_key, "new_attempt": retried.new_attempt}
    words = [f"{retried.model_key}: run {retried.run_id}: {retried.explanation}"]
    if sent is not None:
        words.append(f"it is {outcome}{f': {sent.reason}' if sent.reason else ''}")
    _show({**facts, "explanation": retried.explanation, "submission": outcome}, "; ".join(words), as_json)
    if sent is None or sent.outcome in (Submission.SUBMITTED, Submission.TAKEN):
        return Exit.FINE
    return Exit.ERROR if sent.outcome is Submission.REFUSED else Exit.TRY_AGAIN


def _run_id(connections: Connections, training: str) -> int:
    from lora_pipeline.trainings.listing import show_training

    return int(show_training(connections.database, training)["run"])


def _what_fits(connections: Connections, run_id: int) -> str:
    from lora_pipeline.trainings.deciding import waits_for

    return waits_for(connections.database, run_id)


def _show(facts: dict[str, Any], words: str, as_json: bool) -> None:
    from lora_pipeline.cli.output import show_json

    if as_json:
        show_json(facts)
    else:
        click.echo(words)
