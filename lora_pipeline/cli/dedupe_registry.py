"""`dedupe` without a folder: versions of the registry that are one LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.inventory.registry_merging import RegistryResult
    from lora_pipeline.inventory.registry_plan import RegistryPlan


def dedupe_registry(plan_id: str | None, *, applied: bool, renames: Sequence[str], as_json: bool) -> int:
    """Plan, and apply where asked; the exit code."""
    from dataclasses import asdict

    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.exits import Exit, most_serious
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.registry_merging import apply_registry_plan
    from lora_pipeline.inventory.registry_plan import load_plan, plan_registry, store_plan
    from lora_pipeline.inventory.renames import configured_rules

    connections = connect()
    database, rules = connections.database, configured_rules(connections.settings, renames)
    if plan_id is not None:
        plan = load_plan(database, plan_id)
    else:
        plan = plan_registry(database, rules, connections.now())
        plan = store_plan(database, plan, connections.now())
    doubtful = Exit.DRIFT if plan.reviews else Exit.FINE
    if not applied or not plan.groups:
        if as_json:
            show_json(asdict(plan))
        else:
            _show_plan(plan)
        return Exit.DRIFT if plan.groups and plan.state != "applied" else doubtful
    result = apply_registry_plan(database, plan, connections.now(), actor())
    _show_result(result, as_json, "merged")
    return most_serious([doubtful, _exit_of(result)])


def undo_in_registry(plan_id: str, *, as_json: bool) -> int:
    """Undo a plan of the registry; the exit code."""
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.inventory.registry_merging import undo_registry_plan
    from lora_pipeline.inventory.registry_plan import load_plan

    connections = connect()
    plan = load_plan(connections.database, plan_id)
    result = undo_registry_plan(connections.database, plan, connections.now(), actor())
    _show_result(result, as_json, "taken apart")
    return _exit_of(result)


def _exit_of(result: RegistryResult) -> Exit:
    from lora_pipeline.cli.exits import Exit

    if not result.refused:
        return Exit.FINE
    return Exit.ERROR if result.changed or result.already else Exit.REFUSED


def _show_plan(plan: RegistryPlan) -> None:
    from lora_pipeline.cli.dedupe import show_next, too_many_words
    from lora_pipeline.cli.output import counted, show_table

    read = (
        f"{counted(plan.versions_read, 'version')} read"
        if plan.versions_read
        else f"plan {plan.id} is {plan.state}"
    )
    click.echo(f"{read}: {too_many_words(len(plan.groups), counted(plan.removed, 'version'))}")
    rows = [
        {
            "model": group.model_key,
            "stays": group.names[str(group.survivor)],
            "merged_into_it": ", ".join(group.names[str(loser)] for loser in group.losers),
            "taken_over": "; ".join(
                f"{name} = {choice['value']} ({group.names[str(choice['from'])]}: {choice['because']})"
                for name, choice in group.fields.items()
                if choice["from"] != group.survivor
            ),
        }
        for group in plan.groups
    ]
    if rows:
        show_table(rows, ["model", "stays", "merged_into_it", "taken_over"])
    if plan.reviews:
        show_table(
            [{"versions": ", ".join(item["versions"]), "reason": item["reason"]} for item in plan.reviews],
            ["versions", "reason"],
            title=f"{len(plan.reviews)} for a person to decide, left as they are:",
        )
    if rows:
        show_next(plan.id, plan.state)


def _show_result(result: RegistryResult, as_json: bool, word: str) -> None:
    from dataclasses import asdict

    from lora_pipeline.cli.output import counted, show_json, show_table

    if as_json:
        show_json(asdict(result))
        return
    already = f", {result.already} already" if result.already else ""
    click.echo(f"{counted(result.changed, 'LoRA')} {word}{already}; plan {result.plan_id} is {result.state}")
    if result.refused:
        rows = [{"version": name, "reason": reason} for name, reason in result.refused]
        show_table(rows, ["version", "reason"], title=f"{len(rows)} refused, unchanged:")
    if result.state == "applied":
        click.echo(f"Undo: lora-pipeline dedupe undo {result.plan_id}")
