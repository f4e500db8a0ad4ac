"""Erasing a user, and the daily retention, in Dagster. Nothing that names a person enters Dagster's storage."""

import dagster as dg

from lora_pipeline.defs.partitions import forget_model
from lora_pipeline.defs.resources import Pipeline

_MAX_RUNTIME = {"dagster/max_runtime": "1800"}
_SHOWN = 200
_ACTOR = "dagster"


class EraseConfig(dg.Config):
    """Whom to erase."""

    user: str
    """The user's id or model key. No e-mail address: a run's configuration is kept for ever."""
    apply: bool = False
    """Erase. Otherwise the run only says what would be deleted. There is no undo."""


class RetentionConfig(dg.Config):
    """Whether to delete."""

    apply: bool = True
    """Otherwise the run only says what is due."""


@dg.op
def erase_one_user(context: dg.OpExecutionContext, config: EraseConfig, pipeline: Pipeline) -> None:
    """Plan, or erase."""
    from lora_pipeline.erasure.carrying_out import carry_out
    from lora_pipeline.erasure.journal import begin_erasure, look
    from lora_pipeline.erasure.names import Erased
    from lora_pipeline.erasure.plan import NO_UNDO
    from lora_pipeline.erasure.receipts import receipt

    if "@" in config.user:
        raise dg.Failure("got an e-mail address; give the user's id or model key", allow_retries=False)
    connections = pipeline.connections
    if not config.apply:
        found = look(connections, config.user)
        if isinstance(found, Erased):
            context.log.info("this user was %s", found)
            return
        context.log.info("%s things would be deleted. %s", len(found.going), NO_UNDO)
        kinds = [item.kind.value for item in found.going]
        context.add_output_metadata({kind: kinds.count(kind) for kind in dict.fromkeys(kinds)})
        return
    erasure_id, _ = begin_erasure(connections, config.user, _ACTOR)
    carried = carry_out(
        connections, erasure_id, forget_partition=lambda key: forgotten(context.instance, key)
    )
    with connections.database.read() as session:
        shown = receipt(session, erasure_id)
    context.add_output_metadata(
        {
            "receipt": erasure_id,
            "state": shown["state"],
            "deleted": shown["deleted"],
            "stays": len(shown["stays"]),
            "waiting": [f"{what}: {why}" for what, why in carried.waiting],
        }
    )
    if not carried.completed:
        context.log.warning("not everything is deleted yet: the retention schedule goes on with it")


@dg.op
def delete_what_is_due(context: dg.OpExecutionContext, config: RetentionConfig, pipeline: Pipeline) -> None:
    """Delete photographs and bookkeeping whose time is over, and carry on erasures that were left half done."""
    from lora_pipeline.erasure.retention import run_retention

    report = run_retention(
        pipeline.connections,
        apply=config.apply,
        forget_partition=lambda key: forgotten(context.instance, key),
        say=context.log.info,
    )
    due = [
        dg.TableRecord({"models": ", ".join(one.models), "photographs": one.photographs, "bytes": one.bytes})
        for one in report.due[:_SHOWN]
    ]
    context.add_output_metadata(
        {
            "applied": report.applied,
            "due": dg.MetadataValue.table(due) if due else "nothing",
            "photographs deleted": report.photographs,
            "erasures completed": sum(one.completed for one in report.erasures),
            "erasures waiting": sum(not one.completed for one in report.erasures),
            "left by an intake in flight": report.leftovers,
            **{f"old rows of {table}": count for table, count in report.bookkeeping.items()},
        }
    )
    for failure in report.failures:
        context.log.error(failure)
    if report.failures:
        raise dg.Failure(
            f"{len(report.failures)} deletions failed; the next run tries again", allow_retries=False
        )


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def erase_user() -> None:
    """Erase one user, with a receipt; without `apply` only plan."""
    erase_one_user()


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def delete_due() -> None:
    """Delete what is due, and complete erasures."""
    delete_what_is_due()


retention = dg.ScheduleDefinition(
    name="retention",
    job=delete_due,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: photographs that are due (LORA_KEEP_PHOTOGRAPHS), and erasures that were left half done.",
)


def forgotten(instance: dg.DagsterInstance, key: str) -> bool:
    """Take a model's partition out of this Dagster."""
    forget_model(instance, key)
    return True


ERASURE_JOBS = [erase_user, delete_due]
ERASURE_SCHEDULES = [retention]
