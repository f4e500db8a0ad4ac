"""Files that are not what they should be: named, skipped, untouched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_tree import MAX_BYTES, FileRefused, LegacyTree
from lora_pipeline.inventory.tree_deduplication import plan_tree
from lora_pipeline_tests.cli.conftest import Run
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
    "latin-1": (
        lambda path: path.write_bytes(TEXT.replace("V7", "Gr\xfcn").encode("latin-1")),
        "in another encoding than UTF-8 (byte ",
    ),
    "utf-16": (lambda path: path.write_bytes(TEXT.encode("utf-16")), "in UTF-16"),
    "byte order mark": (
        lambda path: path.write_bytes(TEXT.encode("utf-8-sig")),
        "in UTF-8 with a byte order mark",
    ),
    "no id": (
        lambda path: path.write_text(json.dumps({"versions": [*BOTH["versions"], {"name": "V1"}]})),
        "entry 3 has no id",
    ),
    "an id that is no text": (
        lambda path: path.write_text(json.dumps({"versions": [{**WEBHOOK_ENTRY, "id": 7}]})),
        "entry 1 has the id 7; expected a text that is not empty",
    ),
    "a key that reads as a parameter": (
        lambda path: path.write_text(json.dumps({"versions": [{"id": "a", "parameters.rank": 7}]})),
        "'parameters.rank'",
    ),
    "merged ids that are none": (
        lambda path: path.write_text(json.dumps({"versions": [{"id": "a", "mergedIds": "b"}]})),
        "no list of ids",
    ),
    "no object": (lambda path: path.write_text('{"versions": [7]}'), "entry 1 is no object"),
    "a number of 5,000 digits": (
        lambda path: path.write_text('{"versions": [], "x": ' + "7" * 5_000 + "}"),
        "a number of thousands of digits",
    ),
    "a pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "a folder": (lambda path: path.mkdir(), "a folder, not a file"),
}


ENTRIES = ("no id", "no object", "an id that is no text")
LOADED = ("a key that reads as a parameter", "merged ids that are none")


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
    # A link whose folder holds such files only further down is named too: they would be missed without a word.
    assert [skipped.path for skipped in plan.skipped] == ["2_folder", "3_elsewhere", f"1_file/{NAME}"]
    assert all("symbolic link" in skipped.reason for skipped in plan.skipped)


def test_the_commands_name_every_bad_file_and_leave_it_as_it_is(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade")
    base = tmp_path / "tree"
    write(style_file(base, 99), BOTH)
    for number, (make, _) in enumerate(BAD.values()):
        path = style_file(base, number)
        path.parent.mkdir()
        make(path)
    inside, outside = style_file(base, 100).parent, write(style_file(tmp_path / "outside", 101), BOTH)
    inside.symlink_to(style_file(base, 99).parent)
    style_file(base, 101).parent.symlink_to(outside.parent)
    before = _facts(tmp_path / "tree") | _facts(tmp_path / "outside")
    for command in (
        ("dedupe", "--base-dir", str(base)),
        ("import", "training-versions", str(base)),
        ("import", "training-versions", str(base), "--apply"),
        ("dedupe", "--base-dir", str(base), "--apply"),
    ):
        ended = run(*command)
        assert ended.code == Exit.ERROR
        for number, (name, (_, reason)) in enumerate(BAD.items()):
            lines = [line for line in ended.out.splitlines() if line.startswith(str(_relative(number)))]
            # An import goes on without the entry.
            expected = reason if command[0] == "dedupe" or name not in ENTRIES else "no object with an id"
            assert any(expected in line for line in lines) or name in LOADED, name
        assert ended.out.count("a symbolic link, which is not followed") == 2
    after = _facts(tmp_path / "tree") | _facts(tmp_path / "outside")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    good = style_file(base, 99)
    assert changed == {good, good.with_name(f"{NAME}.backup-1")}


def _relative(number: int) -> Path:
    return style_file(Path(), number)


def _facts(base: Path) -> dict[Path, object]:
    """Everything about each file that anybody could have touched."""
    return {
        path: (facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        for path in base.rglob("*")
        if not stat.S_ISDIR((facts := path.lstat()).st_mode)
    }


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


def test_folders_that_cannot_be_read_or_written_are_named_and_the_others_go_on(
    run: Run, as_somebody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_HOME", str(as_somebody / "home"))
    base = as_somebody / "tree"
    unreadable, unwritable, good = (write(style_file(base, number), BOTH) for number in (1, 2, 3))
    unreadable.parent.chmod(0)
    unwritable.parent.chmod(0o555)
    content = unwritable.read_bytes()
    ended = run("dedupe", "--base-dir", str(base), "--apply", "--json")
    assert ended.code == Exit.ERROR
    folder, file = str(unreadable.parent.relative_to(base)), str(unwritable.relative_to(base))
    assert ended.json["skipped"] == [
        {"path": folder, "reason": "a folder that cannot be read: Permission denied"}
    ]
    assert ended.json["refused"] == [{"path": file, "reason": "cannot be written: Permission denied"}]
    assert ended.json["changed"] == 1
    assert unwritable.read_bytes() == content
    assert list(unwritable.parent.iterdir()) == [unwritable]
    assert len(json.loads(good.read_text())["versions"]) == 1
    # When it can be written, the same plan goes on.
    unwritable.parent.chmod(0o755)
    assert run("dedupe", "--apply", "--plan", ended.json["plan_id"], "--json").json["changed"] == 1
    assert len(json.loads(unwritable.read_text())["versions"]) == 1
