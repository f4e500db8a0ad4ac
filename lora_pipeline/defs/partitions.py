"""One partition a model, and keeping Dagster's keys in step with the database."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

MODELS = "models"
models = dg.DynamicPartitionsDefinition(name=MODELS)

# More than 32,767 keys in one call fail on PostgreSQL.
_CHUNK = 10_000


def add_models(instance: dg.DagsterInstance, keys: Iterable[str]) -> None:
    """Make every key a partition; those that are one already are left alone."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), _CHUNK):
        instance.add_dynamic_partitions(MODELS, wanted[start : start + _CHUNK])


def forget_model(instance: dg.DagsterInstance, key: str) -> None:
    """Take a partition out; one that is not there is fine. Events that happened keep its opaque key."""
    if instance.has_dynamic_partition(MODELS, key):
        instance.delete_dynamic_partition(MODELS, key)
