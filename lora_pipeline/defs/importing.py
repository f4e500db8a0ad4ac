"""Loading an older system in Dagster, beside the command line. Counts alone enter Dagster's storage: folders and rows name people."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from lora_pipeline.defs.resources import Pipeline

_MAX_RUNTIME = {"dagster/max_runtime": "7200"}


class ImportConfig(dg.Config):
    """Which older system. One of the two is given."""

    training_versions: str = ""
    """A folder of training_versions.json files, as the code server sees it."""
    sselfie: bool = False
    """The selfie product's tables, in the database that LORA_SSELFIE_URL names: a URL holds a password, and a run's
    configuration is kept for ever."""
    apply: bool = False
    """Load. Otherwise the run only says what would be loaded, and which defects there are."""


class _Found(NamedTuple):
    counts: Mapping[str, int]
    defects: Counter[str]
    is_incomplete: bool


@dg.op
def import_older_system(context: dg.OpExecutionContext, config: ImportConfig, pipeline: Pipeline) -> None:
    """Plan, or load."""
    if bool(config.training_versions) == config.sselfie:
        raise dg.Failure("give either training_versions or sselfie", allow_retries=False)
    if config.training_versions:
        found = _from_files(pipeline, Path(config.training_versions), apply=config.apply)
        command = "lora-pipeline import training-versions DIR"
    else:
        found = _from_tables(pipeline, apply=config.apply)
        command = "lora-pipeline import sselfie URL"
    metadata: dict[str, Any] = {
        "applied": config.apply,
        **found.counts,
        **{f"defect: {kind}": count for kind, count in found.defects.most_common()},
        "every defect": dg.MetadataValue.md(f"`{command}`"),
    }
    if found.is_incomplete:
        # What could be loaded is loaded; like the command's exit code, the run's end tells that not all of it was.
        raise dg.Failure(f"not everything could be read; see what: {command}", metadata, allow_retries=False)
    context.add_output_metadata(metadata)


@dg.job(tags=_MAX_RUNTIME, executor_def=dg.in_process_executor)
def import_legacy() -> None:
    """Load what an older system knows, which is only read; without `apply` only plan. Twice without effect."""
    import_older_system()


def _from_files(pipeline: Pipeline, folder: Path, *, apply: bool) -> _Found:
    from lora_pipeline.inventory.legacy_import import import_tree
    from lora_pipeline.inventory.renames import configured_rules

    if not folder.is_dir():
        raise dg.Failure(f"the code server sees no folder {folder}", allow_retries=False)
    connections = pipeline.connections
    rules = configured_rules(connections.settings)
    report = import_tree(connections.database, folder, rules, connections.now(), apply=apply)
    counts = {
        "files": report.files,
        "files skipped": len(report.skipped),
        "entries": report.entries,
        "duplicates": report.duplicates,
        "models": report.models_new,
        "versions": report.versions_new,
        "trainings": report.runs_new,
        "known already": report.versions_known + report.runs_known,
        "left out": report.left_out,
    }
    return _Found(counts, Counter(defect.kind for _, defect in report.defects), report.incomplete)


def _from_tables(pipeline: Pipeline, *, apply: bool) -> _Found:
    from lora_pipeline.inventory.sselfie_import import import_selfie
    from lora_pipeline.inventory.sselfie_tables import read_tables

    connections = pipeline.connections
    url = connections.settings.sselfie_url
    if url is None:
        raise dg.Failure(
            "LORA_SSELFIE_URL is not set where the code server runs; expected postgresql://… or sqlite:///…",
            allow_retries=False,
        )
    old = read_tables(url.get_secret_value())
    report = import_selfie(connections.database, old, connections.now(), apply=apply)
    counts = {
        **{f"rows of {name}": count for name, count in report.rows.items()},
        "users": report.users_new,
        "models": report.models_new,
        "versions": report.versions_new,
        "trainings": report.runs_new,
        "known already": report.versions_known + report.runs_known,
        "still training": report.waiting,
        "left out": report.left_out,
        "for a person": len(report.untrusted),
    }
    return _Found(counts, Counter(defect.kind for defect in report.defects), report.left_out > 0)


IMPORT_JOBS = [import_legacy]
