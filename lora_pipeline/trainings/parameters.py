"""What a training is asked to do: the defaults, the policies that vary them, and the check against the trainer.

Pure. The dataset's address is not a parameter: it is a bearer secret, made at submission. The trigger word is the
model's, fixed for its life, and cannot be overridden here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lora_pipeline.providers.secrets import REDACTED, is_secret_name, redacted, scrubbed

__all__ = [
    "DATASET_INPUT",
    "DEFAULT_POLICY",
    "POLICIES",
    "ParameterPolicy",
    "ParameterProblem",
    "ParametersRefused",
    "TrainingParameters",
    "caption_prefix",
    "overridable",
    "redacted",
    "training_parameters",
    "validate_parameters",
]

DATASET_INPUT = "input_images"
"""The trainers' name for the dataset's address."""

DEFAULTS: Mapping[str, Any] = {
    "steps": 1000,
    "lora_rank": 16,
    "optimizer": "adamw8bit",
    "batch_size": 1,
    "resolution": "512,768,1024",
    "autocaption": True,
    "learning_rate": 0.0004,
    "num_repeats": 10,
}
"""What a trainer gets of this is what its schema knows: `ostris/flux-dev-lora-trainer` has no `num_repeats`."""

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "steps": ("training_steps", "max_train_steps"),
    # A kohya network's alpha is its rank unless said otherwise; together they scale by one.
    "lora_rank": ("network_dim", "network_alpha"),
    "optimizer": ("optimizer_type",),
}
"""What other trainers call these: `replicate/fast-flux-trainer`, and workers that run kohya's scripts."""

_FIXED = {
    DATASET_INPUT: "the dataset is packed from the image set; leave it out",
    "class_tokens": "a model keeps its trigger word for life, or every prompt saved with it breaks; leave it out",
    "trigger_word": "a model keeps its trigger word for life, or every prompt saved with it breaks; leave it out",
}


@dataclass(frozen=True)
class ParameterPolicy:
    """One versioned way of choosing parameters. A change of what it chooses is a new version."""

    name: str
    """`default/1`, as stored with each run."""
    description: str
    choose: Callable[[int], Mapping[str, Any]]
    """From the number of usable images, what differs from DEFAULTS."""


def _adaptive(image_count: int) -> Mapping[str, Any]:
    if image_count < 10:
        return {"lora_rank": 32, "steps": 1200}
    if image_count < 15:
        return {"lora_rank": 40, "steps": 1200}
    return {"lora_rank": 48, "steps": 1400, "learning_rate": 0.00008}


DEFAULT_POLICY = "default/1"
POLICIES: Mapping[str, ParameterPolicy] = {
    policy.name: policy
    for policy in (
        ParameterPolicy(DEFAULT_POLICY, "the same documented parameters for every set", lambda _: {}),
        ParameterPolicy(
            "adaptive/1",
            "by usable images: under 10 rank 32 and 1,200 steps, under 15 rank 40 and 1,200 steps, "
            "otherwise rank 48, 1,400 steps and learning rate 0.00008",
            _adaptive,
        ),
    )
}


@dataclass(frozen=True)
class TrainingParameters:
    """Parameters that the trainer takes, without the dataset's address."""

    values: Mapping[str, Any]
    policy: str
    """The policy's name and version: `default/1`."""
    steps: int
    """Training steps, under whichever name this trainer has for them."""


@dataclass(frozen=True)
class ParameterProblem:
    """One parameter that the trainer would not take."""

    name: str
    got: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: got {self.got}, expected {self.expected}; {self.remedy}"


class ParametersRefused(ValueError):
    """The trainer would not take these parameters; every problem is listed, nothing was sent."""

    def __init__(self, problems: list[ParameterProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def training_parameters(
    policy: str,
    *,
    image_count: int,
    trigger_word: str,
    model_type: str,
    overrides: Mapping[str, Any],
    schema: Mapping[str, Any],
) -> TrainingParameters:
    """The parameters of one training: the policy's choice for this trainer, with a person's overrides on top.

    `schema` is the trainer's input as a JSON schema object, `model_type` `person`, `object` or `style`.
    Defaults that the trainer does not know are left out; overrides that it does not know are refused.
    Raises ParametersRefused with all problems at once.
    """
    known = _properties(schema)
    chosen = _tuning(_policy(policy).choose(image_count), known)
    chosen["lora_type"] = "style" if model_type == "style" else "subject"
    chosen["trigger_word"] = chosen["class_tokens"] = trigger_word
    chosen["training_type"] = model_type
    chosen["autocaption_prefix"] = caption_prefix(trigger_word, model_type)
    values = {name: value for name, value in chosen.items() if name in known}
    allowed = {name: value for name, value in overrides.items() if not _forbidden(name)}
    values.update(allowed)
    problems = [_override_problem(name) for name in overrides if _forbidden(name)]
    problems += validate_parameters(values, schema)
    if problems:
        raise ParametersRefused(problems)
    return TrainingParameters(values=values, policy=policy, steps=steps_of(values))


def _tuning(by_policy: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy chooses and, for the rest, the trainer's own default where it declares one, else ours.

    Kohya's scripts learn at another rate than the Flux trainer, whose declared defaults are ours.
    """
    chosen = {}
    for name, value in {**DEFAULTS, **by_policy}.items():
        for spelling in (name, *_OTHER_NAMES.get(name, ())):
            declared = known.get(spelling, {}).get("default")
            chosen[spelling] = value if declared is None or name in by_policy else declared
    return chosen


def steps_of(parameters: Mapping[str, Any]) -> int:
    """The training steps among a run's parameters, under whichever name its trainer has for them."""
    names = ("steps", *_OTHER_NAMES["steps"])
    return int(next((parameters[name] for name in names if parameters.get(name)), DEFAULTS["steps"]))


def caption_prefix(trigger_word: str, model_type: str) -> str:
    """How every caption begins, with the literal trigger word in it: trainers differ in where they put it."""
    return f"in the style of {trigger_word}, " if model_type == "style" else f"a photo of {trigger_word}, "


def _policy(name: str) -> ParameterPolicy:
    try:
        return POLICIES[name]
    except KeyError:
        problem = ParameterProblem("policy", repr(name), " or ".join(POLICIES), "choose one of them")
        raise ParametersRefused([problem]) from None


def _forbidden(name: str) -> bool:
    return name in _FIXED or is_secret_name(name)


def overridable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's stored parameters, those that may be asked for again in a new run."""
    return {name: value for name, value in parameters.items() if not _forbidden(name)}


def _override_problem(name: str) -> ParameterProblem:
    if name in _FIXED:
        return ParameterProblem(name, "a value", "no value of yours", _FIXED[name])
    # Parameters are stored with the run and sent again after a crash; a secret could only be one of the two.
    return ParameterProblem(
        name,
        "a secret",
        "parameters that may be stored and shown",
        "leave it out: the weights are archived here, and the loss curve is read from the log",
    )


def validate_parameters(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> list[ParameterProblem]:
    """Everything that the trainer would refuse: unknown names, wrong types, values out of range, missing ones.

    The dataset's address may be absent: it is added at submission.
    """
    known = _properties(schema)
    if not known:
        remedy = "check that LORA_TRAINER names a model that can be trained"
        return [ParameterProblem("trainer", "an input schema without inputs", "a trainer's", remedy)]
    found = (
        _unknown(name, value, known) if name not in known else _wrong(name, value, known[name])
        for name, value in parameters.items()
    )
    missing = (
        ParameterProblem(name, "nothing", _expected(known.get(name, {})), "give it a value")
        for name in schema.get("required", ())
        if name not in parameters and name != DATASET_INPUT
    )
    return [problem for problem in found if problem is not None] + list(missing)


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _unknown(name: str, value: Any, known: Mapping[str, Any]) -> ParameterProblem:
    close = get_close_matches(name, list(known), n=1)
    remedy = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(known))}"
    return ParameterProblem(name, _shown(name, value), "a parameter that this trainer has", remedy)


def _wrong(name: str, value: Any, schema: Mapping[str, Any]) -> ParameterProblem | None:
    if value == REDACTED:
        remedy = "give the value again, or leave it out"
        return ParameterProblem(name, "a value removed from a stored record", _expected(schema), remedy)
    if not _fits_type(value, schema.get("type")):
        remedy = "write it without quotes" if isinstance(value, str) else "give a value of that type"
        return ParameterProblem(name, _shown(name, value), _expected(schema), remedy)
    if "enum" in schema and value not in schema["enum"]:
        close = get_close_matches(str(value), [str(choice) for choice in schema["enum"]], n=1)
        remedy = f"did you mean {close[0]}?" if close else "choose one of them"
        return ParameterProblem(name, _shown(name, value), _expected(schema), remedy)
    if not _in_range(value, schema):
        return ParameterProblem(name, _shown(name, value), _expected(schema), "choose a value in that range")
    return None


def _fits_type(value: Any, kind: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "integer":
            return whole
        case "number":
            return whole or (isinstance(value, float) and math.isfinite(value))
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, Mapping)
        case _:
            return value is not None


def _in_range(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    low, high = schema.get("minimum"), schema.get("maximum")
    return (low is None or value >= low) and (high is None or value <= high)


_TYPE_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "an object",
}


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    words = _TYPE_WORDS.get(str(schema.get("type")), "a value")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{words} from {low:g} to {high:g}"
    if low is not None:
        return f"{words} of {low:g} or more"
    if high is not None:
        return f"{words} of {high:g} or less"
    return words


def _shown(name: str, value: Any) -> str:
    if is_secret_name(name):
        return REDACTED
    text = scrubbed(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}…"
