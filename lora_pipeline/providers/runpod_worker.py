"""What our RunPod worker is told and leaves behind: the contract of `docs/runpod_worker.md`, as data. Pure.

RunPod runs whatever image an endpoint names, so this contract is ours: a worker in the manner of kohya's trainers
that reads one ZIP, trains, and writes one .safetensors file under the key that it was given.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from lora_pipeline.providers.protocol import Refused, TrainingRequest

DATASET_INPUT = "input_images"
"""The pipeline's name for the dataset's address; the worker's is `dataset_url`."""
OBJECT_STORE_REMEDY = "Set LORA_OBJECT_STORE=s3://BUCKET/PREFIX to a bucket that the worker may write to"

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "class_tokens": {
        "type": "string",
        "description": "The trigger word: the word that stands for the subject.",
    },
    "training_type": {
        "type": "string",
        "enum": ["style", "person", "object"],
        "default": "person",
        "description": "What is learnt.",
    },
    "network_dim": {
        "type": "integer",
        "minimum": 1,
        "maximum": 256,
        "default": 16,
        "description": "LoRA rank.",
    },
    "network_alpha": {
        "type": "number",
        "minimum": 0,
        "maximum": 256,
        "default": 16,
        "description": "The LoRA is scaled by this, divided by the rank.",
    },
    "learning_rate": {"type": "number", "minimum": 1e-8, "maximum": 1, "default": 0.0001},
    "max_train_steps": {"type": "integer", "minimum": 1, "maximum": 100_000, "default": 2000},
    "lr_scheduler": {
        "type": "string",
        "enum": [
            "constant",
            "constant_with_warmup",
            "cosine",
            "cosine_with_restarts",
            "linear",
            "polynomial",
        ],
        "default": "constant",
    },
    "lr_warmup_steps": {"type": "integer", "minimum": 0, "maximum": 100_000, "default": 0},
    "optimizer_type": {
        "type": "string",
        "enum": ["adamw8bit", "adamw", "adafactor", "lion", "lion8bit", "prodigy"],
        "default": "adamw8bit",
        "description": "In lower case: the worker takes AdamW8bit for something else.",
    },
    "batch_size": {"type": "integer", "minimum": 1, "maximum": 64, "default": 1},
    "num_repeats": {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 10,
        "description": "How often each image counts in an epoch.",
    },
    "gradient_dtype": {"type": "string", "enum": ["bf16", "fp16"], "default": "bf16"},
    "save_every_n_steps": {
        "type": "integer",
        "minimum": 1,
        "maximum": 100_000,
        "default": 500,
        "description": "Steps between checkpoints on the worker's own disk.",
    },
}


def worker_input_schema() -> dict[str, Any]:
    """The worker's parameters as a JSON schema object: names, types and words as the existing workers take them,
    defaults as their trainings had them. What only carries the job (addresses, names) is not among them."""
    return {
        "type": "object",
        "required": ["class_tokens"],
        "properties": copy.deepcopy(dict(_INPUTS)),
    }


def weights_key(token: str, destination: str) -> str:
    """Where in the bucket the weights of the run with this token come to lie: `trained/<token>/<name>.safetensors`.

    The token makes the key the run's own: what lies there was trained for it and for nothing else.
    Raises Refused for what cannot be part of a key.
    """
    if not _TOKEN.fullmatch(token):
        raise Refused("the run has no token that could mark its weights; nothing was asked of RunPod")
    if not _MODEL_NAME.fullmatch(destination):
        raise Refused(
            f"the destination {destination[:80]!r} cannot name a file; expected letters, digits, '_', '.' and '-', "
            "such as style_1_vV7"
        )
    return f"trained/{token}/{destination}.safetensors"


def worker_input(request: TrainingRequest, weights_address: str) -> dict[str, Any]:
    """The job's `input`: the run's parameters, and what carries the job. Raises Refused for what cannot be sent."""
    bucket, _, key = weights_address.removeprefix("s3://").partition("/")
    if not weights_address.startswith("s3://") or not bucket or not key:
        raise Refused(f"a RunPod worker leaves its weights in a bucket. {OBJECT_STORE_REMEDY}")
    parameters = dict(request.input)
    dataset = parameters.pop(DATASET_INPUT, None)
    if not isinstance(dataset, str) or not dataset.startswith(("https://", "http://")):
        raise Refused(f"a RunPod worker fetches its dataset from a presigned address. {OBJECT_STORE_REMEDY}")
    return parameters | {
        "job_id": request.token,
        "dataset_url": dataset,
        "model_name": request.destination,
        "s3_bucket": bucket,
        "s3_key": key,
    }
