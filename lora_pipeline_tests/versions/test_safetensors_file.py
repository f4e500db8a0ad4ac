"""Which headers are believed: none that the safetensors library refuses, and fewer than it takes."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.versions.safetensors_file import DTYPE_BITS, MAX_HEADER, read_header
from lora_pipeline.versions.weights import WeightsRefused
from lora_pipeline_tests.versions.lora_files import diffusers_lora, header_of, saved, with_header


def ranges(content: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: content[start : start + length]


def refusal(content: bytes) -> WeightsRefused:
    with pytest.raises(WeightsRefused) as refused:
        header_of(content)
    return refused.value


def deserialized(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The library's own reading."""
    return safetensors.deserialize(content)  # type: ignore[no-untyped-call, no-any-return]


def entry(start: int, end: int, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_a_header_read_by_ranges_costs_no_more_than_itself() -> None:
    content = saved(diffusers_lora(layers=3000, width=2, rank=1), {"note": "x" * 100_000})
    length = struct.unpack("<Q", content[:8])[0]
    assert length > 300_000
    read: list[int] = []

    def get_range(start: int, length: int) -> bytes:
        read.append(length)
        return content[start : start + length]

    header = read_header(get_range, len(content))
    assert len(header.tensors) == 6000
    assert header.metadata == {"note": "x" * 100_000}
    assert (len(read), sum(read)) == (2, 8 + length)


def test_an_ordinary_header_takes_one_read() -> None:
    content = saved(diffusers_lora())
    read: list[tuple[int, int]] = []

    def get_range(start: int, length: int) -> bytes:
        read.append((start, length))
        return content[start : start + length]

    assert len(read_header(get_range, len(content)).tensors) == 6
    assert len(read) == 1


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_dtype_of_the_library_is_known_with_its_width(dtype: str) -> None:
    content = with_header({"a": entry(0, DTYPE_BITS[dtype], dtype, [8])}, bytes(DTYPE_BITS[dtype]))
    assert header_of(content).tensors[0].dtype == dtype
    assert len(deserialized(content)) == 1


def test_no_dtype_of_the_library_is_missing() -> None:
    with pytest.raises(safetensors.SafetensorError) as refused:
        deserialized(with_header({"a": entry(0, 1, "X")}, b"\0"))
    listed = str(refused.value).partition("expected one of")[2].partition(" at line")[0]
    assert {name.strip(" `") for name in listed.split(",")} == set(DTYPE_BITS)


INVALID: dict[str, tuple[bytes, str]] = {
    "length beyond the format": (struct.pack("<Q", 100_000_001) + b"{", "invalid_header"),
    "length of 2**63": (struct.pack("<Q", 2**63) + b"{" * 600, "invalid_header"),
    "another format's first bytes": (b"PK\x03\x04\0\0\0\0{" + b"x" * 600, "invalid_header"),
    "nothing": (b"", "truncated"),
    "seven bytes": (b"\x10\0\0\0\0\0\0", "truncated"),
    "header cut": (with_header({"a": entry(0, 1)}, b"")[:-3], "truncated"),
    "data cut": (with_header({"a": entry(0, 2)}, b"\1"), "truncated"),
    "trailing bytes": (with_header({"a": entry(0, 1)}, b"\1garbage"), "invalid_header"),
    "no tensor": (with_header({}), "invalid_header"),
    "metadata only": (with_header({"__metadata__": {"a": "b"}}), "invalid_header"),
    "no JSON": (with_header(b"{nonsense"), "invalid_header"),
    "space before the JSON": (
        with_header(b' {"a":%b}' % json.dumps(entry(0, 1)).encode(), b"\1"),
        "invalid_header",
    ),
    "not UTF-8": (with_header(b'{"\xff":1}'), "invalid_header"),
    "UTF-16": (with_header(json.dumps({"a": entry(0, 1)}).encode("utf-16"), b"\1"), "invalid_header"),
    "a list": (with_header([1]), "invalid_header"),
    "deeply nested": (with_header(b'{"a":' + b"[" * 200_000), "invalid_header"),
    "a number of 5,000 digits": (with_header(b'{"a":' + b"9" * 5_000 + b"}"), "invalid_header"),
    "NaN": (with_header(b'{"a":NaN}'), "invalid_header"),
    "duplicate tensor": (
        with_header(
            b'{"a":%b,"a":%b}' % (json.dumps(entry(0, 1)).encode(), json.dumps(entry(0, 1)).encode()), b"\1"
        ),
        "invalid_header",
    ),
    "duplicate inner key": (
        with_header(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\1"),
        "invalid_header",
    ),
    "duplicate metadata key": (
        with_header(b'{"__metadata__":{"k":"1","k":"2"},"a":%b}' % json.dumps(entry(0, 1)).encode(), b"\1"),
        "invalid_header",
    ),
    "unknown key": (with_header({"a": {**entry(0, 1), "more": 1}}, b"\1"), "invalid_header"),
    "unknown dtype": (with_header({"a": entry(0, 1, "F13")}, b"\1"), "invalid_header"),
    "hole": (with_header({"a": entry(0, 1), "b": entry(2, 3)}, b"\1\2\3"), "invalid_header"),
    "hole at the start": (with_header({"a": entry(1, 2)}, b"\1\2"), "invalid_header"),
    "overlap": (with_header({"a": entry(0, 2), "b": entry(1, 3)}, b"\1\2\3"), "invalid_header"),
    "same bytes twice": (with_header({"a": entry(0, 2), "b": entry(0, 2)}, b"\1\2"), "invalid_header"),
    "offsets backwards": (with_header({"a": entry(1, 0, shape=[1])}, b"\1"), "invalid_header"),
    "shape too small": (with_header({"a": entry(0, 2, shape=[1])}, b"\1\2"), "invalid_header"),
    "negative shape": (with_header({"a": entry(0, 1, shape=[-1, -1])}, b"\1"), "invalid_header"),
    "true as size": (with_header({"a": entry(0, 1, shape=[True])}, b"\1"), "invalid_header"),
    "half a byte": (with_header({"a": entry(0, 1, "F4", [1])}, b"\1"), "invalid_header"),
    "fractional size": (with_header({"a": entry(0, 1, shape=[1.0])}, b"\1"), "invalid_header"),
    "size of 2**63": (with_header({"a": entry(0, 0, shape=[2**63, 0])}, b""), "invalid_header"),
    "too many dimensions": (with_header({"a": entry(0, 1, shape=[1] * 33)}, b"\1"), "invalid_header"),
    "metadata not text": (with_header({"__metadata__": {"a": 1}, "b": entry(0, 1)}, b"\1"), "invalid_header"),
    "metadata a list": (with_header({"__metadata__": [], "b": entry(0, 1)}, b"\1"), "invalid_header"),
    "lone surrogate as name": (with_header({"\ud800": entry(0, 1)}, b"\1"), "invalid_header"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_file_that_breaks_the_format_is_refused(case: str) -> None:
    content, code = INVALID[case]
    refused = refusal(content)
    assert refused.code == code
    assert refused.worth_retrying == (code == "truncated")


def test_a_header_beyond_what_is_read_is_refused_before_it_is_fetched() -> None:
    """Within the format, but parsing it would take hundreds of megabytes."""
    beginning = struct.pack("<Q", MAX_HEADER + 1) + b"{"
    read: list[int] = []

    def get_range(start: int, length: int) -> bytes:
        read.append(length)
        return beginning.ljust(length)

    with pytest.raises(WeightsRefused) as refused:
        read_header(get_range, 2**30)
    assert refused.value.code == "too_large"
    assert sum(read) < 2**20


def test_empty_tensors_and_scalars_are_valid() -> None:
    content = with_header({"empty": entry(1, 1, shape=[0, 3]), "scalar": entry(0, 1, shape=[])}, b"\1")
    assert [tensor.name for tensor in header_of(content).tensors] == ["scalar", "empty"]
    assert len(deserialized(content)) == 2


def test_a_store_that_gives_less_than_the_header_is_a_truncated_file() -> None:
    content = saved(diffusers_lora(layers=3000, width=2, rank=1))
    with pytest.raises(WeightsRefused, match="cut off"):
        read_header(ranges(content[:270_000]), len(content))


SOUND = saved(diffusers_lora(rank=1, layers=1, width=2), {"a": "b"})


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_taken_the_library_takes_too_and_sees_the_same(data: st.DataObject) -> None:
    """Damage of the header: never another exception than a refusal, never more lenient than the library."""
    damaged = bytearray(SOUND)
    interesting = st.sampled_from(b'{}[]":,0123456789ABF \\\x00\xff')
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(SOUND) - 12))
        damaged[position] = data.draw(interesting)
    content = bytes(damaged)
    try:
        header = header_of(content)
    except WeightsRefused:
        return
    library = {name: (info["dtype"], info["shape"]) for name, info in deserialized(content)}
    assert {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in header.tensors} == library
