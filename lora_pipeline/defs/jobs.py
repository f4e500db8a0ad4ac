"""Batch jobs: one in-process run drains a backlog, whatever its length.

Every job carries a maximum runtime, because a run whose process was killed together with its code server
would otherwise be shown as started for ever.
"""

import dagster as dg

from lora_pipeline.defs.resources import Pipeline

# About twice what a batch allows itself.
_MAX_RUNTIME = {"dagster/max_runtime": "1800"}


class Batch(dg.Config):
    """Which lease this run works under."""

    lease: str = ""
    """The token that the sensor took; empty for a run that a person launched, which takes its own."""


@dg.op
def start_ready_trainings(context: dg.OpExecutionContext, config: Batch, pipeline: Pipeline) -> None:
    """Take in what arrived, freeze what is ready, and submit what is packed."""
    from lora_pipeline.trainings.start_batch import start_ready

    report = start_ready(pipeline.connections, lease=config.lease or None, say=context.log.info)
    for failure in report.failures:
        context.log.error(str(failure))
    context.log.info(report.summary)


@dg.op
def finalise_succeeded_trainings(context: dg.OpExecutionContext, config: Batch, pipeline: Pipeline) -> None:
    """Verify, archive, register and serve every version whose training has succeeded."""
    from lora_pipeline.trainings.finishing import finalise_succeeded

    report = finalise_succeeded(pipeline.connections, lease=config.lease or None, say=context.log.info)
    for failure in report.failures:
        context.log.error(str(failure))
    context.log.info(report.summary)


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def start_trainings() -> None:
    """Start every training that is ready, as one batch."""
    start_ready_trainings()


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def finalise_trainings() -> None:
    """Finish every training that has succeeded, as one batch."""
    finalise_succeeded_trainings()


train_model = dg.define_asset_job(
    "train_model",
    selection=["uploaded_image_set", "training_zip", "replicate_training", "runpod_training", "trained_lora"],
    description="Train one model now: checks its photographs, packs them, submits, and ends.",
    executor_def=dg.in_process_executor,
    tags=_MAX_RUNTIME,
)

JOBS = [start_trainings, finalise_trainings, train_model]
