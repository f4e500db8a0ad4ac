"""`dedupe`: one LoRA, one entry; in the registry, or in a folder of training_versions.json files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.cli.exits import Exit
    from lora_pipeline.inventory.plan_store import PlanStore
    from lora_pipeline.inventory.tree_deduplication import TreeResult
    from lora_pipeline.inventory.tree_plan import TreePlan

_ROWS = 60

rename_option = click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="BUCKET/OLD=NEW",
    help="A folder of a bucket that was renamed: addresses under OLD mean NEW.",
)


@click.group(invoke_without_command=True)
@click.option(
    "--base-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Files below this folder instead of the registry.",
)
@click.option("--apply", "applied", is_flag=True, help="Carry the plan out. Without it nothing is changed.")
@click.option("--plan", "plan_id", metavar="ID", help="This plan, as it was reviewed.")
@rename_option
@json_option
@click.pass_context
def dedupe(
    ctx: click.Context,
    base_dir: Path | None,
    applied: bool,
    plan_id: str | None,
    renames: tuple[str, ...],
    as_json: bool,
) -> int:
    """Find entries that are one LoRA, and make them one with --apply.

    What unifies: the same provider job, the same content, the same stored object however its address is
    spelled. Never a name. Every field of the survivor says where it came from and why; `dedupe undo ID` brings
    everything back. Exit codes: 3 duplicates found, 1 something was skipped, 5 refused.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    store = _store()
    if base_dir is not None or (plan_id is not None and store.has(plan_id)):
        return _dedupe_tree(store, base_dir, plan_id, applied, renames, as_json)
    from lora_pipeline.cli.dedupe_registry import dedupe_registry

    return dedupe_registry(plan_id, applied=applied, renames=renames, as_json=as_json)


@dedupe.command("undo")
@click.argument("plan_id", metavar="ID")
@json_option
def undo_command(plan_id: str, as_json: bool) -> int:
    """Bring back what plan ID changed, byte for byte."""
    from lora_pipeline.inventory.tree_deduplication import undo_plan

    store = _store()
    if not store.has(plan_id):
        from lora_pipeline.cli.dedupe_registry import undo_in_registry

        return undo_in_registry(plan_id, as_json=as_json)
    result = undo_plan(store, plan_id, _now)
    _show_result(result, as_json, "restored")
    return _exit_of(result)


def _dedupe_tree(
    store: PlanStore,
    base_dir: Path | None,
    plan_id: str | None,
    applied: bool,
    renames: tuple[str, ...],
    as_json: bool,
) -> int:
    from lora_pipeline.cli.exits import Exit, most_serious
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.inventory.plan_store import plan_facts
    from lora_pipeline.inventory.renames import configured_rules
    from lora_pipeline.inventory.tree_deduplication import apply_plan, plan_tree
    from lora_pipeline.settings import Settings

    if plan_id is not None:
        plan = store.load(plan_id)
        if base_dir is not None and base_dir.resolve() != Path(plan.base):
            raise click.UsageError(f"plan {plan_id} is of {plan.base}, not of {base_dir}.")
    else:
        assert base_dir is not None
        plan = store.save(plan_tree(base_dir, configured_rules(Settings(), renames)), _now())
    skipped = Exit.ERROR if plan.skipped else Exit.FINE
    if not applied:
        if as_json:
            show_json({**plan_facts(plan), "state": store.state(plan.id), "file": str(store.file(plan.id))})
        else:
            _show_plan(plan, store)
        left = plan.files and store.state(plan.id) != "applied"
        found = Exit.DRIFT if left or plan.reviews else Exit.FINE
        return most_serious([skipped, found])
    result = apply_plan(store, plan, _now)
    _show_result(result, as_json, "changed", plan)
    return most_serious([skipped, _exit_of(result), Exit.DRIFT if plan.reviews else Exit.FINE])


def _exit_of(result: TreeResult) -> Exit:
    from lora_pipeline.cli.exits import Exit

    if not result.refused:
        return Exit.FINE
    return Exit.ERROR if result.changed or result.already else Exit.REFUSED


def _show_plan(plan: TreePlan, store: PlanStore) -> None:
    from lora_pipeline.cli.output import counted, show_table

    files, entries = counted(plan.files_read, "file"), counted(plan.entries_read, "entry", "entries")
    too_many = too_many_words(plan.groups, counted(plan.removed, "entry", "entries"))
    click.echo(f"{files} with {entries} read under {plan.base}: {too_many}")
    rows = [row for file in plan.files for row in _group_rows(file.path, file.groups)]
    if rows:
        show_table(rows[:_ROWS], ["file", "stays", "merged_into_it", "taken_over", "why_it_stays"])
    if len(rows) > _ROWS:
        click.echo(f"… and {len(rows) - _ROWS} more in the plan's file")
    _show_notes(plan)
    if rows:
        click.echo(f"Every field with its source and reason: {store.file(plan.id)}")
        show_next(plan.id, store.state(plan.id))


def show_next(plan_id: str, state: str) -> None:
    """What can be done with a plan in this state."""
    if state == "planned":
        click.echo(f"Nothing was changed. Apply this plan: lora-pipeline dedupe --apply --plan {plan_id}")
    elif state == "undone":
        click.echo("This plan was applied and undone. Plan again to apply it")
    else:
        click.echo(f"This plan is {state}. Undo: lora-pipeline dedupe undo {plan_id}")


def too_many_words(loras: int, entries: str) -> str:
    """How many LoRAs are there more than once, and how many `entries` (counted) could go."""
    if not loras:
        return "no duplicates"
    return f"{loras} {'LoRA has' if loras == 1 else 'LoRAs have'} {entries} too many"


def _group_rows(path: str, groups: Any) -> list[dict[str, str]]:
    rows = []
    for group in groups:
        names = dict(zip(group.members, group.ids, strict=True))
        taken = [
            f"{choice.field} = {value} ({names[choice.source]}: {choice.reason})"
            for choice, value in zip(group.fields, group.values, strict=True)
            if choice.source != group.base
        ]
        own = Counter(choice.reason for choice in group.fields if choice.source == group.base)
        rows.append(
            {
                "file": path,
                "stays": group.survivor_id,
                "merged_into_it": ", ".join(group.merged_ids) or "an equal entry",
                "taken_over": "; ".join(taken),
                "why_it_stays": own.most_common(1)[0][0],
            }
        )
    return rows


def _show_notes(plan: TreePlan) -> None:
    from lora_pipeline.cli.output import show_table

    if plan.reviews:
        show_table(
            [
                {"file": ", ".join(item.paths), "entries": ", ".join(item.ids), "reason": item.reason}
                for item in plan.reviews
            ],
            ["file", "entries", "reason"],
            title=f"{len(plan.reviews)} for a person to decide, left as they are:",
        )
    if plan.skipped:
        show_table(
            [{"file": item.path, "reason": item.reason} for item in plan.skipped],
            ["file", "reason"],
            title=f"{len(plan.skipped)} skipped, untouched:",
        )


def _show_result(result: TreeResult, as_json: bool, word: str, plan: TreePlan | None = None) -> None:
    from dataclasses import asdict

    from lora_pipeline.cli.output import counted, show_json, show_table

    if as_json:
        about = (
            {}
            if plan is None
            else {
                "entries_removed": _done(plan, result).removed,
                "skipped": plan.skipped,
                "review": plan.reviews,
            }
        )
        show_json({**asdict(result), **{key: _plain(value) for key, value in about.items()}})
        return
    already = (
        f", {result.already} {'was' if result.already == 1 else 'were'} already" if result.already else ""
    )
    done = "" if plan is None else f": {_merged_words(plan, _done(plan, result))}"
    click.echo(
        f"{counted(result.changed, 'file')} {word}{already}; plan {result.plan_id} is {result.state}{done}"
    )
    if result.refused:
        rows = [{"file": item.path, "reason": item.reason} for item in result.refused]
        show_table(rows, ["file", "reason"], title=f"{len(rows)} refused, untouched:")
    if plan is not None:
        _show_notes(plan)
    if result.state == "applied" and (result.changed or result.already):
        click.echo(f"Undo: lora-pipeline dedupe undo {result.plan_id}")


def _done(plan: TreePlan, result: TreeResult) -> TreePlan:
    """The plan without the files that were refused."""
    from dataclasses import replace

    refused = {item.path for item in result.refused}
    return replace(plan, files=tuple(file for file in plan.files if file.path not in refused))


def _merged_words(plan: TreePlan, done: TreePlan) -> str:
    from lora_pipeline.cli.output import counted

    if not done.groups:
        return "nothing was merged" if plan.groups else "there were no duplicates"
    return f"{counted(done.removed, 'entry', 'entries')} merged into {counted(done.groups, 'LoRA')}"


def _plain(value: Any) -> Any:
    from dataclasses import asdict

    return value if isinstance(value, int) else [asdict(item) for item in value]


def _store() -> PlanStore:
    from lora_pipeline.inventory.plan_store import PlanStore
    from lora_pipeline.settings import Settings

    settings = Settings()
    return PlanStore(settings.home, observing=settings.observe)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)
