"""Files that are not what they should be: named, skipped, untouched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_tree import MAX_BYTES, FileRefused, LegacyTree, Skipped
from lora_pipeline.inventory.plan_store import PlanStore
from lora_pipeline.inventory.tree_deduplication import apply_plan, plan_tree
from lora_pipeline_tests.inventory.trees import NAME, SYNCED_ENTRY, WEBHOOK_ENTRY, style_file, write

BOTH = {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]}
TEXT = json.dumps(BOTH)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    assert path.stat().st_size > MAX_BYTES


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "invalid JSON": (lambda path: path.write_text(TEXT[:-5]), "invalid JSON"),
    "empty": (lambda path: path.write_text(""), "invalid JSON"),
    "NaN": (lambda path: path.write_text('{"versions": [], "x": NaN}'), "NaN"),
    "an array": (lambda path: path.write_text(json.dumps(BOTH["versions"])), "a JSON array"),
    "no versions": (lambda path: path.write_text('{"version": []}'), 'no list of "versions"'),
    "a key twice": (
        lambda path: path.write_text(TEXT.replace('"id":', '"id": "other", "id":', 1)),
        "the key 'id' twice",
    ),
    "nested": (lambda path: path.write_text('{"versions": ' + "[" * 200_000), "too deeply"),
    "huge": (_huge, "bytes"),
    "latin-1": (lambda path: path.write_bytes(TEXT.replace("V7", "Gr\xfcn").encode("latin-1")), "not UTF-8"),
    "utf-16": (lambda path: path.write_bytes(TEXT.encode("utf-16")), "byte order mark"),
    "byte order mark": (lambda path: path.write_bytes(TEXT.encode("utf-8-sig")), "byte order mark"),
    "no id": (
        lambda path: path.write_text(json.dumps({"versions": [*BOTH["versions"], {"name": "V1"}]})),
        "entry 3 has no id",
    ),
    "no object": (lambda path: path.write_text('{"versions": [7]}'), "entry 1 is no object"),
    "a pipe": (lambda path: os.mkfifo(path), "not a regular file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_skipped_and_the_good_one_is_planned(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    good = write(style_file(tmp_path, 2), BOTH)
    bad = style_file(tmp_path, 1)
    bad.parent.mkdir()
    make(bad)
    plan = plan_tree(tmp_path, ObjectUrlRules())
    (skipped,) = plan.skipped
    assert skipped.path == str(bad.relative_to(tmp_path))
    assert reason in skipped.reason
    assert [file.path for file in plan.files] == [str(good.relative_to(tmp_path))]


def test_no_link_leads_out_of_the_base_folder(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / NAME, BOTH)
    base = tmp_path / "base"
    (base / "1_file").mkdir(parents=True)
    (base / "1_file" / NAME).symlink_to(outside)
    (base / "2_folder").symlink_to(outside.parent)
    (base / "3_elsewhere").symlink_to(tmp_path)
    plan = plan_tree(base, ObjectUrlRules())
    assert plan.files == ()
    assert [skipped.path for skipped in plan.skipped] == ["2_folder", f"1_file/{NAME}"]
    assert all("symbolic link" in skipped.reason for skipped in plan.skipped)


@pytest.mark.parametrize(
    "path",
    [f"../outside/{NAME}", f"a/../../outside/{NAME}", f"2_folder/{NAME}", "a/other.json", f"/outside/{NAME}"],
)
def test_a_path_from_a_plan_cannot_leave_the_base_folder(tmp_path: Path, path: str) -> None:
    outside = write(tmp_path / "outside" / NAME, BOTH)
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    (base / "2_folder").symlink_to(outside.parent)
    with LegacyTree(base) as tree, pytest.raises(FileRefused):
        tree.read(path)


def test_a_base_folder_that_is_a_link_is_what_was_asked_for(tmp_path: Path) -> None:
    write(style_file(tmp_path / "real", 1), BOTH)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert plan_tree(tmp_path / "link", ObjectUrlRules()).groups == 1


@pytest.fixture
def as_somebody() -> Iterator[Path]:
    """A folder, worked on as an account that is not the superuser's: file modes mean nothing to that one."""
    folder = Path(tempfile.mkdtemp(prefix="lora-"))
    folder.chmod(0o777)
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if superuser:
            os.seteuid(0)
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def test_folders_that_cannot_be_read_or_written_are_named_and_the_others_go_on(as_somebody: Path) -> None:
    base, store = as_somebody / "tree", PlanStore(as_somebody / "home")
    unreadable, unwritable, good = (write(style_file(base, number), BOTH) for number in (1, 2, 3))
    unreadable.parent.chmod(0)
    unwritable.parent.chmod(0o555)
    content = unwritable.read_bytes()
    plan = store.save(plan_tree(base, ObjectUrlRules()), datetime.now(UTC))
    result = apply_plan(store, plan, lambda: datetime.now(UTC))
    assert plan.skipped == (
        Skipped(str(unreadable.parent.relative_to(base)), "a folder that cannot be read: Permission denied"),
    )
    assert result.changed == 1
    assert result.refused == (
        Skipped(str(unwritable.relative_to(base)), "cannot be written: Permission denied"),
    )
    assert unwritable.read_bytes() == content
    assert list(unwritable.parent.iterdir()) == [unwritable]
    assert len(json.loads(good.read_text())["versions"]) == 1
