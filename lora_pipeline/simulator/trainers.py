"""The trainers that the simulated provider offers: their versions, input schemas, and the check of an input.

The check answers as the provider's does (it validates with gojsonschema): one entry in `invalid_fields` for each
fault, and a `detail` that lists them as lines. Unknown inputs are ignored unless a setting says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLUX_TRAINER = "ostris/flux-dev-lora-trainer"
FAST_TRAINER = "replicate/fast-flux-trainer"

TRAINER_VERSIONS: dict[str, tuple[str, ...]] = {
    FLUX_TRAINER: (
        "26dce37af90b9d997eeb970d92e47de3064d46c300504ae376c75bef6a9022d2",
        "e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497",
    ),
    FAST_TRAINER: ("8b10794665aed907bb98a1a5324cd1d3a8bea0e9b31e65210967fb9c9e2e08ed",),
}
"""Oldest first. The first two were seen in use; the fast trainer's stands for whichever it has."""


@dataclass(frozen=True)
class Input:
    """One input of a trainer."""

    name: str
    type: str
    default: object = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    description: str = ""

    def schema(self, order: int) -> dict[str, Any]:
        """As cog writes it into the version's OpenAPI schema."""
        found: dict[str, Any] = {
            "type": self.type,
            "title": self.name.replace("_", " ").capitalize(),
            "x-order": order,
            "description": self.description,
        }
        if self.name == "input_images":
            found["format"] = "uri"
        optional = {
            "default": self.default,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "enum": list(self.choices) or None,
        }
        return found | {key: value for key, value in optional.items() if value is not None}


FLUX_INPUTS = (
    Input(
        "input_images",
        "string",
        required=True,
        description="A zip file with the images; captions in .txt files of the same name.",
    ),
    Input("trigger_word", "string", "TOK", description="The word that stands for the subject."),
    Input("autocaption", "boolean", True, description="Caption the images where no caption is given."),
    Input("autocaption_prefix", "string", description="Text before each automatic caption."),
    Input("autocaption_suffix", "string", description="Text after each automatic caption."),
    Input("steps", "integer", 1000, 3, 6000, description="Number of training steps."),
    Input("learning_rate", "number", 0.0004, description="Learning rate."),
    Input("batch_size", "integer", 1, description="Batch size."),
    Input("resolution", "string", "512,768,1024", description="Image resolutions, separated by commas."),
    Input("lora_rank", "integer", 16, 1, 128, description="Rank of the LoRA."),
    Input("caption_dropout_rate", "number", 0.05, 0, 1, description="Share of captions left out."),
    Input(
        "optimizer", "string", "adamw8bit", description="Optimizer: prodigy, adam8bit, adamw8bit, lion8bit, …"
    ),
    Input("cache_latents_to_disk", "boolean", False, description="For many images, to save memory."),
    Input("gradient_checkpointing", "boolean", False, description="Slower, with less memory."),
    Input("layers_to_optimize_regex", "string", description="Train only the layers whose names match."),
    Input("hf_repo_id", "string", description="Hugging Face repository to push the LoRA to."),
    Input("hf_token", "string", description="Hugging Face token."),
    Input("wandb_api_key", "string", description="Weights and Biases key."),
    Input("wandb_project", "string", "flux_train_replicate", description="Weights and Biases project."),
    Input("wandb_run", "string", description="Weights and Biases run name."),
    Input("wandb_entity", "string", description="Weights and Biases entity."),
    Input("wandb_sample_interval", "integer", 100, 1, description="Steps between sample images."),
    Input("wandb_sample_prompts", "string", description="Prompts of the sample images, one a line."),
    Input("wandb_save_interval", "integer", 100, 1, description="Steps between saved weights."),
    Input(
        "skip_training_and_use_pretrained_hf_lora_url",
        "string",
        description="Use this LoRA and do not train.",
    ),
)
FAST_INPUTS = (
    Input("input_images", "string", required=True, description="A zip file with the images."),
    Input(
        "trigger_word", "string", "TOK", required=True, description="The word that stands for the subject."
    ),
    Input("lora_type", "string", "subject", choices=("subject", "style"), description="What is learnt."),
    Input("training_steps", "integer", 1000, 1, 6000, description="Number of training steps."),
)
INPUTS = {FLUX_TRAINER: FLUX_INPUTS, FAST_TRAINER: FAST_INPUTS}

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
GO_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


def openapi_schema(trainer: str) -> dict[str, Any]:
    """The `openapi_schema` of a trainer's version: its inputs stand under `TrainingInput` and, as for any, `Input`."""
    inputs = INPUTS[trainer]
    training: dict[str, Any] = {
        "type": "object",
        "title": "TrainingInput",
        "required": [given.name for given in inputs if given.required],
        "properties": {given.name: given.schema(order) for order, given in enumerate(inputs)},
    }
    output = {
        "type": "object",
        "title": "TrainingOutput",
        "required": ["weights"],
        "properties": {"weights": {"type": "string", "format": "uri", "title": "Weights"}},
    }
    return wrapped(
        {"TrainingInput": training, "TrainingOutput": output, "Input": training | {"title": "Input"}}
    )


def lora_openapi_schema() -> dict[str, Any]:
    """The `openapi_schema` of a trained model's version, short: what it takes to make a picture."""
    return wrapped(
        {
            "Input": {
                "type": "object",
                "title": "Input",
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string", "title": "Prompt", "x-order": 0},
                    "lora_scale": {"type": "number", "title": "Lora Scale", "default": 1, "x-order": 1},
                },
            },
            "Output": {"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}},
        }
    )


def wrapped(schemas: dict[str, Any]) -> dict[str, Any]:
    """Schemas inside the OpenAPI document that cog generates."""
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": schemas},
    }


@dataclass(frozen=True)
class InvalidField:
    """One thing wrong with a request, as the provider lists it."""

    type: str
    field: str
    description: str


def invalid_fields(trainer: str, given: dict[str, Any], *, refuse_unknown: bool) -> list[InvalidField]:
    """What the provider would find wrong with a training's input."""
    inputs = {known.name: known for known in INPUTS[trainer]}
    found = [
        InvalidField("required", "input", f"{known.name} is required")
        for known in inputs.values()
        if known.required and known.name not in given
    ]
    for name, value in given.items():
        if name in inputs:
            found += faults_of(inputs[name], value)
        elif refuse_unknown:
            text = f"Additional property {name} is not allowed"
            found.append(InvalidField("additional_property_not_allowed", "input", text))
    return found


def faults_of(known: Input, value: object) -> list[InvalidField]:
    """Type, range, choice and address of one value."""
    place = f"input.{known.name}"
    is_bool = isinstance(value, bool)
    fits = isinstance(value, JSON_TYPES[known.type]) and (known.type == "boolean") == is_bool
    whole = known.type == "integer" and isinstance(value, float) and value.is_integer()
    if not fits and not whole:
        got = GO_TYPES.get(type(value), "object")
        return [InvalidField("invalid_type", place, f"Invalid type. Expected: {known.type}, given: {got}")]
    found = []
    if isinstance(value, int | float) and not is_bool:
        if known.minimum is not None and value < known.minimum:
            text = f"Must be greater than or equal to {known.minimum:g}"
            found.append(InvalidField("number_gte", place, text))
        if known.maximum is not None and value > known.maximum:
            found.append(
                InvalidField("number_lte", place, f"Must be less than or equal to {known.maximum:g}")
            )
    if known.choices and value not in known.choices:
        choices = ", ".join(f'"{choice}"' for choice in known.choices)
        found.append(InvalidField("enum", place, f"{place} must be one of the following: {choices}"))
    if known.name == "input_images" and not str(value).startswith(("http://", "https://", "data:")):
        found.append(InvalidField("format", place, "Does not match format 'uri'"))
    return found
