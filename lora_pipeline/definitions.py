"""Where Dagster enters: the definitions, assembled by `build_defs`, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lora_pipeline.defs.alerts import build_alert_sensors
from lora_pipeline.defs.assets import ASSETS
from lora_pipeline.defs.bucket import (
    BUCKET_ASSETS,
    BUCKET_JOBS,
    build_bucket_schedules,
    build_bucket_sensors,
)
from lora_pipeline.defs.callbacks import build_callback_sensors
from lora_pipeline.defs.checks import CHECK_SENSORS, CHECKS
from lora_pipeline.defs.erasure import ERASURE_JOBS, ERASURE_SCHEDULES
from lora_pipeline.defs.importing import IMPORT_JOBS
from lora_pipeline.defs.inventory import INVENTORY_ASSETS, INVENTORY_JOBS, INVENTORY_SCHEDULES
from lora_pipeline.defs.jobs import JOBS
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.defs.sensors import build_sensors
from lora_pipeline.defs.versions import VERSION_ASSETS, VERSION_CHECKS, VERSION_JOBS, VERSION_SCHEDULES
from lora_pipeline.settings import Settings


def build_defs(
    resources: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Every definition of the project, for production, tests and the command line alike.

    `resources` replaces resources by name (`pipeline`); `settings` gives the sensors' intervals and is read
    from the environment where it is not given.
    """
    settings = settings or Settings()
    jobs: list[Any] = [*JOBS, *VERSION_JOBS, *INVENTORY_JOBS, *BUCKET_JOBS, *IMPORT_JOBS, *ERASURE_JOBS]
    return dg.Definitions(
        assets=[*ASSETS, *VERSION_ASSETS, *INVENTORY_ASSETS, *BUCKET_ASSETS],
        asset_checks=[*CHECKS, *VERSION_CHECKS],
        jobs=jobs,
        schedules=[
            *VERSION_SCHEDULES,
            *INVENTORY_SCHEDULES,
            *ERASURE_SCHEDULES,
            *build_bucket_schedules(settings),
        ],
        sensors=[
            *build_sensors(settings),
            *build_callback_sensors(settings),
            *build_alert_sensors(settings),
            *build_bucket_sensors(settings),
            *CHECK_SENSORS,
        ],
        resources={"pipeline": Pipeline(), **(resources or {})},
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()
