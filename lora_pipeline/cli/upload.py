"""`upload MODEL PATH…`: photographs into a model's draft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections
    from lora_pipeline.image_sets.intake import IntakeReport
    from lora_pipeline.image_sets.sources import ImageSource


@click.command()
@click.argument("model")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH…"
)
@click.option(
    "--type", "model_type", type=click.Choice(["person", "object", "style"]), help="Of a new model."
)
@click.option("--gender", help="Of a new model's person: fills the caption template.")
@click.option("--name", "model_name", help="A new model's name for people.")
@click.option("--user", "user_id", help="The user a new model belongs to. Default: the model key.")
@click.option("--caption", help="A caption for each of these files; otherwise <stem>.txt beside a file.")
@json_option
def upload(
    model: str,
    paths: tuple[Path, ...],
    model_type: str | None,
    gender: str | None,
    model_name: str | None,
    user_id: str | None,
    caption: str | None,
    as_json: bool,
) -> int:
    """Take photographs into MODEL and check them.

    PATH is a photograph or a folder of them. A MODEL that does not exist is made. What became of each file is
    said. Nothing is trained yet: that is `train MODEL`.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json

    given = {"model_type": model_type, "gender": gender, "model_name": model_name, "user_id": user_id}
    described = {name: value for name, value in given.items() if value is not None}
    sources = list(_sources(paths, caption))
    if not sources:
        shown = ", ".join(str(path) for path in paths)
        raise click.BadParameter(
            f"got {shown}, which has no file in it; expected photographs", param_hint="PATH"
        )
    connections = connect()
    model_key, ignored = _model(connections, model, described)
    if ignored and not as_json:
        click.echo(f"{model_key} exists already: {', '.join(ignored)} changes nothing", err=True)
    report = _take_in(connections, model_key, sources, quiet=as_json)
    if as_json:
        show_json(_as_json(report))
    else:
        _show(report)
    return _exit_code(report)


def _sources(paths: Sequence[Path], caption: str | None) -> Iterator[ImageSource]:
    from lora_pipeline.image_sets.names import is_bystander, shown
    from lora_pipeline.image_sets.sources import source_from_path

    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file())
            named = [(file, file.relative_to(path).as_posix()) for file in found]
        else:
            named = [(path, path.name)]
        for file, name in named:
            if not is_bystander(name):
                source = replace(source_from_path(file), name=shown(name))
                yield replace(source, read_caption=lambda: caption) if caption else source


def _model(connections: Connections, text: str, described: dict[str, str]) -> tuple[str, list[str]]:
    """The key of the model, made where there is none; and the options that an existing one does not heed."""
    from lora_pipeline.image_sets.models import ModelDescription, ensure_model
    from lora_pipeline.versions.lookup import ModelNotFound, find_model

    try:
        with connections.database.read() as session:
            return find_model(session, text).model_key, [f"--{name}" for name in described]
    except ModelNotFound:
        with connections.database.begin() as session:
            description = ModelDescription.model_validate(described)
            return ensure_model(session, text, description, connections.now()).model_key, []


def _take_in(
    connections: Connections, model_key: str, sources: Sequence[ImageSource], *, quiet: bool
) -> IntakeReport:
    from rich.progress import Progress

    from lora_pipeline.cli.output import console
    from lora_pipeline.image_sets.intake import take_in

    terminal = console(stderr=True)
    with Progress(console=terminal, transient=True, disable=quiet or not terminal.is_terminal) as bar:
        task = bar.add_task("looking at photographs", total=len(sources))
        return take_in(
            connections.database,
            connections.store,
            model_key,
            sources,
            profile=connections.image_profile,
            progress=lambda _: bar.advance(task),
        )


def _show(report: IntakeReport) -> None:
    from lora_pipeline.cli.output import show_table

    rows = [{"file": file.name, "what": file.state, "why": file.message} for file in report.files]
    show_table(rows, ["file", "what", "why"], title=report.model_key)
    if report.assessment is None:
        return
    click.echo(f"{len(report.assessment.included)} images are in the set.")
    for finding in report.assessment.findings:
        click.echo(f"{finding.severity.value}: {finding}")
    if not report.assessment.blocking:
        click.echo(f"Train it: lora-pipeline train {report.model_key}")


def _as_json(report: IntakeReport) -> dict[str, Any]:
    assessment = report.assessment
    return {
        "model": report.model_key,
        "image_set": report.image_set_id,
        "included": len(assessment.included) if assessment else 0,
        "findings": [finding.to_dict() for finding in assessment.findings] if assessment else [],
        "files": [
            {
                "name": file.name,
                "state": file.state,
                "message": file.message,
                "sha256": file.sha256,
                "findings": [finding.to_dict() for finding in file.findings],
            }
            for file in report.files
        ],
    }


def _exit_code(report: IntakeReport) -> int:
    from lora_pipeline.cli.exits import Exit

    states = {file.state for file in report.files}
    if states & {"failed", "waiting"}:
        return Exit.ERROR
    return Exit.REFUSED if states == {"excluded"} else Exit.FINE
