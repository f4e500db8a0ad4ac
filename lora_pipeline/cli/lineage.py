"""`lineage ID`: what any id means, what it was made from, what was made of it, and where that was live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from lora_pipeline.lineage.outline import Branch
    from lora_pipeline.lineage.tracing import Trace

_COLOURS = {
    "image": "cyan",
    "set": "blue",
    "zip": "magenta",
    "run": "yellow",
    "version": "green",
    "artifact": "bright_black",
    "object": "bright_black",
    "model": "green",
}
_HASH_DIGITS = 12
_MOST = 20
_LONGEST_LABEL = 54


@click.command()
@click.argument("text", metavar="ID")
@click.option("--up", "only_up", is_flag=True, help="Only what it was made from.")
@click.option("--down", "only_down", is_flag=True, help="Only what was made of it.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the graph into a file instead: .svg or .png.",
)
@json_option
def lineage(text: str, only_up: bool, only_down: bool, picture: Path | None, as_json: bool) -> None:
    """Where ID comes from and what became of it.

    ID is a photograph's SHA-256 (12 digits are enough of any hash), an image set (its number, external id or
    digest), a ZIP's SHA-256, a training (its number, token or provider job id), a stored object's address, a hash
    of weights, a version (user-50c:V3, owner/name:hash), an old entry's id, a model or a user.
    """
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.lineage.tracing import scope_of, trace

    if picture is not None and picture.suffix.lower() not in (".svg", ".png"):
        raise click.UsageError(f"got {picture.name}; expected a file that ends in .svg or .png")
    connections = connect()
    up, down = only_up or not only_down, only_down or not only_up
    found = trace(connections.database, text, scope=scope_of(connections), up=up, down=down)
    if picture is not None:
        _draw(found, picture)
    if as_json:
        show_json(found.as_json())
    elif picture is None:
        _show(found, up=up, down=down)


def _draw(found: Trace, path: Path) -> None:
    from lora_pipeline.lineage.picture import lineage_png, lineage_svg

    content = lineage_png(found) if path.suffix.lower() == ".png" else lineage_svg(found).encode()
    path.write_bytes(content)
    click.echo(f"{path}: {len(content)} bytes", err=True)


def _show(found: Trace, *, up: bool, down: bool) -> None:
    from lora_pipeline.cli.output import console
    from lora_pipeline.lineage.graph import Kind
    from lora_pipeline.lineage.outline import above, below, of_model

    screen = console()
    if not screen.is_terminal:
        # For pipes: one line a fact however long, so that addresses can be copied.
        screen.width = 1_000
    screen.print(_line(f"{found.asked} is {found.meaning}.", "bold"))
    if down or not found.about_photographs:
        _show_versions(screen, found)
    for start in found.starts:
        node = found.lineage.nodes[start]
        if node.kind is Kind.MODEL:
            continue
        if up and node.kind is Kind.IMAGE and not down:
            screen.print(_line("It is where everything begins: nothing is known of what it was made from."))
        elif up and node.kind is not Kind.IMAGE:
            _print(screen, "Made from", [above(found.lineage, start)])
        if down:
            _print(screen, "What was made of it", [below(found.lineage, start)])
    if any(found.lineage.nodes[start].kind is Kind.MODEL for start in found.starts):
        _print(screen, "Everything made for it", of_model(found.lineage))


def _show_versions(screen: Console, found: Trace) -> None:
    from lora_pipeline.lineage.wording import live, membership

    versions = found.lineage.versions
    trained = "Versions trained with it" if found.about_photographs else "Versions"
    if versions:
        screen.print(_line(f"\n{trained}", "bold"))
    for node in versions[:_MOST]:
        facts = node.facts
        simulated = ", SIMULATED" if facts["simulated"] else ""
        screen.print(
            _line(f"  {node.label}", "green" if facts["live"] else "").append(
                f"  {live(facts)}, weights {facts['weights']}{simulated}", "default"
            )
        )
        for address in facts["weights_at"]:
            screen.print(_line(f"      {address}", "dim"))
    if len(versions) > _MOST:
        screen.print(_line(f"  and {len(versions) - _MOST} more (all of them: --json)"))
    if found.about_photographs and not versions:
        screen.print(_line("\nNo version was trained with it.", "bold"))
    for edge in found.left_out:
        screen.print(_line(f"  {found.lineage.nodes[edge.target].label}: {membership(edge)}"))


def _print(screen: Console, title: str, branches: list[Branch]) -> None:
    from rich.tree import Tree

    screen.print(_line(f"\n{title}", "bold"))
    for branch in branches:
        tree = Tree(_of(branch, screen), guide_style="dim", highlight=False)
        _grow(tree, branch, screen)
        screen.print(tree)


def _grow(tree: Tree, branch: Branch, screen: Console) -> None:
    for one in branch.branches:
        _grow(tree.add(_of(one, screen)), one, screen)
    if branch.untold:
        tree.add(_line(f"and {branch.untold} older ones (all of them: --json)", "dim"))
    for carried, words in ((True, "photographs trained on"), (False, "left out")):
        hashes = [edge.source.partition(":")[2][:_HASH_DIGITS] for edge in branch.photographs]
        some = [
            digits for digits, edge in zip(hashes, branch.photographs, strict=True) if edge.carries is carried
        ]
        if some:
            tree.add(_line(f"{len(some)} {words}", _COLOURS["image"])).add(_line(" ".join(some), "dim"))


def _of(branch: Branch, screen: Console) -> Text:
    from lora_pipeline.lineage.wording import about, details

    label = branch.node.label
    if screen.is_terminal and len(label) > _LONGEST_LABEL:
        # Whole it stands with its version, and in a pipe.
        label = f"{label[: _LONGEST_LABEL // 3]}…{label[-_LONGEST_LABEL * 2 // 3 :]}"
    text = _line(label, f"bold {_COLOURS[branch.node.kind]}")
    if branch.again:
        return text.append("  (see above)", "dim")
    said = [*details(branch.node), about(branch.via) if branch.via is not None else ""]
    words = ", ".join(one for one in said if one)
    return text.append(f"  {words}", "default") if words else text


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    # Text, not markup: an id may hold square brackets.
    return Text(text, style=style)
