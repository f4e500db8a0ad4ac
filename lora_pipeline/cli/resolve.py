"""`resolve MODEL`: what an application would be told to generate with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.versions.resolve import ResolvedVersion


@click.command()
@click.argument("model")
@click.argument("version", required=False)
@json_option
def resolve(model: str, version: str | None, as_json: bool) -> None:
    """The version, weights, trigger word and LoRA scale to use for MODEL now, or those of its VERSION.

    A version's own id (a training's, an old entry's, also one that was merged away) may stand instead of MODEL
    and means that version. The first call after a deployment also looks whether the version is outdated. With
    --json the address of the weights is whole: it may be signed, so keep it out of logs.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.versions.resolve import resolve as resolve_now

    found = resolve_now(connect(), model, version)
    if as_json:
        show_json(_facts(found))
        return
    rows = [
        {"what": name.replace("_", " "), "value": value}
        for name, value in {**_facts(found), "weights_url": _unsigned(found)}.items()
        if value not in (None, False)
    ]
    show_table(rows, ["what", "value"])


def _facts(found: ResolvedVersion) -> dict[str, Any]:
    facts = dict(found.__dict__)
    return {
        "model": facts.pop("model_key"),
        **facts,
        "version": f"V{found.version}" if found.version is not None else None,
    }


def _unsigned(found: ResolvedVersion) -> str | None:
    """The address without its signature: a terminal is logged more often than one thinks."""
    if found.weights_url is None or found.weights_expire_at is None:
        return found.weights_url
    return f"{found.weights_url.partition('?')[0]} (signed with --json)"
