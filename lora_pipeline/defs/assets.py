"""The pipeline as assets, in the order in which data flows. One partition is one model.

A run started here by a person submits and ends: it never waits for a provider. What is true stands in the
database; each asset reports it.
"""

from collections.abc import Iterator

import dagster as dg

from lora_pipeline.defs.events import materialise_result
from lora_pipeline.defs.partitions import models
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import REPLICATE, RUNPOD, ProviderName

INTAKE, TRAINING, REGISTRY = "intake", "training", "registry"


@dg.asset(partitions_def=models, group_name=INTAKE, kinds={"image"}, code_version="1")
def uploaded_image_set(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult[None]:
    """The checked and frozen photographs of a model: originals by hash, a verdict for each, a contact sheet."""
    from lora_pipeline.trainings.starting import prepare_image_set

    connections = pipeline.connections
    prepared = prepare_image_set(connections, context.partition_key)
    return materialise_result(prepared.event, connections.settings.resolved_public_url)


@dg.asset(
    partitions_def=models, group_name=TRAINING, kinds={"file"}, deps=[uploaded_image_set], code_version="1"
)
def training_zip(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult[None]:
    """The training ZIP of a newly opened training: flat, stored, the same bytes for the same set."""
    from lora_pipeline.trainings.starting import open_and_pack
    from lora_pipeline.trainings.submission import ASKED_BY_HAND

    connections = pipeline.connections
    event = open_and_pack(connections, context.partition_key, asked_by=ASKED_BY_HAND)
    return materialise_result(event, connections.settings.resolved_public_url)


def _submit_at(
    provider: ProviderName, context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """Submit the partition's training where it is this provider's; the other provider's asset yields nothing."""
    from lora_pipeline.trainings.starting import submit_packed

    connections = pipeline.connections
    started = submit_packed(connections, context.partition_key, provider)
    context.log.info(started.explanation)
    if started.event is not None:
        yield materialise_result(started.event, connections.settings.resolved_public_url)


@dg.asset(
    partitions_def=models,
    group_name=TRAINING,
    kinds={"replicate"},
    deps=[training_zip],
    output_required=False,
    code_version="1",
)
def replicate_training(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """The paid training at Replicate. Materialising submits it, once, and ends; the status sensor follows it."""
    yield from _submit_at(REPLICATE, context, pipeline)


@dg.asset(
    partitions_def=models,
    group_name=TRAINING,
    kinds={"runpod"},
    deps=[training_zip],
    output_required=False,
    code_version="1",
)
def runpod_training(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """The paid training at RunPod, of the models that are trained there. The same life as at Replicate."""
    yield from _submit_at(RUNPOD, context, pipeline)


@dg.asset(
    partitions_def=models,
    group_name=REGISTRY,
    kinds={"safetensors"},
    deps=[replicate_training, runpod_training],
    output_required=False,
    code_version="1",
)
def trained_lora(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """The verified, archived and registered LoRA version. Comes by itself once the training has ended.

    A run that submits a training skips this step, since one of the two trainings is always another provider's.
    """
    from lora_pipeline.trainings.starting import finish_if_succeeded

    connections = pipeline.connections
    finished = finish_if_succeeded(connections, context.partition_key)
    if finished.event is None:
        context.log.info(finished.explanation)
        return
    yield materialise_result(finished.event, connections.settings.resolved_public_url)


@dg.asset(group_name=REGISTRY, kinds={"table"}, deps=[trained_lora])
def version_registry(pipeline: Pipeline) -> dg.MaterializeResult[None]:
    """Every registered version of every model, in numbers."""
    from lora_pipeline.defs.metadata import registry_metadata
    from lora_pipeline.versions.overview import registry_facts

    return dg.MaterializeResult(metadata=registry_metadata(registry_facts(pipeline.connections.database)))


ASSETS = [
    uploaded_image_set,
    training_zip,
    replicate_training,
    runpod_training,
    trained_lora,
    version_registry,
]
