"""Where plans for trees of files lie: a folder each in the home, with the plan, its journal and its state.

`plan.json` is for people to review: one line a file. It is carried out as it was made; an edited one is refused.
`journal.jsonl` says what is about to be changed, before it is. `state.json` says how far the plan came.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from lora_pipeline.inventory.json_text import json_text
from lora_pipeline.inventory.legacy_tree import Skipped
from lora_pipeline.inventory.survivors import FieldChoice
from lora_pipeline.inventory.tree_plan import FilePlan, MergeGroup, Review, TreePlan
from lora_pipeline.objects.private_files import make_private_folder, write_private_file

_FORMAT = "training_versions deduplication plan 1"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
FOLDER = "dedupe"


class PlanRefused(Exception):
    """A plan may not be used like this; the message says why and what to do."""


class PlanNotFound(LookupError):
    """There is no plan of that id."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a journal: a file that is about to be replaced."""

    path: str
    before: str
    """SHA-256 of the file as it is."""
    after: str
    """SHA-256 of the file as it will be."""
    backup: str
    """Name of the backup beside it."""


class PlanStore:
    """The plans in one home. One that only observes keeps plans and carries none out."""

    def __init__(self, home: Path, *, observing: bool = False) -> None:
        self.folder = home / FOLDER
        self.observing = observing

    def save(self, plan: TreePlan, now: datetime) -> TreePlan:
        """Keep a plan under a new id; the plan with it."""
        plan = replace(
            plan, id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}", made_at=now.isoformat(timespec="seconds")
        )
        folder = self.folder / plan.id
        make_private_folder(folder)
        write_private_file(self.file(plan.id), _written(plan))
        return plan

    def load(self, plan_id: str) -> TreePlan:
        """The plan as it was made. PlanNotFound for an unknown id, PlanRefused for an edited file."""
        if not self.has(plan_id):
            raise PlanNotFound(
                f"there is no plan {plan_id!r} in {self.folder}. Make one: lora-pipeline dedupe --base-dir DIR"
            )
        try:
            return _read(self.file(plan_id).read_text())
        except (KeyError, TypeError, ValueError) as error:
            raise PlanRefused(
                f"{self.file(plan_id)} is not the plan that was made ({type(error).__name__}). A plan is carried "
                "out as it was made: make a new one with lora-pipeline dedupe --base-dir DIR"
            ) from error

    def has(self, plan_id: str) -> bool:
        return _ID.fullmatch(plan_id) is not None and self.file(plan_id).is_file()

    def file(self, plan_id: str) -> Path:
        return self.folder / plan_id / "plan.json"

    @contextmanager
    def locked(self, plan_id: str) -> Iterator[None]:
        """One process at a time works on a plan; the second waits."""
        descriptor = os.open(self.folder / plan_id, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def state(self, plan_id: str) -> str:
        """`planned`, `applying`, `applied`, `undoing` or `undone`."""
        try:
            return str(json.loads((self.folder / plan_id / "state.json").read_text())["state"])
        except FileNotFoundError:
            return "planned"

    def set_state(self, plan_id: str, state: str, now: datetime) -> None:
        content = json.dumps({"state": state, "at": now.isoformat(timespec="seconds")})
        write_private_file(self.folder / plan_id / "state.json", iter([content.encode()]))

    def journal(self, plan_id: str) -> dict[str, Change]:
        """What was about to be changed, by path. A last line that a crash cut off was never acted on."""
        try:
            lines = (self.folder / plan_id / "journal.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            try:
                change = Change(**json.loads(line))
            except (TypeError, ValueError):
                continue
            found[change.path] = change
        return found

    def write_ahead(self, plan_id: str, changes: Iterable[Change]) -> None:
        """Add to the journal; on the disk when this returns."""
        path = self.folder / plan_id / "journal.jsonl"
        # The line break first: it ends a line that a crash cut off.
        content = "".join(f"\n{json.dumps(asdict(change), ensure_ascii=True)}" for change in changes)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode())
            file.flush()
            os.fsync(descriptor)


def plan_facts(plan: TreePlan) -> dict[str, Any]:
    """The plan as JSON: what its file holds, and what `--json` shows."""
    return {**_summary(plan), "files": [_file_facts(file) for file in plan.files]}


def _summary(plan: TreePlan) -> dict[str, Any]:
    """All of the plan but its files."""
    return {
        "format": _FORMAT,
        "id": plan.id,
        "made_at": plan.made_at,
        "base_dir": plan.base,
        "files_read": plan.files_read,
        "entries_read": plan.entries_read,
        "duplicate_groups": plan.groups,
        "entries_to_remove": plan.removed,
        "review": [
            {"paths": list(review.paths), "ids": list(review.ids), "reason": review.reason}
            for review in plan.reviews
        ],
        "skipped": [{"path": skipped.path, "reason": skipped.reason} for skipped in plan.skipped],
    }


def _file_facts(file: FilePlan) -> dict[str, Any]:
    return {
        "path": file.path,
        "sha256": file.sha256,
        "entries": file.entries,
        "groups": [_group_facts(group) for group in file.groups],
    }


def _group_facts(group: MergeGroup) -> dict[str, Any]:
    return {
        "survivor": group.survivor_id,
        "base": group.base,
        "entries": dict(zip(map(str, group.members), group.ids, strict=True)),
        "merged_ids": list(group.merged_ids),
        "fields": {
            choice.field: {
                "from": choice.source,
                "because": choice.reason,
                **({"value": value} if value else {}),
            }
            for choice, value in zip(group.fields, group.values, strict=True)
        },
    }


def _written(plan: TreePlan) -> Iterator[bytes]:
    """The plan's file, a piece at a time, with the digest of all that stands before it as its last member."""
    seen = sha256()
    for piece in _pieces(plan):
        seen.update(piece)
        yield piece
    yield f',\n "sha256": "{seen.hexdigest()}"\n}}\n'.encode()


def _pieces(plan: TreePlan) -> Iterator[bytes]:
    head = json_text(_summary(plan), indent=1).removesuffix("\n}")
    yield f'{head},\n "files": [\n'.encode()
    separator = ""
    for file in plan.files:
        yield f"{separator}{json_text(_file_facts(file))}".encode()
        separator = ",\n"
    yield b"\n ]"


def _read(text: str) -> TreePlan:
    body, separator, end = text.rpartition(',\n "sha256": "')
    if not separator or sha256(body.encode()).hexdigest() != end.split('"')[0]:
        raise ValueError("the digest does not fit")
    facts = json.loads(text)
    return TreePlan(
        base=facts["base_dir"],
        files_read=facts["files_read"],
        entries_read=facts["entries_read"],
        files=tuple(
            FilePlan(
                file["path"],
                file["sha256"],
                file["entries"],
                tuple(_group(group) for group in file["groups"]),
            )
            for file in facts["files"]
        ),
        reviews=tuple(
            Review(tuple(item["paths"]), tuple(item["ids"]), item["reason"]) for item in facts["review"]
        ),
        skipped=tuple(Skipped(item["path"], item["reason"]) for item in facts["skipped"]),
        id=facts["id"],
        made_at=facts["made_at"],
    )


def _group(facts: dict[str, Any]) -> MergeGroup:
    return MergeGroup(
        survivor_id=facts["survivor"],
        base=facts["base"],
        members=tuple(int(index) for index in facts["entries"]),
        ids=tuple(facts["entries"].values()),
        fields=tuple(
            FieldChoice(name, choice["from"], choice["because"]) for name, choice in facts["fields"].items()
        ),
        merged_ids=tuple(facts["merged_ids"]),
        values=tuple(choice.get("value", "") for choice in facts["fields"].values()),
    )
