"""`versions MODEL`: what the registry has for one model."""

from __future__ import annotations

import click

from lora_pipeline.cli.output import json_option

_COLUMNS = [
    "version",
    "active",
    "weights",
    "sha256",
    "trigger_word",
    "images",
    "provider_version",
    "trained_at",
]


@click.command()
@click.argument("model")
@json_option
def versions(model: str, as_json: bool) -> None:
    """The registered versions of MODEL, newest first.

    MODEL is a model key, a user id, an e-mail address or the provider's owner/name, or any id of one of its
    versions, also of one that was merged away.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.versions.listing import versions_of
    from lora_pipeline.versions.lookup import find_model_or_owner

    with connect().database.read() as session:
        found = find_model_or_owner(session, model)
        rows = versions_of(session, found)
    if as_json:
        show_json({"model": found.model_key, "versions": rows})
        return
    show_table(
        [_short(row) for row in rows],
        _COLUMNS,
        title=f"{found.model_key}: {found.model_name}",
        empty=f"{found.model_key} has no version yet. See its trainings: lora-pipeline trainings list --model "
        f"{found.model_key}",
    )


def _short(row: dict[str, object]) -> dict[str, object]:
    owner, _, digits = str(row["provider_version"] or "").partition(":")
    marks = ["pinned"] if row["pinned"] else []
    return {
        **row,
        "active": " ".join([*(["active"] if row["active"] else []), *marks]),
        "weights": f"{row['weights']}{', SIMULATED' if row['simulated'] else ''}",
        "sha256": str(row["sha256"] or "")[:12],
        "provider_version": f"{owner}:{digits[:12]}…" if digits else owner,
        "trained_at": str(row["trained_at"] or "")[:19],
    }
