"""Saving a streamed object as a file, the same way whichever store it comes from."""

from collections.abc import Iterator
from pathlib import Path

from lora_pipeline.objects.local_errors import explain_os_error
from lora_pipeline.objects.private_files import make_private_folder, write_private_file


def save_download(path: Path, pieces: Iterator[bytes]) -> None:
    """Write ``pieces`` to ``path``: complete or not at all. The disk's errors become ObjectStoreError."""
    try:
        make_private_folder(path.parent)
        write_private_file(path, pieces)
    except OSError as error:
        raise explain_os_error(error, path.absolute(), writing=True) from error
