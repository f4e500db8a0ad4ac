"""What a succeeded training has to name before it can be finalised: its version and where its weights are.

One rule, as a question about a row and as a condition of a query. A provider that keeps no versions names none:
there the weights are everything.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_

from lora_pipeline.database.tables import TrainingRun

_KEEP_NO_VERSIONS = frozenset({"runpod"})


def outputs_are_known(provider: str, output_version: str | None, weights_url: str | None) -> bool:
    """Whether the provider has named everything that finalisation needs."""
    return bool(weights_url and (output_version or provider in _KEEP_NO_VERSIONS))


def outputs_known() -> ColumnElement[bool]:
    """The same of rows of `training_runs`."""
    return and_(
        TrainingRun.output_artifact_url.is_not(None),
        or_(TrainingRun.output_version.is_not(None), TrainingRun.provider.in_(_KEEP_NO_VERSIONS)),
    )
