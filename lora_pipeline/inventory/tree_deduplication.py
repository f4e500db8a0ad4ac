"""Deduplicate a tree of training_versions.json files: plan, apply, undo.

A plan has no effect but its own file. Applying writes the journal first, looks again at each file, replaces it
in one step and keeps the old one as a numbered backup; whatever happens meanwhile, a file is the old one or the
new one, and the same command goes on where it ended.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from lora_pipeline.database.observing import Observing, observing_says
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entries import Addresses
from lora_pipeline.inventory.legacy_file import TOO_DEEP, obstacles, parse_file
from lora_pipeline.inventory.legacy_tree import (
    FileRefused,
    LegacyTree,
    Skipped,
    digest,
    drop_unused_backup,
    locked,
    next_backup,
    read_in,
    replace_in,
    restore_in,
)
from lora_pipeline.inventory.plan_store import Change, PlanRefused, PlanStore
from lora_pipeline.inventory.tree_plan import AcrossFiles, FilePlan, Review, TreePlan, plan_file, render

_Item = TypeVar("_Item")

_CHUNK = 256
_CHUNK_BYTES = 32 * 1024 * 1024
"""A chunk's new texts are in memory together: files near the size limit go a few at a time."""
# Waiting for the disk is most of the work: several at once share its journal's commits, many get into each other's way.
_WRITERS = 8


@dataclass(frozen=True, slots=True)
class TreeResult:
    """What applying or undoing a plan did."""

    plan_id: str
    state: str
    changed: int = 0
    """Files replaced now."""
    already: int = 0
    """Files that were as they should be before we came."""
    refused: tuple[Skipped, ...] = field(default=())
    """Files left alone, with the reason."""


@dataclass(slots=True)
class _Tally:
    changed: int = 0
    already: int = 0
    refused: list[Skipped] = field(default_factory=list)

    def take(self, outcomes: Iterable[bool | Skipped]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Skipped):
                self.refused.append(outcome)
            elif outcome:
                self.changed += 1
            else:
                self.already += 1

    def as_result(self, plan_id: str, state: str) -> TreeResult:
        return TreeResult(plan_id, state, self.changed, self.already, tuple(self.refused))


class _Prepared(NamedTuple):
    change: Change
    content: bytes


def plan_tree(base: Path, rules: ObjectUrlRules) -> TreePlan:
    """What would be done to the files under `base`. Reads only."""
    files: list[FilePlan] = []
    reviews: list[Review] = []
    skipped: list[Skipped] = []
    across, addresses = AcrossFiles(), Addresses(rules)
    read = entries = 0
    with LegacyTree(base) as tree, _without_collector():
        for found in tree.find():
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            try:
                planned, doubtful = _plan(tree, found, addresses, across)
            except FileRefused as refused:
                skipped.append(Skipped(found, str(refused)))
                continue
            except RecursionError:
                skipped.append(Skipped(found, TOO_DEEP))
                continue
            read, entries = read + 1, entries + planned.entries
            reviews += doubtful
            if planned.groups:
                files.append(planned)
        return TreePlan(
            base=str(tree.base),
            files_read=read,
            entries_read=entries,
            files=tuple(files),
            reviews=(*reviews, *across.reviews.values()),
            skipped=tuple(skipped),
        )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Entries and plans hold no cycles: looking for some among a million of them, again and again, frees nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plan(
    tree: LegacyTree, path: str, addresses: Addresses, across: AcrossFiles
) -> tuple[FilePlan, list[Review]]:
    file = parse_file(path, tree.read(path))
    problems = obstacles(file)
    if problems:
        raise FileRefused("; ".join(problems[:3]))
    return plan_file(file, addresses, across)


def apply_plan(store: PlanStore, plan: TreePlan, now: Callable[[], datetime]) -> TreeResult:
    """Carry out a stored plan. Files that changed since are refused, the others go on.

    Safe to repeat, to kill and to run twice at once. PlanRefused for a plan that was undone, and Observing.
    """
    if store.observing:
        raise Observing(observing_says(f"plan {plan.id} was not carried out"))
    with store.locked(plan.id), _opened(plan) as tree:
        state = store.state(plan.id)
        if state in ("undoing", "undone"):
            raise PlanRefused(
                f"plan {plan.id} is {state}. Make a new one: lora-pipeline dedupe --base-dir {plan.base}"
            )
        if state != "applied":
            store.set_state(plan.id, "applying", now())
        known = store.journal(plan.id)
        result = _Tally()
        with ThreadPoolExecutor(_WRITERS) as writers:
            written: Iterable[bool | Skipped] = ()
            for prepared in _chunks(tree, plan.files, known, result):
                new = [item.change for item in prepared if item.change != known.get(item.change.path)]
                if new:
                    store.write_ahead(plan.id, new)
                # These are written while the next chunk's texts are made.
                before, written = (
                    written,
                    writers.map(lambda item: _attempt(item.change.path, _replace, tree, item), prepared),
                )
                result.take(before)
            result.take(written)
        if state != "applied":
            store.set_state(plan.id, "applied", now())
        return result.as_result(plan.id, "applied")


def undo_plan(store: PlanStore, plan_id: str, now: Callable[[], datetime]) -> TreeResult:
    """Bring back every byte of the files that a plan changed; those changed since are refused.

    Safe to repeat and to kill. PlanRefused for a plan that was never applied.
    """
    plan = store.load(plan_id)
    with store.locked(plan_id), _opened(plan) as tree:
        if store.state(plan_id) == "planned":
            raise PlanRefused(f"plan {plan_id} was never applied: there is nothing to undo")
        store.set_state(plan_id, "undoing", now())
        result = _Tally()
        with ThreadPoolExecutor(_WRITERS) as writers:
            changes = list(store.journal(plan_id).values())
            result.take(writers.map(lambda change: _attempt(change.path, _restore, tree, change), changes))
        if not result.refused:
            store.set_state(plan_id, "undone", now())
        return result.as_result(plan_id, store.state(plan_id))


def _opened(plan: TreePlan) -> LegacyTree:
    try:
        return LegacyTree(Path(plan.base))
    except OSError as error:
        raise PlanRefused(
            f"{plan.base}, which plan {plan.id} is of, cannot be opened: {error.strerror}. Nothing was changed"
        ) from error


def _chunks(
    tree: LegacyTree, plans: Sequence[FilePlan], known: dict[str, Change], result: _Tally
) -> Iterator[list[_Prepared]]:
    """The files to replace, with their new texts. Those that are done already or may not be touched are counted."""
    chunk: list[_Prepared] = []
    size = 0
    for plan in plans:
        outcome = _prepare(tree, plan, known.get(plan.path))
        if not isinstance(outcome, _Prepared):
            result.take([outcome])
            continue
        chunk.append(outcome)
        size += len(outcome.content)
        if len(chunk) == _CHUNK or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _prepare(tree: LegacyTree, plan: FilePlan, change: Change | None) -> _Prepared | Skipped | bool:
    """The new text of a file and its line for the journal. False where it is done, Skipped where it may not be."""
    try:
        with tree.file_folder(plan.path) as folder:
            content = read_in(folder)
            found = digest(content)
            if change is not None and found == change.after:
                return False
            if found != plan.sha256:
                raise FileRefused("changed since the plan was made; plan again")
            after = render(parse_file(plan.path, content), plan).encode()
            backup = next_backup(folder) if change is None else change.backup
    except (FileRefused, OSError) as error:
        return Skipped(plan.path, str(error))
    except RecursionError:
        return Skipped(plan.path, TOO_DEEP)
    return _Prepared(Change(plan.path, found, digest(after), backup), after)


def _replace(tree: LegacyTree, item: _Prepared) -> bool:
    with tree.file_folder(item.change.path) as folder, locked(folder):
        found = digest(read_in(folder))
        if found == item.change.after:
            return False
        if found != item.change.before:
            raise FileRefused("changed while the plan was applied; plan again")
        replace_in(folder, item.content, item.change.backup)
    return True


def _restore(tree: LegacyTree, change: Change) -> bool:
    with tree.file_folder(change.path) as folder, locked(folder):
        found = digest(read_in(folder))
        if found == change.before:
            drop_unused_backup(folder, change.backup)
            return False
        if found != change.after:
            raise FileRefused(
                f"changed since the plan was applied; the file as it was before is {change.backup} beside it"
            )
        restore_in(folder, change.backup, change.before)
    return True


def _attempt(
    path: str, act: Callable[[LegacyTree, _Item], bool], tree: LegacyTree, item: _Item
) -> bool | Skipped:
    try:
        return act(tree, item)
    except FileRefused as refused:
        return Skipped(path, str(refused))
    except OSError as error:
        return Skipped(path, f"cannot be written: {error.strerror}")
