"""Versions in Dagster: what the provider has, who drifts, the syncs that repair it, and the nightly schedules."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from lora_pipeline.defs.assets import REGISTRY, version_registry
from lora_pipeline.defs.resources import Pipeline

# A deep sync of ten thousand models takes about four minutes; what throttles may double that.
_MAX_RUNTIME = {"dagster/max_runtime": "1800"}
_FRESH = timedelta(minutes=15)
_LEASE_RETRY_S = 60
_ACTOR = "dagster"


class BulkSyncConfig(dg.Config):
    """What a bulk sync does."""

    plan_only: bool = False
    """Say what would change, and change nothing."""
    filter: str = "*"
    """Only model keys or user ids like this (`user-*`)."""
    deep: bool = False
    """Ask for every model by itself: surest, a request each, and counts versions."""
    include_tests: bool = False


class SyncModelConfig(dg.Config):
    """Which model to sync."""

    model: str
    """Its key, its user's id or e-mail, or its name at the provider."""


@dg.asset(group_name=REGISTRY, kinds={"replicate"})
def provider_versions(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult[None]:
    """What the provider has: the latest version of every user's active model, from a request for a hundred models."""
    from lora_pipeline.defs.version_metadata import provider_metadata
    from lora_pipeline.versions.sync_status import sync_status

    report = sync_status(pipeline.connections, say=context.log.info)
    return dg.MaterializeResult(metadata=provider_metadata(report))


@dg.asset(
    group_name=REGISTRY,
    kinds={"table"},
    deps=[provider_versions, version_registry],
    check_specs=[
        dg.AssetCheckSpec("drift", asset="sync_report", description="Everybody serves what the provider has.")
    ],
)
def sync_report(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """Who serves the latest version, who needs a sync, and about whom nobody can tell."""
    from lora_pipeline.defs.version_metadata import drift_check, report_metadata
    from lora_pipeline.versions.sync_status import recent_status

    report = recent_status(pipeline.connections, _FRESH, say=context.log.info)
    yield dg.MaterializeResult(metadata=report_metadata(report), check_results=[drift_check(report)])


@dg.asset_check(asset=version_registry, description="Every stored version is spelled canonically.")
def version_format(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Malformed and oddly spelled versions, with what to do."""
    from lora_pipeline.defs.version_metadata import registry_check
    from lora_pipeline.versions import registry_checks

    return registry_check(registry_checks.version_format(pipeline.connections), dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=version_registry, description="What a model's row serves is its one open activation.")
def one_active_version(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Rows that were changed past the history."""
    from lora_pipeline.defs.version_metadata import registry_check
    from lora_pipeline.versions import registry_checks

    report = registry_checks.one_active_version(pipeline.connections.database)
    return registry_check(report, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(asset=version_registry, description="The weights of every served version are known.")
def weights_present(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Served versions without weights."""
    from lora_pipeline.defs.version_metadata import registry_check
    from lora_pipeline.versions import registry_checks

    report = registry_checks.weights_present(pipeline.connections.database)
    return registry_check(report, dg.AssetCheckSeverity.ERROR)


@dg.op
def sync_one_model(context: dg.OpExecutionContext, config: SyncModelConfig, pipeline: Pipeline) -> None:
    """Hold one model against the provider, and serve its latest version unless that is a person's choice not to."""
    from lora_pipeline.versions.sync import sync_model as sync_one
    from lora_pipeline.versions.sync_decisions import SyncOutcome

    result = sync_one(pipeline.connections, config.model, actor=_ACTOR)
    context.log.info("%s: %s: %s", result.model_key, result.outcome, result.detail)
    context.add_output_metadata({"sync": dg.MetadataValue.json(result.as_json())})
    if result.outcome in (SyncOutcome.FAILED, SyncOutcome.CHANGED):
        raise dg.Failure(f"{result.model_key} was not synced: {result.detail}", allow_retries=False)


@dg.op
def sync_all_models(context: dg.OpExecutionContext, config: BulkSyncConfig, pipeline: Pipeline) -> None:
    """Hold every user's active model against the provider; one model's trouble is its own."""
    from lora_pipeline.defs.version_metadata import bulk_metadata
    from lora_pipeline.versions.bulk_sync import AnotherAtWork, BulkOptions
    from lora_pipeline.versions.bulk_sync import bulk_sync as sync_many

    options = BulkOptions(not config.plan_only, config.deep, config.filter, config.include_tests)
    try:
        report = sync_many(pipeline.connections, options, actor=_ACTOR, say=context.log.info)
    except AnotherAtWork as error:
        raise dg.RetryRequested(max_retries=6, seconds_to_wait=_LEASE_RETRY_S) from error
    context.log.info(report.summary)
    for result in report.failures:
        context.log.error("%s: %s: %s", result.model_key, result.outcome, result.detail)
    context.add_output_metadata(bulk_metadata(report))
    if report.models and len(report.failures) == report.models:
        raise dg.Failure(f"no model could be synced; the first: {report.failures[0].detail}")


@dg.op
def verify_synced_versions(context: dg.OpExecutionContext, pipeline: Pipeline) -> None:
    """Download, check and archive the weights of versions that a sync brought in."""
    from lora_pipeline.versions.verifying import verify_versions as verify_many

    report = verify_many(pipeline.connections, say=context.log.info)
    for failure in report.failures:
        context.log.error(str(failure))
    context.log.info(report.summary)


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def verify_versions() -> None:
    """Verify the weights of versions that a sync brought in, the newest first."""
    verify_synced_versions()


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def sync_model() -> None:
    """Sync one model now ("Sync Model Version")."""
    sync_one_model()


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def bulk_sync() -> None:
    """Sync every user's active model: identify outdated versions, and repair them. `plan_only` changes nothing."""
    sync_all_models()


_CHECKS = [version_format, one_active_version, weights_present]

report_drift = dg.define_asset_job(
    "report_drift",
    selection=dg.AssetSelection.assets(provider_versions, sync_report) | dg.AssetSelection.checks(*_CHECKS),
    description="Look at the provider and say who drifts; changes nothing.",
    executor_def=dg.in_process_executor,
    tags=_MAX_RUNTIME,
)


@dg.schedule(
    job=bulk_sync,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def nightly_bulk_sync(pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
    """Repairs drift every night; while observing it only says what it would repair."""
    return _no_provider(pipeline) or dg.RunRequest()


@dg.schedule(
    job=report_drift,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def nightly_drift_report(pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
    """Reports every night, after the sync: the numbers that plot over time."""
    return _no_provider(pipeline) or dg.RunRequest()


@dg.schedule(
    job=verify_versions,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def verification_of_synced_versions(pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
    """Asks for a run only where a sync brought in something that is not verified yet."""
    from lora_pipeline.versions.verifying import unverified_count

    waiting = unverified_count(pipeline.connections)
    if not waiting:
        return dg.SkipReason("no version waits to be verified")
    return _no_provider(pipeline) or dg.RunRequest()


def _no_provider(pipeline: Pipeline) -> dg.SkipReason | None:
    """Why there is nobody to ask, where neither a token nor a simulator is there."""
    from lora_pipeline.settings import SettingsError

    try:
        pipeline.connections.settings.replicate_connection()
    except SettingsError as error:
        return dg.SkipReason(str(error))
    return None


VERSION_ASSETS = [provider_versions, sync_report]
VERSION_CHECKS = _CHECKS
VERSION_JOBS: list[Any] = [sync_model, bulk_sync, report_drift, verify_versions]
VERSION_SCHEDULES = [nightly_bulk_sync, nightly_drift_report, verification_of_synced_versions]
