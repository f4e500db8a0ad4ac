"""What a pass over a place saw, in numbers. Rules only."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lora_pipeline.inventory.bucket_changes import Changes
from lora_pipeline.inventory.bucket_listing import Stretch


@dataclass(frozen=True, slots=True)
class Counts:
    """What a pass over a place saw."""

    files: int = 0
    """LoRA files that their keys lead to."""
    older: int = 0
    """Older versions of LoRA files, which the bucket keeps."""
    others: int = 0
    """Objects that are no LoRA files."""
    bytes: int = 0
    """Of the LoRA files, older versions not counted."""
    new: int = 0
    """Files under keys that were free."""
    changed: int = 0
    """Files under keys that had other bytes before."""
    overwritten: int = 0
    deleted: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})

    @classmethod
    def of(cls, stretch: Stretch, changes: Changes) -> Counts:
        """What one stretch adds to them."""
        current = [file for file in stretch.files if file.is_current]
        changed = sum(file.key in changes.known_keys for file in changes.new)
        marks = [*changes.marked, *changes.gone]
        return cls(
            files=len(current),
            older=len(stretch.files) - len(current),
            others=stretch.others,
            bytes=sum(file.size for file in current),
            new=len(changes.new) - changed,
            changed=changed,
            overwritten=sum(
                mark.overwritten_at is not None and mark.file.overwritten_at is None for mark in marks
            ),
            deleted=sum(mark.deleted_at is not None and mark.file.deleted_at is None for mark in marks),
        )
