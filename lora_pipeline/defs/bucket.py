"""The inventory of the buckets in Dagster: the asset that lists, reads and attaches, and what asks for it.

The sensor only looks; whatever it finds, a run stores. Where no bucket is set, both stay off.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from lora_pipeline.defs.assets import REGISTRY, trained_lora
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import Settings, SettingsError

if TYPE_CHECKING:
    from lora_pipeline.inventory.bucket_report import InventoryReport

# Ten minutes each for listing and for reading, two for thinking over, and then as much again.
_MAX_RUNTIME = {"dagster/max_runtime": "2700"}
_EVERY_S = 300
_LEASE_RETRY_S = 60
ASSET = "s3_lora_inventory"
SERVED_WEIGHTS = "served_weights"


class InventoryConfig(dg.Config):
    """Which lease this run works under."""

    lease: str = ""
    """The token that the sensor took; empty for a run that a schedule or a person launched."""


@dg.asset(
    name=ASSET,
    group_name=REGISTRY,
    kinds={"s3"},
    deps=[trained_lora],
    check_specs=[
        dg.AssetCheckSpec(
            SERVED_WEIGHTS, asset=ASSET, description="The weights of every served version lie where it says."
        )
    ],
)
def s3_lora_inventory(
    context: dg.AssetExecutionContext, config: InventoryConfig, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """What lies in the buckets: listed, read where it is new or changed, and attached to the version it belongs to."""
    from lora_pipeline.inventory.bucket_inventory import Progress, take_inventory
    from lora_pipeline.inventory.bucket_pass import InventoryAtWork

    progress = Progress(say=context.log.info)
    try:
        report = take_inventory(pipeline.connections, lease=config.lease or None, progress=progress)
    except InventoryAtWork as error:
        raise dg.RetryRequested(max_retries=6, seconds_to_wait=_LEASE_RETRY_S) from error
    except SettingsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    yield dg.MaterializeResult(metadata=_metadata(report), check_results=[_served_weights(report)])


inventory_bucket = dg.define_asset_job(
    "inventory_bucket",
    selection=dg.AssetSelection.assets(s3_lora_inventory),
    description="List the buckets, read what is new or changed, and attach it to the version it belongs to.",
    executor_def=dg.in_process_executor,
    tags=_MAX_RUNTIME,
)


def build_bucket_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor, on where a bucket is set."""
    on = dg.DefaultSensorStatus.RUNNING if _has_bucket(settings) else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(job=inventory_bucket, minimum_interval_seconds=_EVERY_S, default_status=on)
    def s3_lora_inventory_sensor(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
        """Looks into the buckets, a stretch of keys after the other, and asks for a run where something changed."""
        from lora_pipeline.inventory.bucket_inventory import find_work

        work = find_work(pipeline.connections, context.cursor or "")
        if work.lease is None:
            return dg.SensorResult(skip_reason=work.explanation, cursor=work.cursor)
        config = {"ops": {ASSET: {"config": {"lease": work.lease}}}}
        request = dg.RunRequest(run_key=work.lease, run_config=config)
        return dg.SensorResult(run_requests=[request], cursor=work.cursor)

    return [s3_lora_inventory_sensor]


def build_bucket_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The hourly inventory, on where a bucket is set."""
    running = dg.DefaultScheduleStatus.RUNNING
    return [
        dg.ScheduleDefinition(
            name="hourly_lora_inventory",
            job=inventory_bucket,
            cron_schedule="20 * * * *",
            execution_timezone="UTC",
            default_status=running if _has_bucket(settings) else dg.DefaultScheduleStatus.STOPPED,
            description="Takes the inventory every hour, also where the sensor saw no change: its numbers plot over time.",
        )
    ]


def _has_bucket(settings: Settings) -> bool:
    from lora_pipeline.inventory.bucket_places import configured_places

    try:
        return bool(configured_places(settings.inventory, settings.resolved_object_store))
    except SettingsError:
        # The sensor's own ticks say what is wrong with it.
        return True


def _metadata(report: "InventoryReport") -> dict[str, dg.MetadataValue]:
    counts, standings = report.counts, report.standings
    numbers = {
        "objects seen": counts.files,
        "older versions": counts.older,
        "new": counts.new,
        "changed": counts.changed,
        "overwritten": counts.overwritten,
        "deleted": counts.deleted,
        **standings,
        "attached by this run": report.attached,
        "read by this run": report.read,
        "bytes hashed": report.bytes_hashed,
        "served without weights": len(report.lost),
    }
    return {
        **{name: dg.MetadataValue.int(number) for name, number in numbers.items()},
        "places": dg.MetadataValue.table(_places(report)),
        "not attached": _table(_notable(report)),
        "could not be read": _table(_failures(report)),
        "ended early": dg.MetadataValue.text(report.ended_early or "no"),
        "next": dg.MetadataValue.text(report.next_step),
    }


def _places(report: "InventoryReport") -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "place": place.place,
                "LoRA files": place.counts.files,
                "bytes": place.counts.bytes,
                "other objects": place.counts.others,
                "listed": place.problem or ("to its end" if place.is_complete else "in part; goes on"),
            }
        )
        for place in report.places
    ]


def _notable(report: "InventoryReport") -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "object": file.address,
                "bytes": file.size,
                "standing": file.standing,
                "model": file.model or "",
                "version": file.version or "",
                "why": file.reason,
            }
        )
        for file in report.notable
    ]


def _failures(report: "InventoryReport") -> list[dg.TableRecord]:
    return [dg.TableRecord({"object": address, "why": reason}) for address, reason in report.failures]


def _served_weights(report: "InventoryReport") -> dg.AssetCheckResult:
    rows = [
        dg.TableRecord(
            {"model": lost.model, "version": lost.version, "address": lost.address, "what": lost.what}
        )
        for lost in report.lost
    ]
    return dg.AssetCheckResult(
        check_name=SERVED_WEIGHTS,
        passed=not rows,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"served without weights": _table(rows), "next": dg.MetadataValue.text(report.next_step)},
    )


def _table(rows: list[dg.TableRecord]) -> dg.MetadataValue:
    return dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("none")


BUCKET_ASSETS = [s3_lora_inventory]
BUCKET_JOBS = [inventory_bucket]
