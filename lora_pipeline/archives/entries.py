"""What may stand in a training ZIP, and the error that says why one could not be made.

The rules are the trainers': images are found by extension in lower case, a caption is the ``.txt`` with the image's
stem in the same folder, hidden files crash the captioner, and what is not jpg, jpeg, png or webp gets captioned and
never trained. So: a flat list of plain ASCII names, at most one caption an image.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lora_pipeline.objects import Chunks

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")

_NAME = re.compile(r"(?P<stem>[A-Za-z0-9][A-Za-z0-9_-]{0,99})\.(?P<extension>[a-z]+)")


class TrainingZipError(Exception):
    """The training ZIP could not be made or stored; ``str()`` gives the cause and the remedy."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"Failed to create training ZIP: {self.cause}. {self.remedy}"


@dataclass(frozen=True)
class TrainingZipEntry:
    """One file of the ZIP. ``open`` gives its bytes from the start each time: it may be called more than once.

    ``size`` in bytes must be exact, since it stands before the bytes. Where ``crc32`` is known the bytes need not be
    read to find it; either way bytes that do not match are an error, never a damaged ZIP.
    """

    name: str
    size: int
    open: Callable[[], Chunks]
    crc32: int | None = None


@dataclass(frozen=True)
class TrainingImage:
    """A normalised image on its way into the ZIP, and its caption as it shall be written (None for none)."""

    size: int
    open: Callable[[], Chunks]
    caption: str | None = None
    extension: str = "jpg"
    crc32: int | None = None


def entries_of(images: Sequence[TrainingImage]) -> list[TrainingZipEntry]:
    """Number the images in their order: ``000.jpg`` with ``000.txt``, wider numbers from a thousand images on."""
    width = max(3, len(str(len(images) - 1)))
    entries = []
    for number, image in enumerate(images):
        stem = f"{number:0{width}}"
        entries.append(TrainingZipEntry(f"{stem}.{image.extension}", image.size, image.open, image.crc32))
        if image.caption is not None:
            entries.append(_caption_entry(stem, image.caption))
    return entries


def _caption_entry(stem: str, caption: str) -> TrainingZipEntry:
    text = caption.encode()
    return TrainingZipEntry(f"{stem}.txt", len(text), lambda: [text])


def check_entries(entries: Iterable[TrainingZipEntry]) -> list[TrainingZipEntry]:
    """The entries in the order of their names, or TrainingZipError naming every one that may not be there."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    names = [entry.name for entry in ordered]
    problems = [problem for name in names if (problem := _name_problem(name)) is not None]
    if not problems:
        problems = _set_problems(names)
    problems += [f"{entry.name!r} is empty" for entry in ordered if entry.size <= 0]
    if problems:
        raise TrainingZipError(
            "; ".join(problems), "Give each image one plain name such as 000.jpg, and its caption as 000.txt"
        )
    return ordered


def _name_problem(name: str) -> str | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return f"{name!r} is not a plain file name in ASCII with an extension in lower case"
    if match["extension"] not in (*IMAGE_EXTENSIONS, "txt"):
        return f"{name!r} is neither an image that trainers read ({', '.join(IMAGE_EXTENSIONS)}) nor a caption (txt)"
    return None


def _set_problems(names: Iterable[str]) -> list[str]:
    images: dict[str, str] = {}
    captions: dict[str, str] = {}
    problems = []
    for name in names:
        stem, _, extension = name.rpartition(".")
        of_its_kind = captions if extension == "txt" else images
        # Without regard to case: a trainer may unpack where the file system has none.
        if (other := of_its_kind.get(stem.lower())) is not None:
            problems.append(f"{other!r} and {name!r} have the same stem")
        of_its_kind[stem.lower()] = name
    problems += [f"{name!r} belongs to no image" for stem, name in captions.items() if stem not in images]
    return problems if images else [*problems, "there is no image in it"]
