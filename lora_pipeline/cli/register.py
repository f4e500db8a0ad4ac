"""`register OBJECT…`: whose the LoRAs are that the inventory found and nothing names."""

from __future__ import annotations

import click

from lora_pipeline.cli.output import json_option


@click.command()
@click.argument("objects", nargs=-1, required=True, metavar="OBJECT…")
@click.option("--model", required=True, help="Whose versions they become.")
@click.option(
    "--type",
    "model_type",
    type=click.Choice(["person", "object", "style"]),
    help="Make the model where there is none; of which type.",
)
@click.option("--user", "user_id", help="The user a new model belongs to. Default: the model key.")
@click.option("--trigger-word", help="What it was trained on. Default: the model's.")
@json_option
def register(
    objects: tuple[str, ...],
    model: str,
    model_type: str | None,
    user_id: str | None,
    trigger_word: str | None,
    as_json: bool,
) -> None:
    """Make versions of LoRA files that the inventory found and that no version, training or old file knows.

    OBJECT is a file's address, in any spelling. All of them are registered, or none. A version takes the number in
    its file's name (style_1_vV7.safetensors is V7) where that is free, and is served once you activate it.
    """
    from dataclasses import asdict

    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.output import counted, show_json, show_table
    from lora_pipeline.image_sets.models import ModelDescription
    from lora_pipeline.inventory.registering import register_found

    if user_id is not None and model_type is None:
        raise click.UsageError("--user is of a new model: say which with --type")
    registered = register_found(
        connect(),
        model,
        objects,
        actor=actor(),
        trigger_word=trigger_word,
        described=ModelDescription.model_validate({"model_type": model_type, "user_id": user_id})
        if model_type
        else None,
    )
    model_key = registered[0].model
    if as_json:
        show_json({"model": model_key, "versions": [asdict(one) for one in registered]})
        return
    rows = [
        {"version": one.version, "object": one.object, "": "" if one.new else "registered already"}
        for one in registered
    ]
    show_table(rows, ["version", "object", ""], title=f"{model_key}: {counted(len(rows), 'version')}")
    click.echo(f"Serve one: lora-pipeline activate {model_key} {registered[-1].version}")
