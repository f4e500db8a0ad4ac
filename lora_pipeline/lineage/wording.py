"""What people read about a node or an edge: a few short words each. Programs read the facts instead.

Only letters that a picture's built-in font has: no arrows, no multiplication signs.
"""

from __future__ import annotations

from typing import Any

from lora_pipeline.lineage.graph import Edge, Kind, Node

_SHORT = 12
SIMULATED = "SIMULATED"
PLURALS = {
    Kind.IMAGE: "photographs",
    Kind.SET: "image sets",
    Kind.ZIP: "ZIPs",
    Kind.RUN: "trainings",
    Kind.VERSION: "versions",
    Kind.ARTIFACT: "weights",
    Kind.OBJECT: "stored objects",
    Kind.MODEL: "models",
}


def details(node: Node) -> list[str]:
    """What is worth knowing of a node besides its label, the most important first."""
    facts = node.facts
    match node.kind:
        case Kind.IMAGE:
            size = f"{facts['width']} by {facts['height']}" if facts["width"] else ""
            found = [" ".join(filter(None, [size, facts["format"]]))]
        case Kind.SET:
            found = [facts["model"], _of_images(facts), _external(facts), _digest(facts)]
        case Kind.ZIP:
            found = [_size(facts["size"]), "deleted since" if facts["deleted"] else "still stored"]
        case Kind.RUN:
            found = _of_run(facts)
        case Kind.VERSION:
            found = _of_version(facts)
        case Kind.ARTIFACT:
            rank = f"rank {facts['rank']}" if facts["rank"] else ""
            found = [f"AutoV2 {facts['autov2']}", _size(facts["size"]), rank]
        case Kind.OBJECT:
            found = [] if facts["seen"] else ["as its entry says; nobody has looked"]
        case Kind.MODEL:
            found = [f"trigger word {facts['trigger_word']}"]
    return [one for one in found if one]


def about(edge: Edge) -> str:
    """What is worth saying of how the target came about through the source; mostly nothing."""
    facts = edge.facts
    if facts.get("verdict") is not None:
        return membership(edge)
    if facts.get("overwritten_at"):
        return f"until it was overwritten {day(facts['overwritten_at'])}"
    if facts.get("deleted_at"):
        return f"until it was deleted {day(facts['deleted_at'])}"
    if facts.get("periods"):
        return f"served {'; '.join(_period(one) for one in facts['periods'])}"
    return ""


def membership(edge: Edge) -> str:
    """A photograph's place in a set."""
    facts = edge.facts
    if facts["included"]:
        return f"in it as {facts['number']}" if facts["number"] else "in it"
    if facts["verdict"] != "excluded":
        return "in it, not checked yet"
    why = ", ".join(reason.replace("_", " ") for reason in facts["reasons"])
    by_hand = "by hand" if facts["chosen_by_hand"] else ""
    return f"left out ({why or by_hand or 'by the checks'}): not trained on"


def minute(moment: str | None) -> str:
    """A time as it is shown: to the minute, UTC."""
    return moment[:16].replace("T", " ") if moment else ""


def day(moment: str | None) -> str:
    return moment[:10] if moment else ""


def counted(number: int, kind: Kind) -> str:
    """`3 versions`, `1 version`."""
    words = PLURALS[kind]
    return f"{number} {words.removesuffix('s') if number == 1 and kind is not Kind.ARTIFACT else words}"


def live(facts: Any) -> str:
    """Whether and since when a version is served."""
    if facts["live"]:
        return f"live since {minute(facts['live_since'])}{', pinned' if facts['pinned'] else ''}"
    if facts["served"]:
        return f"live until {minute(facts['served'][-1]['to'])}"
    return "never live"


def _of_images(facts: Any) -> str:
    if facts["state"] != "ready":
        return f"{facts['images']} photographs, not frozen yet"
    return f"{facts['usable']} of {facts['images']} photographs"


def _external(facts: Any) -> str:
    return f"external id {facts['external_id']}" if facts["external_id"] else ""


def _digest(facts: Any) -> str:
    return f"digest {facts['digest'][:_SHORT]}" if facts["digest"] else ""


def _of_run(facts: Any) -> list[str]:
    job = f"{facts['provider']} {facts['training_id'] or 'without a job'}"
    state = f"{facts['state']} {minute(facts['completed_at'])}".strip()
    reason = str(facts["reason"] or "")
    return [state, job, f"attempt {facts['attempt']}", reason, SIMULATED if facts["simulated"] else ""]


def _of_version(facts: Any) -> list[str]:
    if facts["merged_into"]:
        return [f"merged into {facts['merged_into']}"]
    simulated = SIMULATED if facts["simulated"] else ""
    owner, _, digits = str(facts["provider_version"] or "").partition(":")
    merged = f"{', '.join(facts['merged'])} merged into it" if facts["merged"] else ""
    version = f"{owner}:{digits[:_SHORT]}" if digits else ""
    return [live(facts), f"weights {facts['weights']}", merged, simulated, version]


def _period(period: Any) -> str:
    return f"{minute(period['from'])} to {minute(period['to']) or 'now'}"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
