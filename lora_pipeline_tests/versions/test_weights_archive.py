"""What providers deliver, whole and damaged, and what is made of it."""

import gzip
import io
import pickle
import re
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.versions import weights_archive
from lora_pipeline.versions.weights import VerifiedWeights, WeightsRefused, read_weights
from lora_pipeline_tests.versions.lora_files import (
    FOLDER,
    delivery,
    diffusers_lora,
    member,
    saved,
    tar_of,
    with_header,
)

CAP = 5_000_000
LORA = saved(diffusers_lora(rank=2, layers=2, width=4), {"format": "pt"})
DELIVERY = delivery(LORA)
WEIGHTS = f"{FOLDER}/lora.safetensors"
PAYLOAD = DELIVERY.index(LORA)


def received(chunks: Iterable[bytes], cap: int = CAP) -> VerifiedWeights:
    return read_weights(chunks, io.BytesIO(), cap_bytes=cap)


def refusal(content: bytes, cap: int = CAP) -> WeightsRefused:
    with pytest.raises(WeightsRefused) as refused:
        received([content], cap)
    return refused.value


KEY = received([DELIVERY]).content_key


@given(
    st.lists(st.integers(0, len(DELIVERY)), max_size=30),
    st.sampled_from([DELIVERY, LORA, gzip.compress(DELIVERY)]),
)
def test_pieces_of_any_size_give_the_same_weights(cuts: list[int], content: bytes) -> None:
    edges = [0, *sorted(cuts), len(content)]
    assert received([content[a:b] for a, b in pairwise(edges)]).content_key == KEY


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tar_format: int) -> None:
    long = "/".join(["folder"] * (12 if tar_format == tarfile.USTAR_FORMAT else 40))
    assert received([tar_of([(f"{long}/{'x' * 60}.safetensors", LORA)], tar_format)]).content_key == KEY


def test_a_name_that_only_the_extension_tells_is_the_name() -> None:
    """A long name is cut in the header itself: there it would not end in .safetensors."""
    assert received([tar_of([(f"./{'é' * 200}.safetensors", LORA), ("a.txt", b"x")])]).content_key == KEY
    fractional = member("lora.safetensors", len(LORA), mtime=1735488000.25)
    assert received([tar_of([(fractional, LORA)])]).content_key == KEY


def test_an_archive_of_the_system_tar_is_read(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "lora.safetensors").write_bytes(LORA)
    (folder / ("long" * 40 + ".txt")).write_text("caption")
    packed = subprocess.run(
        ["tar", "-cf", "-", "-C", str(tmp_path), "output"], check=True, capture_output=True
    )
    assert received([packed.stdout]).content_key == KEY


# Cut off


def end_of_content(archive: bytes) -> int:
    """Where the two blocks of the end mark are complete; behind them lies only padding."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512 + 1024


def test_a_tar_cut_anywhere_is_refused_as_truncated() -> None:
    complete = end_of_content(DELIVERY)
    for cut in range(complete):
        assert refusal(DELIVERY[:cut]).code == "truncated", cut
    for cut in range(complete, len(DELIVERY), 512):
        assert received([DELIVERY[:cut]]).content_key == KEY


@pytest.mark.parametrize("content", [LORA, gzip.compress(DELIVERY)], ids=["bare", "gzip"])
def test_a_file_or_gzip_cut_anywhere_is_refused_as_truncated(content: bytes) -> None:
    for cut in range(len(content)):
        refused = refusal(content[:cut])
        assert (refused.code, refused.worth_retrying) == ("truncated", True), cut


def test_weights_packed_short_in_a_whole_archive_are_not_worth_another_download() -> None:
    refused = refusal(delivery(LORA[:-10]))
    assert (refused.code, refused.worth_retrying) == ("incomplete_member", False)


# Something else


@pytest.mark.parametrize(
    ("body", "looks_like"),
    [
        (
            b"<!doctype html><html><head><title>502 Bad Gateway</title></head></html>",
            "HTML page saying '502 Bad Gateway'",
        ),
        (b"\xef\xbb\xbf\r\n <HTML>" + b"x" * 2000, "HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML saying 'AccessDenied'"),
        (b'{"detail": "not found"}', "JSON"),
        (b'[{"error": 1}]' + b" " * 2000, "JSON"),
    ],
)
def test_an_error_page_is_called_what_it_is_and_worth_another_try(body: bytes, looks_like: str) -> None:
    refused = refusal(body)
    assert (refused.code, refused.worth_retrying) == ("error_page", True)
    assert looks_like in str(refused)


def test_an_error_page_is_not_quoted_beyond_its_code() -> None:
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId>"
        b"<StringToSign>GET /w?X-Amz-Signature=abc</StringToSign></Error>"
    )
    assert "AKIA" not in repr(refusal(body))
    assert "Signature=" not in str(refusal(b"<html><title>https://x/?X-Amz-Signature=abc</title>"))


@pytest.mark.parametrize(
    ("body", "looks_like"),
    [
        (b"PK\x03\x04" + b"x" * 600, "ZIP"),
        (gzip.compress(gzip.compress(DELIVERY)), "gzip file inside another"),
        (b"\x80\x02" + b"\x93" * 600, "80 02 93"),
        (b"\xff" * 8 + b"{" * 600, "ff ff"),
    ],
)
def test_bytes_that_are_neither_archive_nor_weights_are_refused(body: bytes, looks_like: str) -> None:
    refused = refusal(body)
    assert (refused.code, refused.worth_retrying) == ("not_an_archive", False)
    assert looks_like in str(refused)


# Archives that are wrong


def test_two_weights_in_one_archive_are_left_to_a_person() -> None:
    refused = refusal(tar_of([(WEIGHTS, LORA), (f"{FOLDER}/lora_000000500.safetensors", LORA)]))
    assert (refused.code, refused.worth_retrying) == ("two_members", False)
    assert "lora_000000500" in str(refused)


def test_an_archive_without_weights_is_refused() -> None:
    assert refusal(tar_of([("config.yaml", b"x"), ("lora.pt", LORA)])).code == "no_weights"
    assert refusal(tar_of([])).code == "no_weights"
    assert refusal(tar_of([(member("lora.safetensors", kind=tarfile.DIRTYPE), b"")])).code == "no_weights"


@pytest.mark.parametrize(
    "name",
    [
        "../lora.safetensors",
        "output/../../lora.safetensors",
        "..\\lora.safetensors",
        "/tmp/lora.safetensors",
        "\\\\host\\lora.safetensors",
        "C:\\lora.safetensors",
        "a\nb.safetensors",
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_name_that_leaves_the_folder_is_refused(name: str, wanted: bool) -> None:
    """Also where it is not the weights' own: nothing is extracted, but who packs that is not trusted."""
    members = [(name, LORA)] if wanted else [(WEIGHTS, LORA), (name.replace("safetensors", "txt"), b"x")]
    refused = refusal(tar_of(members))
    assert (refused.code, refused.worth_retrying) == ("unsafe_member", False)
    assert "\n" not in str(refused)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        b"Z",
    ],
)
def test_links_and_devices_are_refused(kind: bytes) -> None:
    link = member(WEIGHTS, kind=kind, linkname="../../etc/passwd")
    assert refusal(tar_of([(link, b"")])).code == "unsafe_member"


def test_a_sparse_file_is_refused() -> None:
    sparse = member(WEIGHTS, len(LORA), pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    assert refusal(tar_of([(sparse, LORA)])).code == "unsafe_member"
    assert (
        refusal(tar_of([(member(WEIGHTS, len(LORA), kind=tarfile.GNUTYPE_SPARSE), LORA)])).code
        == "unsafe_member"
    )


def test_a_size_or_name_given_to_all_members_at_once_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"path": "lora.safetensors"}) as tar:
        tar.addfile(member("a.txt", len(LORA)), io.BytesIO(LORA))
    assert refusal(out.getvalue()).code == "damaged_archive"


@pytest.mark.parametrize(
    "record", [b"9999 path=x\n", b"6 path=x\n", b"path=x\n", b"0 a=b\n", b"12 size=abc\n"]
)
def test_a_broken_name_extension_is_refused(record: bytes) -> None:
    header = member("pax", len(record), kind=tarfile.XHDTYPE)
    assert (
        refusal(tar_of([(header, record), (WEIGHTS, LORA)], tarfile.USTAR_FORMAT)).code == "damaged_archive"
    )


def test_garbage_between_members_does_not_pass_for_the_end() -> None:
    """The standard library's reader stops silently here and would call the archive complete."""
    with tarfile.open(fileobj=io.BytesIO(DELIVERY)) as tar:
        config = tar.getmember(f"{FOLDER}/config.yaml")
    garbled = DELIVERY[: config.offset] + b"<html>" * 2000
    refused = refusal(garbled)
    assert (refused.code, refused.worth_retrying) == ("damaged_archive", True)


def test_nothing_may_follow_the_end_mark() -> None:
    assert refusal(DELIVERY + DELIVERY).code == "damaged_archive"
    half = DELIVERY[: end_of_content(DELIVERY) - 512]
    assert refusal(half + b"x" * 512).code == "damaged_archive"
    assert received([DELIVERY + bytes(100_000)]).content_key == KEY


def test_a_damaged_gzip_is_refused() -> None:
    packed = bytearray(gzip.compress(DELIVERY, mtime=0))
    packed[-6] ^= 1
    assert refusal(bytes(packed)).code == "damaged_archive"
    assert refusal(gzip.compress(DELIVERY) + b"more").code == "damaged_archive"


@settings(max_examples=300)
@given(st.data())
def test_damage_anywhere_is_refused_or_leaves_the_weights_exactly_as_delivered(data: st.DataObject) -> None:
    damaged = bytearray(DELIVERY)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    out = io.BytesIO()
    try:
        read_weights([bytes(damaged)], out, cap_bytes=CAP)
    except WeightsRefused:
        return
    assert out.getvalue() == damaged[PAYLOAD : PAYLOAD + len(LORA)]


def test_a_negative_size_is_no_way_backwards() -> None:
    block = bytearray(member(WEIGHTS, len(LORA)).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"\xff" * 12  # -1 as a binary number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert refusal(bytes(block) + LORA + bytes(2048)).code == "damaged_archive"


# Too much


def test_more_bytes_than_the_cap_are_refused_before_they_are_kept() -> None:
    refused = refusal(DELIVERY, cap=len(DELIVERY) - 1)
    assert (refused.code, refused.worth_retrying) == ("too_large", False)
    assert received([DELIVERY], cap=len(DELIVERY)).content_key == KEY
    assert refusal(LORA, cap=len(LORA) - 1).code == "too_large"


def test_an_endless_delivery_is_left_at_the_cap() -> None:
    taken = 0

    def endless() -> Iterable[bytes]:
        nonlocal taken
        yield DELIVERY[:512]
        while True:
            taken += 1
            yield bytes(10_000)

    with pytest.raises(WeightsRefused):
        received(endless())
    assert taken <= CAP // 10_000 + 1


def test_weights_announced_larger_than_the_cap_are_refused_at_their_header() -> None:
    announced = member(WEIGHTS, CAP + 1).tobuf(tarfile.USTAR_FORMAT)
    assert refusal(announced + bytes(10_000)).code == "too_large"


def test_a_gzip_bomb_is_refused_at_the_cap_in_little_memory() -> None:
    bomb = gzip.compress(
        member("config.yaml", 2**29).tobuf(tarfile.USTAR_FORMAT) + bytes(50_000_000), compresslevel=1
    )
    tracemalloc.start()
    try:
        assert refusal(bomb, cap=10_000_000).code == "too_large"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_huge_name_extension_is_not_read_into_memory() -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        header = member("extension", 10**9, kind=kind).tobuf(tarfile.USTAR_FORMAT)
        assert refusal(header + bytes(10_000)).code == "damaged_archive"
    many = [(member("x", 2, kind=tarfile.GNUTYPE_LONGNAME), b"a\0")] * 20
    assert refusal(tar_of(many, tarfile.USTAR_FORMAT)).code == "damaged_archive"


def test_an_archive_of_countless_members_is_refused() -> None:
    one = member("a.txt").tobuf(tarfile.USTAR_FORMAT)
    archive = one * weights_archive.MAX_MEMBERS + bytes(1024)
    assert refusal(archive, cap=len(archive)).code == "too_large"
    assert refusal(one * 1000 + bytes(1024)).code == "no_weights"


# What a refusal is


def test_a_refusal_survives_a_process_boundary_and_names_the_next_step() -> None:
    refused = refusal(b"<html>")
    again = pickle.loads(pickle.dumps(refused))
    assert (again.code, str(again), again.worth_retrying) == (refused.code, str(refused), True)
    assert re.search(r"expected .* Download it again", str(refused))


def test_a_header_that_is_wrong_inside_a_sound_archive_keeps_its_reason() -> None:
    assert refusal(delivery(b"PK\x03\x04 a ZIP under a false name")).code == "invalid_header"
    assert refusal(delivery(LORA + b"x")).code == "invalid_header"
    assert refusal(delivery(with_header({}))).code == "invalid_header"


MEASURED = """
import json, re, struct, sys, tarfile
from pathlib import Path
from lora_pipeline.versions.weights import read_weights

MB = 1024 * 1024
half = 150 * MB
tensors = {}
for index, (name, shape) in enumerate([("x.lora_{0}.weight", [16, half // 32]), ("x.lora_{1}.weight", [half // 32, 16])]):
    name = name.format(*sys.argv[2])
    tensors[name] = {"dtype": "F16", "shape": shape, "data_offsets": [index * half, (index + 1) * half]}
text = json.dumps(tensors).encode()
beginning = struct.pack("<Q", len(text)) + text
info = tarfile.TarInfo("output/lora.safetensors")
info.size = len(beginning) + 2 * half

def delivery():
    yield info.tobuf(tarfile.USTAR_FORMAT) + beginning
    piece = bytes(range(0, 120)) * 8738 + bytes(16)
    for _ in range(300):
        yield piece
    yield bytes(-info.size % 512 + 1024)

def peak_kb():
    # Not getrusage: its maximum is inherited from the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak_kb()
record = read_weights(delivery(), Path(sys.argv[1]), cap_bytes=400 * MB)
print(record.size, peak_kb() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc"
)
@pytest.mark.parametrize("sides", ["AB", "BA"], ids=["one pass", "names in another order than the bytes"])
def test_300_mb_of_weights_are_verified_in_a_few_mb_of_memory(tmp_path: Path, sides: str) -> None:
    target = tmp_path / "lora.safetensors"
    command = [sys.executable, "-c", MEASURED, str(target), sides]
    measured = subprocess.run(command, check=False, capture_output=True, text=True)
    target.unlink(missing_ok=True)
    assert measured.returncode == 0, measured.stderr
    size, grown_kb = map(int, measured.stdout.split())
    assert size > 300 * 1024 * 1024
    assert grown_kb < 16 * 1024, f"{grown_kb} KB"
