"""The training ZIP: as fast as copying the photos, in flat memory, the same bytes each time.

Each run is a process of its own, so that peak memory is that run's. Plain copy is what obstore does by itself
with the bytes of the same files, in parts of the same size, to the same server. That server gives each connection
the speed that S3 gives one; what remains of the ratio against one at the speed of memory is told beside it.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from io import FileIO
from pathlib import Path
from shutil import disk_usage, rmtree
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lora_pipeline_tests.bench.rows import BenchRow

PHOTO_BYTES = 4_000_000
"""A 12-megapixel JPEG."""

FULL_BYTES, QUICK_BYTES = 2_000_000_000, 200_000_000
PAIRS = 3
S3_CONNECTION = 90_000_000
"""Bytes a second: AWS says to expect 85 to 90 MB/s of one connection, and to open several."""

MIB = 1024 * 1024
SPEED_BUDGET, MEMORY_BUDGET_MB = 0.8, 150


class Measured(NamedTuple):
    """One run: seconds from first byte read to last byte stored, MB above idle at the peak, the ZIP's key."""

    seconds: float
    megabytes: float
    key: str


def run(quick: bool, total: int | None = None) -> list[BenchRow]:
    """Measure with ``total`` bytes of photos (2 GB, or 200 MB when quick)."""
    total = total or (QUICK_BYTES if quick else FULL_BYTES)
    with TemporaryDirectory(prefix="lora-bench-", dir=_room_for(3 * total)) as folder:
        photos, stored = Path(folder) / "photos", Path(folder) / "s3"
        count = make_photos(photos, total)

        def measure(kind: str, photo_count: int) -> Measured:
            rmtree(stored, ignore_errors=True)
            return _child(kind, endpoint, photos, photo_count)

        with s3_server(stored, S3_CONNECTION) as endpoint:
            curve = [(n, measure("zip", n)) for n in (count // 4, count // 2)]
            # Plain copy and ZIP by turns: the machine is in the same mood for both.
            pairs = [(measure("plain", count), measure("zip", count)) for _ in range(1 if quick else PAIRS)]
            keys = [zipped.key for _, zipped in pairs] + [measure("reversed", count).key]
            identical = _identical(endpoint, keys)
        with s3_server(stored, 0) as endpoint:
            unlimited = measure("plain", count).seconds / measure("zip", count).seconds
    curve.append((count, pairs[0][1]))
    return [
        _speed_row(pairs, curve, unlimited),
        _memory_row(pairs, curve),
        _identity_row(identical, len(keys)),
    ]


def _speed_row(
    pairs: list[tuple[Measured, Measured]], curve: list[tuple[int, Measured]], unlimited: float
) -> BenchRow:
    plain, zipped = sorted(pairs, key=lambda pair: pair[0].seconds / pair[1].seconds)[len(pairs) // 2]
    ratio = plain.seconds / zipped.seconds
    speeds = ", ".join(
        f"{n * PHOTO_BYTES / 1e9:.2g} GB {n * PHOTO_BYTES / z.seconds / 1e6:.0f}" for n, z in curve
    )
    return BenchRow(
        what=f"ZIP of {curve[-1][0] * PHOTO_BYTES / 1e9:.2g} GB of photos to S3",
        measured=f"{zipped.seconds:.2f} s",
        baseline=f"plain copy {plain.seconds:.2f} s",
        ratio=ratio,
        budget=f"≥ {SPEED_BUDGET} × plain copy",
        ok=ratio >= SPEED_BUDGET,
        note=(
            f"MB/s: {speeds}; median of {len(pairs)} pairs; own S3 server here, {S3_CONNECTION / 1e6:.0f} MB/s a "
            f"connection (ratio without that limit: {unlimited:.2f})"
        ),
    )


def _memory_row(pairs: list[tuple[Measured, Measured]], curve: list[tuple[int, Measured]]) -> BenchRow:
    peak = max(zipped.megabytes for _, zipped in pairs)
    plain = max(plain.megabytes for plain, _ in pairs)
    sizes = ", ".join(f"{n * PHOTO_BYTES / 1e9:.2g} GB {z.megabytes:.0f}" for n, z in curve)
    return BenchRow(
        what="peak memory of it over idle",
        measured=f"{peak:.0f} MB",
        baseline=f"plain copy {plain:.0f} MB",
        ratio=peak / plain if plain else None,
        budget=f"≤ {MEMORY_BUDGET_MB} MB",
        ok=peak <= MEMORY_BUDGET_MB,
        note=f"MB: {sizes}",
    )


def _identity_row(identical: bool, times: int) -> BenchRow:
    return BenchRow(
        what="the same set, the same bytes",
        measured="identical" if identical else "DIFFERENT",
        baseline="",
        ratio=None,
        budget="byte-identical",
        ok=identical,
        note=f"{times} times, once given in reverse; read back from S3 it has the SHA-256 of its key",
    )


def _room_for(size: int) -> Path | None:
    """Memory if it is there, else the usual temporary folder: a disk's writing back would be most of what is measured."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and disk_usage(memory).free > size else None


def make_photos(folder: Path, total: int) -> int:
    """Files that no compression or deduplication could shorten, as JPEGs are."""
    folder.mkdir()
    noise = memoryview(os.urandom(4 * PHOTO_BYTES))
    count = max(4, total // PHOTO_BYTES)
    for number in range(count):
        start = number * 7919 % (3 * PHOTO_BYTES)
        with (folder / f"{number:05}.jpg").open("wb") as file:
            file.write(number.to_bytes(8, "big"))
            file.write(noise[start : start + PHOTO_BYTES - 8])
    os.sync()  # writing them out later would be charged to whichever run comes first
    return count


@contextmanager
def s3_server(folder: Path, bytes_per_second: int) -> Iterator[str]:
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "lora_pipeline_tests.bench.s3_disk_server",
            str(folder),
            str(bytes_per_second),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _child(kind: str, endpoint: str, photos: Path, count: int) -> Measured:
    command = [
        sys.executable,
        "-m",
        "lora_pipeline_tests.bench.zip_row",
        kind,
        endpoint,
        str(photos),
        str(count),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return Measured(*json.loads(done.stdout))


def _identical(endpoint: str, keys: list[str]) -> bool:
    from lora_pipeline.objects import open_store

    store = open_store("s3://bench", endpoint_url=endpoint, env=_ENV)
    digest = sha256()
    for piece in store.stream(keys[-1]):
        digest.update(piece)
    return {key.rpartition("/")[2] for key in keys} == {f"{digest.hexdigest()}.zip"}


_ENV = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


def _main(kind: str, endpoint: str, photos: str, count: str) -> None:
    """One run, in this process; prints Measured as JSON."""
    from lora_pipeline.archives import TrainingZipEntry, store_training_zip
    from lora_pipeline.objects import open_store

    paths = sorted(Path(photos).iterdir())[: int(count)]
    store = open_store("s3://bench", endpoint_url=endpoint, env=_ENV)
    store.put_bytes("warm-up", b"x")  # connections and threads are part of being idle
    idle = _memory("VmRSS")
    started = time.perf_counter()
    key = ""
    if kind == "plain":
        _copy(endpoint, paths)
    else:
        entries = [TrainingZipEntry(path.name, path.stat().st_size, partial(FileIO, path)) for path in paths]
        entries = entries[::-1] if kind == "reversed" else entries
        key = store_training_zip(store, os.urandom(16).hex(), entries).key
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, _memory("VmHWM") - idle, key]))


def _copy(endpoint: str, paths: list[Path]) -> None:
    import obstore
    from obstore.store import S3Store

    from lora_pipeline.objects.s3 import PART_SIZE, PARTS_AT_ONCE

    def pieces() -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                while piece := file.read(MIB):
                    yield piece

    store = S3Store(
        "bench",
        endpoint=endpoint,
        access_key_id="bench",
        secret_access_key="bench",
        client_options={"allow_http": True, "timeout": "1h"},
    )
    obstore.put(store, f"plain/{os.getpid()}", pieces(), chunk_size=PART_SIZE, max_concurrency=PARTS_AT_ONCE)


def _memory(field: str) -> float:
    """This process's memory in MB: VmRSS now, VmHWM at its peak. Elsewhere than on Linux the peak serves for both."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) * 1024 / 1e6


if __name__ == "__main__":
    _main(*sys.argv[1:])
