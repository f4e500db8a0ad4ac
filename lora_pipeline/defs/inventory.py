"""Duplicates in Dagster: the weekly report, its check, and the job that merges by a reviewed plan.

Nothing here merges by itself: the schedule only plans, and the job applies the plan whose id a person gives.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from lora_pipeline.defs.assets import REGISTRY, version_registry
from lora_pipeline.defs.resources import Pipeline

if TYPE_CHECKING:
    from lora_pipeline.inventory.registry_plan import RegistryPlan

_MAX_RUNTIME = {"dagster/max_runtime": "1800"}
_SHOWN = 200
_ACTOR = "dagster"


class DeduplicateConfig(dg.Config):
    """Which plan to carry out."""

    plan: str = ""
    """The id of a reviewed plan of the registry. Empty: only plan."""


@dg.asset(
    group_name=REGISTRY,
    kinds={"table"},
    deps=[version_registry],
    check_specs=[
        dg.AssetCheckSpec("duplicates", asset="duplicate_report", description="One LoRA, one version.")
    ],
)
def duplicate_report(pipeline: Pipeline) -> Iterator[dg.MaterializeResult[None]]:
    """Versions that are one LoRA, as a plan for review, and those that only a person can decide over."""
    plan = _planned(pipeline)
    found = len(plan.groups) + len(plan.reviews)
    check = dg.AssetCheckResult(
        check_name="duplicates",
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"apply with": dg.MetadataValue.md(_next_command(plan))},
    )
    yield dg.MaterializeResult(metadata=_metadata(plan), check_results=[check])


@dg.op
def deduplicate_registry(
    context: dg.OpExecutionContext, config: DeduplicateConfig, pipeline: Pipeline
) -> None:
    """Plan, or merge what the given plan says."""
    from lora_pipeline.inventory.registry_merging import apply_registry_plan
    from lora_pipeline.inventory.registry_plan import load_plan

    if not config.plan:
        plan = _planned(pipeline)
        context.log.info(
            "%s LoRAs have %s versions too many. %s", len(plan.groups), plan.removed, _next_command(plan)
        )
        context.add_output_metadata(_metadata(plan))
        return
    connections = pipeline.connections
    reviewed = load_plan(connections.database, config.plan)
    result = apply_registry_plan(connections.database, reviewed, connections.now(), _ACTOR)
    for name, reason in result.refused:
        context.log.error("%s was not merged: %s", name, reason)
    context.log.info(
        "%s merged, %s were already, %s refused", result.changed, result.already, len(result.refused)
    )
    if result.refused and not result.changed + result.already:
        raise dg.Failure("nothing could be merged; plan again", allow_retries=False)


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def deduplicate() -> None:
    """Merge versions that are one LoRA, by the plan whose id is given; without one only plan."""
    deduplicate_registry()


report_duplicates = dg.define_asset_job(
    "report_duplicates",
    selection=dg.AssetSelection.assets(duplicate_report),
    description="Look for versions that are one LoRA and keep the plan for review; merges nothing.",
    executor_def=dg.in_process_executor,
    tags=_MAX_RUNTIME,
)

weekly_deduplication_plan = dg.ScheduleDefinition(
    name="weekly_deduplication_plan",
    job=report_duplicates,
    cron_schedule="0 4 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Plans every Monday. Applying is a person's.",
)


def _planned(pipeline: Pipeline) -> "RegistryPlan":
    from lora_pipeline.inventory.registry_plan import plan_registry, store_plan
    from lora_pipeline.inventory.renames import configured_rules

    connections = pipeline.connections
    rules = configured_rules(connections.settings)
    plan = plan_registry(connections.database, rules, connections.now())
    return store_plan(connections.database, plan, connections.now())


def _metadata(plan: "RegistryPlan") -> dict[str, dg.MetadataValue]:
    groups = [
        dg.TableRecord(
            {
                "model": group.model_key,
                "stays": group.names[str(group.survivor)],
                "merged into it": ", ".join(group.names[str(loser)] for loser in group.losers),
            }
        )
        for group in plan.groups[:_SHOWN]
    ]
    reviews = [
        dg.TableRecord({"versions": ", ".join(item["versions"]), "reason": item["reason"]})
        for item in plan.reviews[:_SHOWN]
    ]
    none = dg.MetadataValue.text("none")
    return {
        "versions": dg.MetadataValue.int(plan.versions_read),
        "duplicates": dg.MetadataValue.int(plan.removed),
        "for a person": dg.MetadataValue.int(len(plan.reviews)),
        "what would be merged": dg.MetadataValue.table(groups) if groups else none,
        "what a person decides": dg.MetadataValue.table(reviews) if reviews else none,
        "next": dg.MetadataValue.md(_next_command(plan)),
    }


def _next_command(plan: "RegistryPlan") -> str:
    if not plan.groups:
        return "nothing to merge"
    return f"`lora-pipeline dedupe --plan {plan.id}` shows it, `lora-pipeline dedupe --apply --plan {plan.id}` merges"


INVENTORY_ASSETS = [duplicate_report]
INVENTORY_JOBS = [deduplicate, report_duplicates]
INVENTORY_SCHEDULES = [weekly_deduplication_plan]
