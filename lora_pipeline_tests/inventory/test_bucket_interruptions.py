"""The inventory interrupted: cut off, at work twice, before a bucket in trouble. Nothing is lost, and the next run goes on."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from lora_pipeline.database.tables import InventoryPlace
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.inventory.bucket_inventory import (
    LEASE,
    Progress,
    RunBudget,
    find_work,
    inventory_places,
)
from lora_pipeline.inventory.bucket_pass import InventoryAtWork, list_place
from lora_pipeline.inventory.bucket_reading import ReadLimits
from lora_pipeline.inventory.bucket_report import InventoryReport
from lora_pipeline.objects.errors import StoreRefused, StoreUnavailable
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline_tests.bench.s3_listing_server import MemoryBucket
from lora_pipeline_tests.inventory.buckets import TestBucket, lora


def test_a_run_reads_as_much_as_it_may_and_the_next_one_goes_on(bucket: TestBucket) -> None:
    for seed in range(40):
        bucket.put(f"{seed:02}.safetensors", lora(seed))
    few = RunBudget(limits=ReadLimits(files=16))
    first = bucket.take(budget=few)
    assert (first.read, first.standings["waiting"], first.has_findings) == (16, 24, True)
    assert "16 files" in str(first.ended_early)
    assert "inventory --apply" in first.next_step
    assert (bucket.take(budget=few).read, bucket.take(budget=few).read) == (16, 8)
    assert bucket.take().standings["waiting"] == 0


class Cut(Exception):
    """Stands for the process's end: nothing catches it, and every transaction that is open is rolled back."""


def cut_after(calls: int) -> Progress:
    """A run that ends at its so-many-th sign of progress."""
    left = calls

    def sign(_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut

    return Progress(listed=sign, reading=sign, read=sign)


def test_a_run_cut_anywhere_leaves_nothing_half_and_the_next_one_completes(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for seed in range(7):
        held.put(f"{seed}.safetensors", lora(seed))
    cuts = 0
    for calls in range(20):
        try:
            bucket.take(progress=cut_after(calls))
        except Cut:
            cuts += 1
        else:
            break
        # Whatever was stored is true: nothing is gone, nothing is there twice.
        assert all(row.listed and row.deleted_at is None for row in bucket.rows())
        assert len({row.key for row in bucket.rows()}) == len(bucket.rows())
    assert cuts >= 4
    assert bucket.standings() == {f"{seed}.safetensors": "unregistered" for seed in range(7)}
    assert len(bucket.locations()) == len(bucket.reviews()) == 7


def test_a_listing_that_breaks_off_deletes_nothing_behind_it(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for name in "abcdef":
        held.put(f"{name}.safetensors", lora(ord(name)))
    bucket.take()
    for name in "bf":
        held.remove(f"{name}.safetensors")
    held.fails = lambda after: after >= "c"
    with pytest.raises(StoreUnavailable):
        bucket.take()
    assert [row.key for row in bucket.rows() if not row.listed] == ["b.safetensors"]

    held.fails = lambda _: False
    report = bucket.take()
    assert [row.key for row in bucket.rows() if not row.listed] == ["b.safetensors", "f.safetensors"]
    assert (report.counts.deleted, report.counts.files) == (2, 4), "the pass went on where it was cut"


def test_a_pass_goes_on_in_steps_and_sees_everything(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for seed in range(9):
        held.put(f"{seed}.safetensors", lora(seed))
    no_time = RunBudget(listing=timedelta(0))
    steps: list[InventoryReport] = []
    while not steps or not steps[-1].is_whole:
        steps.append(bucket.take(budget=no_time))
    assert [step.counts.files for step in steps] == [2, 4, 6, 8, 9]
    assert [step.has_findings for step in steps] == [True] * 5
    assert bucket.standings() == {f"{seed}.safetensors": "unregistered" for seed in range(9)}


def test_looking_writes_nothing_finds_the_first_change_and_wraps_around(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for seed in range(6):
        held.put(f"{seed}.safetensors", lora(seed))
    connections = bucket.connections
    first = find_work(connections, "")
    assert first.lease is not None
    assert "memory/ has changed" in first.explanation
    assert bucket.rows() == []
    busy = find_work(connections, first.cursor)
    assert (busy.lease, "at work already" in busy.explanation) == (None, True)
    bucket.take(lease=first.lease)

    assert (find_work(connections, "").lease, find_work(connections, "").cursor) == (None, "")
    connections.settings.tick_budget = timedelta(0)
    cursors = [""]
    while len(cursors) == 1 or cursors[-1]:
        cursors.append(find_work(connections, cursors[-1]).cursor)
    assert len(cursors) == 4, "two keys a step, three steps, and from the beginning again"
    held.put("5.safetensors", lora(99))
    assert find_work(connections, "").lease is None
    work = find_work(connections, cursors[2])
    assert (work.lease is not None, work.cursor) == (True, cursors[2])


def test_two_at_once_do_no_harm(memory_bucket: tuple[MemoryBucket, TestBucket]) -> None:
    held, bucket = memory_bucket
    for seed in range(30):
        held.put(f"{seed:02}.safetensors", lora(seed))
    connections = bucket.connections
    token = take_lease(connections.database, LEASE, timedelta(minutes=5), connections.now())
    with pytest.raises(InventoryAtWork):
        bucket.take()
    assert bucket.rows() == []

    # Both under one lease: as if the first had outlived it.
    ended: list[str] = []
    together = threading.Barrier(2)

    def run() -> None:
        together.wait()
        try:
            bucket.take(lease=token)
        except InventoryAtWork:
            ended.append("gave way")
        else:
            ended.append("done")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bucket.take()
    assert len(ended) == 2
    assert bucket.standings() == {f"{seed:02}.safetensors": "unregistered" for seed in range(30)}
    assert len(bucket.rows()) == len(bucket.locations()) == len(bucket.reviews()) == 30


def test_a_pass_that_another_process_moved_on_is_left_to_it(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for seed in range(4):
        held.put(f"{seed}.safetensors", lora(seed))
    connections = bucket.connections
    (place,) = inventory_places(connections)

    def other_moves_it(_: object) -> None:
        with connections.database.begin() as session:
            session.query(InventoryPlace).one().marker = "1.5"

    with pytest.raises(InventoryAtWork):
        list_place(connections.database, Buckets(), place, connections.now, lambda: True, other_moves_it)
    assert [row.key for row in bucket.rows()] == ["0.safetensors", "1.safetensors"]


def test_one_place_in_trouble_does_not_keep_the_others(bucket: TestBucket) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.connections.settings.inventory = f"s3://no-such-bucket-here, s3://{bucket.name}"
    report = bucket.take()
    assert [place.problem is None for place in report.places] == [True, False]
    assert "does not exist" in str(report.places[1].problem)
    assert (report.read, report.is_whole) == (1, False)
    bucket.connections.settings.inventory = "s3://no-such-bucket-here"
    with pytest.raises(StoreRefused, match="does not exist"):
        bucket.take()


def test_an_object_that_cannot_be_read_waits_behind_the_others_and_keeps_nobody(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    held.put("a.safetensors", lora(1))
    held.put("b.safetensors", lora(2))
    # Between listing and reading it is overwritten: what was listed is not what is there.
    listed = held.listing()
    held.files["a.safetensors"] = lora(3)
    report = bucket.take()
    assert [address for address, _ in report.failures] == ["s3://memory/a.safetensors"]
    assert (bucket.row("a.safetensors").tries, bucket.standing("b.safetensors")) == (1, "unregistered")
    assert find_work(bucket.connections, "").lease is None, "a look does not ask for it every time"
    assert listed[0] == held.listing()[0]
    held.put("a.safetensors", lora(3))
    bucket.take()
    assert bucket.row("a.safetensors").artifact_id is not None
