"""How trainings, models, versions and files look on the wire: the provider's JSON, its absent fields included."""

from __future__ import annotations

from typing import Any

from lora_pipeline.simulator.catalog import Model, Version
from lora_pipeline.simulator.clock import Instant, SimulatedClock, stamp
from lora_pipeline.simulator.logs import log_text
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainers import INPUTS, lora_openapi_schema, openapi_schema
from lora_pipeline.simulator.trainings import Training

TERMINAL = ("succeeded", "failed", "canceled", "aborted")


def created_json(training: Training) -> dict[str, Any]:
    """The answer to a creation: no output, metrics or times but `created_at`, and URLs that point at predictions.

    `created_at` has nine digits here and is a little earlier than what a later GET says.
    """
    base = f"{training.base_url}/v1/predictions/{training.id}"
    return {
        "id": training.id,
        "model": training.trainer,
        "version": training.quirks.substituted_version or training.trainer_version,
        "input": training.input,
        "logs": "",
        "error": None,
        "status": "starting",
        "created_at": stamp(training.created_shown - 0.0266, digits=9),
        "data_removed": False,
        "urls": {"cancel": f"{base}/cancel", "get": base},
    }


def training_json(
    training: Training, now: Instant, clock: SimulatedClock, settings: SimulatorSettings, *, with_logs: bool
) -> dict[str, Any]:
    """A training as GET and the list show it (the list without logs). `destination` is never told."""
    status = training.status(now.life)
    ended = training.settled or status not in ("starting", "processing")
    started = training.starts_life <= min(now.life, training.ends_life)
    started_shown = max(clock.shown_of(training.starts_life), training.created_shown) if started else 0.0
    completed_shown = (
        max(clock.shown_of(training.ends_life), started_shown, training.created_shown) if ended else 0.0
    )
    removed = ended and _past_retention(now.shown - completed_shown, settings)
    base = f"{training.base_url}/v1/trainings/{training.id}"
    body: dict[str, Any] = {
        "created_at": stamp(training.created_shown),
        "data_removed": removed,
        "error": training.error if ended and training.outcome == "failed" else None,
        "id": training.id,
        "input": {} if removed else training.input,
        "model": training.trainer,
        "source": "api",
        "status": status,
        "urls": {"cancel": f"{base}/cancel", "get": base},
        "version": training.quirks.substituted_version or training.trainer_version,
    }
    if started:
        body["started_at"] = stamp(started_shown)
    if ended:
        run = training.ends_life - training.starts_life if started else 0.0
        body["completed_at"] = stamp(completed_shown)
        body["metrics"] = {
            "predict_time": round(run, 9),
            "total_time": round(training.ends_life - training.created_life, 6),
        }
        body["output"] = None if removed else output_json(training)
        if training.quirks.output == "none" and status == "succeeded":
            del body["output"]
    if with_logs:
        body["logs"] = "" if removed else log_text(training, now.life, settings.log_lines)
    return body


def _past_retention(age_s: float, settings: SimulatorSettings) -> bool:
    return settings.data_retention_s is not None and age_s > settings.data_retention_s


def output_json(training: Training) -> dict[str, Any] | None:
    """The trained version and its weights; the URL's opaque part has no relation to the version's hash."""
    if training.outcome != "succeeded" or training.quirks.status or training.quirks.output == "none":
        return None
    version: str | None = f"{training.destination}:{training.version_hash}"
    weights = f"{training.base_url}/xezq/{training.weights_key}/trained_model.tar"
    match training.quirks.output:
        case "null_version":
            version = None
        case "bare_hash":
            version = training.version_hash
        case "model_hash":
            version = f"{training.destination.split('/')[1]}:{training.version_hash}"
        case "no_weights":
            return {"version": version}
    return {"version": version, "weights": weights}


def prediction_json(training: dict[str, Any]) -> dict[str, Any]:
    """A training seen through `/predictions/{id}`, where the answer to a creation points."""
    seen = {"logs": "", "output": None} | training
    base = str(training["urls"]["get"]).replace("/v1/trainings/", "/v1/predictions/")
    seen["urls"] = {"get": base, "cancel": f"{base}/cancel", "web": base.replace("/v1/predictions/", "/p/")}
    return seen


def picture_json(
    identity: str, model: str, body: dict[str, Any], base_url: str, now: Instant
) -> dict[str, Any]:
    """The answer to a prediction's creation."""
    base = f"{base_url}/v1/predictions/{identity}"
    return {
        "id": identity,
        "model": model,
        "version": str(body["version"]).rpartition(":")[2],
        "input": body["input"],
        "logs": "[SIMULATED] no picture is made\n",
        "output": None,
        "error": None,
        "status": "starting",
        "created_at": stamp(now.shown, digits=9),
        "data_removed": False,
        "urls": {"get": base, "cancel": f"{base}/cancel", "web": f"{base_url}/p/{identity}"},
    }


def version_json(version: Version) -> dict[str, Any]:
    """A version with its schema: the training inputs for a trainer, the inputs of picture making for a LoRA."""
    schema = openapi_schema(version.model) if version.model in INPUTS else lora_openapi_schema()
    return {
        "id": version.hash,
        "created_at": stamp(version.created_shown),
        "cog_version": "0.9.20",
        "openapi_schema": schema,
    }


def model_json(model: Model, latest: Version | None, base_url: str) -> dict[str, Any]:
    """A model with its latest version, null where there is none."""
    return {
        "url": f"{base_url}/{model.full_name}",
        "owner": model.owner,
        "name": model.name,
        "description": model.details.get("description"),
        "visibility": model.visibility,
        "github_url": model.details.get("github_url"),
        "paper_url": model.details.get("paper_url"),
        "license_url": model.details.get("license_url"),
        "run_count": 0,
        "cover_image_url": model.details.get("cover_image_url"),
        "default_example": None,
        "latest_version": version_json(latest) if latest else None,
    }
