"""What the simulated trainer makes of the ZIP in `input_images`: read under caps, never extracted.

The rules are the trainer's: images anywhere in the tree, jpg, jpeg, png and webp in any case; entries that start with
`__MACOSX/` or `._` are skipped, but a nested `dir/._x.jpg` is not and stops the captioner; bmp and gif are never
trained; a caption is the .txt of the same stem in the same folder.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
MAX_ENTRIES = 20_000
MAX_CAPTIONS = 200
MAX_CAPTION_BYTES = 4096


@dataclass(frozen=True)
class Seen:
    """What was in the ZIP; with an error the training fails."""

    images: int
    captions: dict[str, str]
    error: str | None = None


def refused(error: str, images: int = 0) -> Seen:
    """A ZIP that stops the trainer."""
    return Seen(images, {}, error)


def inspect(source: BinaryIO, minimum_images: int, name: str = "input_images") -> Seen:
    """Count the usable images and read the captions, at most a few kilobytes of each entry.

    `name` is what the trainer calls the dataset, for its words.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return _inspect(archive, minimum_images, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        return refused(f"Unable to unzip {name}: {error}")


def _inspect(archive: zipfile.ZipFile, minimum_images: int, name: str) -> Seen:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        return refused(f"{name} has {len(entries)} entries, more than {MAX_ENTRIES}")
    kept = [e for e in entries if not e.is_dir() and not e.filename.startswith(("__MACOSX/", "._"))]
    images = [entry for entry in kept if entry.filename.lower().endswith(IMAGE_ENDINGS)]
    for entry in images:
        head = _head(archive, entry, 16)
        if not head.startswith(MAGIC):
            # The captioner opens each of them and stops at the first that is none.
            return refused(f"cannot identify image file '/src/{name}/{entry.filename}'", len(images))
    if len(images) < max(minimum_images, 0):
        return refused(
            f"Not enough training images: found {len(images)} jpg, jpeg, png or webp files in the zip, "
            f"expected at least {minimum_images}",
            len(images),
        )
    return Seen(len(images), _captions(archive, kept, images))


def _captions(
    archive: zipfile.ZipFile, kept: list[zipfile.ZipInfo], images: list[zipfile.ZipInfo]
) -> dict[str, str]:
    stems = {str(PurePosixPath(entry.filename).with_suffix("")) for entry in images}
    found: dict[str, str] = {}
    for entry in kept[:MAX_ENTRIES]:
        path = PurePosixPath(entry.filename)
        if path.suffix.lower() == ".txt" and str(path.with_suffix("")) in stems and len(found) < MAX_CAPTIONS:
            found[path.name] = _head(archive, entry, MAX_CAPTION_BYTES).decode("utf-8", "replace")
    return found


def _head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> bytes:
    with archive.open(entry) as file:
        return file.read(size)
