"""Facts as Dagster metadata: what a person looks at on an asset's page.

Facts arrive as plain JSON that holds nothing personal; this module only chooses how each is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

Metadata = dict[str, dg.MetadataValue]

_BARS = "▁▂▃▄▅▆▇█"
_SIMULATED = "**Simulated**: no provider was paid, and these weights generate nothing."


def image_set_metadata(facts: Mapping[str, Any], public_url: str) -> Metadata:
    """The contact sheet (as a link: pictures of people never enter Dagster's storage) and every verdict."""
    sheet = f"{public_url}/contact-sheets/{facts['image_set']}.jpg"
    rows = [
        dg.TableRecord(
            {
                "#": member["number"],
                "image": member["sha256"][:8],
                "verdict": member["verdict"],
                "size": member["size"],
                "what": "; ".join(member["findings"]) or "as it came",
            }
        )
        for member in facts["members"]
    ]
    return {
        "contact sheet": dg.MetadataValue.md(f"[![contact sheet]({sheet})]({sheet})"),
        "images": dg.MetadataValue.int(facts["image_count"]),
        "usable": dg.MetadataValue.int(facts["usable_count"]),
        "verdicts": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("no image"),
        "about the set": dg.MetadataValue.md(_bullets(facts["findings"])),
        "digest": dg.MetadataValue.text(facts["digest"]),
        "trigger word": dg.MetadataValue.text(facts["trigger_word"]),
    }


def zip_metadata(facts: Mapping[str, Any]) -> Metadata:
    """The ZIP by content; its address is not shown, since it is deleted when the training ends."""
    return {
        "sha256": dg.MetadataValue.text(facts["zip_sha256"]),
        "size (bytes)": dg.MetadataValue.int(facts["zip_size"]),
        "image set": dg.MetadataValue.int(facts["image_set"]),
        "trigger word": dg.MetadataValue.text(facts["trigger_word"]),
        "training run": dg.MetadataValue.int(facts["run"]),
    }


def training_metadata(facts: Mapping[str, Any]) -> Metadata:
    """State, progress, loss, money and time of one training run."""
    metadata: Metadata = {
        "state": dg.MetadataValue.text(facts["state"]),
        "progress (%)": dg.MetadataValue.int(facts["progress"]),
        "training run": dg.MetadataValue.int(facts["run"]),
        "attempt": dg.MetadataValue.int(facts["attempt"]),
        "trainer": dg.MetadataValue.text(facts["trainer"]),
        "parameters": dg.MetadataValue.json(facts["parameters"]),
        "parameter policy": dg.MetadataValue.text(facts["parameter_policy"]),
    }
    _add_text(metadata, "training id", facts["training_id"])
    _add_text(metadata, "held because", facts["hold_reason"])
    _add_text(metadata, "error", facts["error"])
    _add_number(metadata, "estimated cost (USD)", facts["estimated_cost"])
    _add_number(metadata, "cost (USD)", facts["cost"])
    _add_number(metadata, "duration (s)", facts["duration_seconds"])
    if facts["loss_history"]:
        metadata["loss"] = dg.MetadataValue.md(loss_curve(facts["loss_history"]))
    return _labelled(metadata, facts)


def lora_metadata(facts: Mapping[str, Any], public_url: str) -> Metadata:
    """A verified version: its evidence, where it comes from, and how to generate with it."""
    metadata: Metadata = {
        "version": dg.MetadataValue.int(facts["version"]),
        "lineage": dg.MetadataValue.md(lineage_summary(facts, public_url)),
        "active": dg.MetadataValue.bool(facts["active"]),
        "weights": dg.MetadataValue.text(facts["weights_state"]),
        "archived at": dg.MetadataValue.text(facts["weights_url"]),
        "sha256": dg.MetadataValue.text(facts["sha256"]),
        "AutoV2": dg.MetadataValue.text(facts["autov2"]),
        "AutoV3": dg.MetadataValue.text(facts["autov3"]),
        "content key": dg.MetadataValue.text(facts["content_key"]),
        "size (bytes)": dg.MetadataValue.int(facts["size"]),
        "trigger word": dg.MetadataValue.text(facts["trigger_word"]),
    }
    if facts["provider_version"]:
        metadata["provider version"] = dg.MetadataValue.text(facts["provider_version"])
        metadata["how to generate"] = dg.MetadataValue.md(inference_snippet(facts))
    _add_number(metadata, "cost (USD)", facts["cost"])
    _add_number(metadata, "duration (s)", facts["duration_seconds"])
    _add_number(metadata, "rank", facts["rank"])
    if facts["loss_history"]:
        metadata["loss"] = dg.MetadataValue.md(loss_curve(facts["loss_history"]))
    return _labelled(metadata, facts)


def lineage_summary(facts: Mapping[str, Any], public_url: str) -> str:
    """From the photographs to the version in one line, and where all of it is told."""
    digest = str(facts.get("image_set_digest") or "")[:12]
    steps = [
        f"image set {facts['image_set']}" + (f" (`{digest}`)" if digest else ""),
        f"ZIP `{str(facts['zip_sha256'] or '')[:12]}`",
        f"training {facts['run']} ({facts['provider']} `{facts['training_id']}`)",
        f"weights `{str(facts['sha256'] or '')[:12]}`",
        f"**V{facts['version']}**",
    ]
    picture = f"{public_url}/api/lineage/run:{facts['run']}/picture"
    return f"{' → '.join(steps)}\n\n[picture]({picture}) · `lora-pipeline lineage run:{facts['run']}`"


def inference_snippet(facts: Mapping[str, Any]) -> str:
    """Python that generates with exactly this version and its trigger word."""
    prompt = f"a photo of {facts['trigger_word']}"
    model, _, version = facts["provider_version"].partition(":")
    return (
        "```python\n"
        "import replicate\n\n"
        "image = replicate.run(\n"
        f'    "{model}:"\n'
        f'    "{version}",\n'
        f'    input={{"prompt": "{prompt}", "lora_scale": {facts["lora_scale"]}}},\n'
        ")\n"
        "```"
    )


def loss_curve(history: list[list[float]]) -> str:
    """The loss over the training as a line of blocks with its ends: readable in a table cell."""
    losses = [loss for _, loss in history]
    picked = [losses[index * (len(losses) - 1) // 39] for index in range(40)] if len(losses) > 40 else losses
    low, high = min(picked), max(picked)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    bars = "".join(_BARS[round((loss - low) * scale)] for loss in picked)
    return f"`{bars}` {losses[0]:.3f} → {losses[-1]:.3f} over {int(history[-1][0])} steps"


def _labelled(metadata: Metadata, facts: Mapping[str, Any]) -> Metadata:
    return {"simulated": dg.MetadataValue.md(_SIMULATED), **metadata} if facts["simulated"] else metadata


def _add_text(metadata: Metadata, name: str, value: str | None) -> None:
    if value:
        metadata[name] = dg.MetadataValue.text(value)


def _add_number(metadata: Metadata, name: str, value: float | None) -> None:
    if value is not None:
        metadata[name] = dg.MetadataValue.float(float(value))


def _bullets(findings: list[str]) -> str:
    return "\n".join(f"- {finding}" for finding in findings) or "nothing to remark"


def registry_metadata(facts: Mapping[str, Any]) -> Metadata:
    """The registry in numbers that plot over time, and its newest versions as a table."""
    rows = [dg.TableRecord(row) for row in facts["newest"]]
    return {
        "models": dg.MetadataValue.int(facts["models"]),
        "models with a version": dg.MetadataValue.int(facts["models_served"]),
        "versions": dg.MetadataValue.int(facts["versions"]),
        "unverified versions": dg.MetadataValue.int(facts["unverified"]),
        "open trainings": dg.MetadataValue.int(facts["open_trainings"]),
        "held trainings": dg.MetadataValue.int(facts["held_trainings"]),
        "newest versions": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("none yet"),
    }
