"""The inventory on a real S3 server: what is seen, what is noticed, and what is left alone."""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Base, InventoryPlace
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.inventory.bucket_inventory import (
    LEASE,
    Progress,
    RunBudget,
    find_work,
    inventory_places,
)
from lora_pipeline.inventory.bucket_pass import InventoryAtWork, list_place
from lora_pipeline.inventory.bucket_plan import plan_inventory
from lora_pipeline.inventory.bucket_reading import ReadLimits
from lora_pipeline.inventory.bucket_report import InventoryReport
from lora_pipeline.objects.errors import StoreRefused, StoreUnavailable
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline_tests.bench.s3_listing_server import MemoryBucket
from lora_pipeline_tests.inventory.buckets import TestBucket, content_of, lora, settings_for
from lora_pipeline_tests.versions.lora_files import with_header
from lora_pipeline_tests.versions.registered import add_version

STRANGE_KEYS = [
    "loras/a b.safetensors",
    "loras/a+b.safetensors",
    "loras/a%20b.safetensors",
    "loras/größe/ä–é.safetensors",
    "loras//double.safetensors",
    "loras/../up.safetensors",
    "loras/a'b\"c&d<e>.safetensors",
    "loras/\U0001f600.SafeTensors",
    "/rooted.safetensors",
]


def rows(database: Database, *without: str) -> dict[str, list[dict[str, Any]]]:
    """Everything that is stored."""
    with database.read() as session:
        return {
            name: sorted((dict(row) for row in session.execute(select(table)).mappings()), key=repr)
            for name, table in Base.metadata.tables.items()
            if name not in without
        }


def standings(bucket: TestBucket) -> dict[str, str]:
    return {row.key: row.state for row in bucket.rows() if row.listed}


def test_every_key_that_s3_takes_is_listed_read_and_found_again(bucket_on_each: TestBucket) -> None:
    bucket = bucket_on_each
    for seed, key in enumerate(STRANGE_KEYS):
        bucket.put(key, lora(seed))
        url = f"https://{bucket.name}.s3.us-west-1.amazonaws.com/{quote(key)}"
        add_version(
            bucket.database,
            "style_1",
            seed + 1,
            weights_url=url,
            weights_state="unverified",
            provider="runpod",
            provider_version=None,
        )
    bucket.put("loras/preview.png", b"")

    report = bucket.take()

    assert (report.counts.files, report.counts.new, report.counts.others) == (len(STRANGE_KEYS),) * 2 + (1,)
    assert report.standings["attached"] == report.attached == len(STRANGE_KEYS)
    assert standings(bucket) == dict.fromkeys(STRANGE_KEYS, "attached")
    for seed, key in enumerate(STRANGE_KEYS):
        assert bucket.row(key).file_sha256 == hashlib.sha256(lora(seed)).hexdigest()
    again = bucket.take()
    assert (again.counts.files, again.counts.new, again.read) == (len(STRANGE_KEYS), 0, 0)


def test_where_nothing_changed_nothing_is_read_or_written(bucket: TestBucket) -> None:
    for seed in range(3):
        bucket.put(f"{seed}.safetensors", lora(seed))
        add_version(
            bucket.database, "style_1", seed + 1, weights_url=f"s3://{bucket.name}/{seed}.safetensors"
        )
    bucket.take()
    before = rows(bucket.database, "inventory_places", "controls")
    report = bucket.take()
    assert rows(bucket.database, "inventory_places", "controls") == before
    assert (report.read, report.bytes_hashed, report.has_findings) == (0, 0, False)
    assert report.next_step == "nothing to do"
    plan = plan_inventory(bucket.connections)
    assert (plan.has_findings, plan.to_read, plan.changes) == (False, 0, ())


def test_other_bytes_under_a_key_are_another_artifact_and_the_old_place_is_marked(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    address = bucket.put("style_1_vV7.safetensors", lora(1))
    version = add_version(bucket.database, "style_1", 7, weights_url=address, weights_state="unverified")
    bucket.take()
    before = rows(bucket.database)["model_versions"]

    bucket.put("style_1_vV7.safetensors", lora(2))
    report = bucket.take()

    assert (report.counts.changed, report.counts.overwritten, report.counts.deleted) == (1, 1, 0)
    old, new = bucket.rows()
    assert (old.listed, old.state, old.deleted_at) == (False, "attached", None)
    assert old.overwritten_at == new.modified
    assert (new.state, new.version_id) == ("doubtful", None)
    first, second = bucket.locations()
    assert (first.overwritten_at, first.deleted_at) == (new.modified, None)
    assert (second.overwritten_at, second.artifact_id != first.artifact_id) == (None, True)
    assert rows(bucket.database)["model_versions"] == before, "the version keeps what it is"
    assert {item.kind for item in bucket.reviews()} == {"overwritten_weights", "doubtful_object"}
    (lost,) = report.lost
    assert (lost.model, lost.version, lost.what) == ("style_1", "V7", "overwritten")
    assert version == old.version_id
    assert "rollback style_1" in report.next_step

    bucket.put("style_1_vV7.safetensors", lora(1))
    back = bucket.take()
    assert (back.read, back.lost, bucket.row("style_1_vV7.safetensors").id) == (0, (), old.id)
    assert [one.overwritten_at is None for one in bucket.locations()] == [True, False]


def test_a_deleted_object_is_noticed_and_nothing_of_it_is_deleted(bucket: TestBucket) -> None:
    address = bucket.put("a.safetensors", lora(1))
    add_version(bucket.database, "style_1", 1, weights_url=address, weights_state="unverified")
    bucket.put("b.safetensors", lora(2))
    bucket.take()
    before = rows(bucket.database)
    bucket.delete("a.safetensors")

    report = bucket.take()

    assert (report.counts.deleted, report.counts.overwritten, report.counts.files) == (1, 0, 1)
    (place,) = [one for one in bucket.locations() if one.key == "a.safetensors"]
    assert place.deleted_at is not None
    after = rows(bucket.database)
    for table in ("artifacts", "model_versions", "version_aliases", "lora_weights", "user_models"):
        assert after[table] == before[table]
    assert [(lost.address, lost.what) for lost in report.lost] == [(address, "deleted")]

    bucket.put("a.safetensors", lora(1))
    assert bucket.take().lost == ()
    assert [one.deleted_at for one in bucket.locations()] == [None, None]


def test_object_versions_tell_what_was_overwritten_deleted_removed_and_brought_back(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    bucket.put("before.safetensors", lora(0))
    bucket.keep_versions()
    for seed in (1, 2):
        bucket.put("key.safetensors", lora(seed))
    bucket.put("gone.safetensors", lora(3))
    bucket.delete("gone.safetensors")
    older, newest = bucket.versions["key.safetensors"]

    report = bucket.take()

    assert (report.counts.files, report.counts.older, report.read) == (2, 2, 4)
    seen = {(row.key, row.object_version): row for row in bucket.rows()}
    assert seen["before.safetensors", ""].state == "unregistered"
    assert seen["key.safetensors", older].overwritten_at == seen["key.safetensors", newest].modified
    assert seen["key.safetensors", newest].overwritten_at is None
    (gone,) = bucket.versions["gone.safetensors"]
    assert seen["gone.safetensors", gone].deleted_at is not None
    assert seen["gone.safetensors", gone].listed
    places = {(one.key, one.object_version): one for one in bucket.locations()}
    assert places["key.safetensors", older].overwritten_at is not None
    assert places["gone.safetensors", gone].deleted_at is not None

    marker = bucket.s3.list_object_versions(Bucket=bucket.name)["DeleteMarkers"][0]["VersionId"]
    bucket.delete("gone.safetensors", VersionId=marker)
    bucket.delete("key.safetensors", VersionId=newest)
    report = bucket.take()
    assert (report.read, report.counts.deleted, report.counts.files) == (0, 1, 3)
    places = {(one.key, one.object_version): one for one in bucket.locations()}
    assert places["gone.safetensors", gone].deleted_at is None
    assert places["key.safetensors", older].overwritten_at is None
    assert places["key.safetensors", newest].deleted_at is not None


def test_a_bucket_that_begins_to_keep_versions_does_not_make_its_files_new(bucket: TestBucket) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.take()
    bucket.keep_versions()
    report = bucket.take()
    assert (report.counts.new, report.counts.deleted, report.read) == (0, 0, 0)


def test_equal_times_hide_no_object(bucket: TestBucket) -> None:
    bucket.put("b.safetensors", lora(1))
    bucket.take()
    bucket.put("a.safetensors", lora(2))
    bucket.put("b.safetensors", lora(3))
    report = bucket.take()
    assert (report.counts.new, report.counts.changed) == (1, 1)
    assert {row.key for row in bucket.rows() if row.listed} == {"a.safetensors", "b.safetensors"}


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (b"", "truncated"),
        (b"<html>", "truncated"),
        (b"<html>not found</html>", "invalid_header"),
        (lora(1)[:-1], "truncated"),
        (lora(1) + b"x", "invalid_header"),
        (with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"), "not_a_lora"),
    ],
)
def test_what_is_no_lora_is_refused_by_name_and_looked_at_once(
    bucket: TestBucket, file: bytes, code: str
) -> None:
    bucket.put("x.safetensors", file, {"runpod_job_id": "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"})
    report = bucket.take()
    row = bucket.row("x.safetensors")
    assert (row.state, row.reason.partition(":")[0], row.artifact_id) == ("refused", code, None)
    assert report.standings["refused"] == 1
    assert report.bytes_hashed == 0
    assert bucket.take().read == 0


def test_a_file_above_the_limit_is_refused_unread(bucket: TestBucket) -> None:
    bucket.connections.settings.weights_cap_bytes = 100
    bucket.put("x.safetensors", lora(1))
    bucket.take()
    assert bucket.row("x.safetensors").reason.startswith("too_large: The file is")


def test_a_key_that_no_address_can_spell_is_named(bucket: TestBucket) -> None:
    bucket.put("a\x01b.safetensors", lora(1))
    bucket.take()
    assert bucket.row("a\x01b.safetensors").reason.startswith("unaddressable_key: ")


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
    assert standings(bucket) == {f"{seed}.safetensors": "unregistered" for seed in range(7)}
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
    assert standings(bucket) == {f"{seed}.safetensors": "unregistered" for seed in range(9)}


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
    assert standings(bucket) == {f"{seed:02}.safetensors": "unregistered" for seed in range(30)}
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


def test_what_we_archived_ourselves_is_known_without_reading_it(bucket: TestBucket) -> None:
    from lora_pipeline.database.tables import ModelVersion, UserModel
    from lora_pipeline.versions.registry import ArchivedWeights, attach_weights
    from lora_pipeline_tests.fixtures.pipeline import model_row

    address = bucket.put("loras/style_1/x.safetensors", lora(1))
    version_id = add_version(bucket.database, "style_1", 1, weights_state="unverified")
    etag = bucket.s3.head_object(Bucket=bucket.name, Key="loras/style_1/x.safetensors")["ETag"]
    archived = ArchivedWeights(content_of(lora(1)), address, etag, "")
    with bucket.database.begin() as session:
        model = session.get_one(UserModel, model_row(bucket.database, "style_1").id)
        version = session.get_one(ModelVersion, version_id)
        attach_weights(session, version, model, archived, bucket.connections.now())
    report = bucket.take()
    assert (report.read, report.attached) == (0, 1)
    assert bucket.row("loras/style_1/x.safetensors").version_id == version_id
    assert len(bucket.locations()) == 1


def test_what_came_and_went_between_two_passes_is_noticed_too(bucket: TestBucket) -> None:
    test_what_we_archived_ourselves_is_known_without_reading_it(bucket)
    with bucket.database.begin() as session:
        from lora_pipeline.database.tables import ArtifactLocation

        place = session.query(ArtifactLocation).one()
        session.add(
            ArtifactLocation(
                artifact_id=place.artifact_id,
                namespace="s3/aws",
                bucket=bucket.name,
                key="loras/never_listed.safetensors",
                object_version="",
                etag="",
                size=1,
                first_seen=place.first_seen,
                last_seen=place.first_seen,
            )
        )
    bucket.take()
    assert {one.key: one.deleted_at is None for one in bucket.locations()} == {
        "loras/never_listed.safetensors": False,
        "loras/style_1/x.safetensors": True,
    }


def test_only_the_configured_places_are_listed(bucket: TestBucket) -> None:
    for key in ("a/1.safetensors", "a/b/2.safetensors", "ab/3.safetensors", "4.safetensors"):
        bucket.put(key, lora(len(key)))
    bucket.connections.settings.inventory = f"s3://{bucket.name}/a"
    report = bucket.take()
    assert report.counts.files == 2
    assert sorted(standings(bucket)) == ["a/1.safetensors", "a/b/2.safetensors"]
    bucket.connections.settings.inventory = f"s3://{bucket.name}/ab"
    bucket.take()
    assert all(row.deleted_at is None for row in bucket.rows()), "what is no longer listed is not deleted"


def test_a_plan_says_what_would_be_read_and_writes_nothing(bucket: TestBucket) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.put("b.safetensors", lora(2))
    bucket.take()
    bucket.put("a.safetensors", lora(3))
    bucket.delete("b.safetensors")
    bucket.put("c.safetensors", lora(4))
    before = rows(bucket.database)
    plan = plan_inventory(bucket.connections)
    assert rows(bucket.database) == before
    assert [(one["what"], one["object"].rpartition("/")[2]) for one in plan.changes] == [
        ("changed", "a.safetensors"),
        ("new", "c.safetensors"),
        ("overwritten", "a.safetensors"),
        ("deleted", "b.safetensors"),
    ]
    assert (plan.to_read, plan.bytes_to_read) == (2, len(lora(3)) + len(lora(4)))
    assert plan.has_findings


def test_settings_of_our_own_store_lead_to_what_it_keeps(bucket: TestBucket) -> None:
    settings = settings_for(bucket.connections.settings.home, "sqlite://", bucket.name)
    settings.inventory, settings.object_store = "", f"s3://{bucket.name}/lora"
    bucket.connections.settings.inventory, bucket.connections.settings.object_store = (
        "",
        settings.object_store,
    )
    bucket.put("lora/loras/m/1.safetensors", lora(1))
    bucket.put("lora/trained/t/2.safetensors", lora(2))
    bucket.put("lora/submissions/3.safetensors", lora(3))
    assert bucket.take().counts.files == 2
