"""What the operating system's errors mean for an object store in a folder, and for a file that one is copied to."""

import errno
from pathlib import Path

from lora_pipeline.objects.errors import (
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreRefused,
    StoreUnavailable,
)


def explain_os_error(error: OSError, path: Path, *, writing: bool) -> ObjectStoreError:
    """The error to raise for ``error`` at ``path``. A path that does not exist is a fault only when reading."""
    address = path.as_uri()
    reason = error.strerror or str(error)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if not writing:
            return ObjectNotFound(address, "no such object", "Check the key, or store it first")
        case errno.ENOENT:
            return StoreRefused(
                address, f"its folder cannot be created ({reason})", "Choose a folder that can hold it"
            )
        case errno.ENOTDIR | errno.EISDIR | errno.ENOTEMPTY:
            return StoreRefused(
                address,
                f"a file and a folder would have the same name ({reason})",
                "Use a key that is no folder of another key, nor inside one",
            )
        case errno.EEXIST:
            return ObjectExists(
                address, "an object with this key exists", "Use another key, or keep what is there"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return StoreRefused(
                address, f"the disk is full ({reason})", "Free some space, or use a larger disk"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreRefused(address, f"not permitted ({reason})", "Give this user access to the folder")
        case errno.ENAMETOOLONG:
            return StoreRefused(
                address, "a part of the key is too long for a file", "Keep each part below 255 bytes"
            )
        case errno.ELOOP:
            return StoreRefused(address, "it is a symbolic link", "Replace it by a real file")
        case _:
            return StoreUnavailable(address, f"the disk failed ({reason})", "Check the disk, then try again")
