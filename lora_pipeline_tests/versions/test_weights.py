"""What makes a LoRA the same LoRA, and what is recorded of it."""

import hashlib
import io
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from lora_pipeline.versions.tensor_hashes import hash_file
from lora_pipeline.versions.weights import WeightsRefused, inspect_safetensors, read_weights
from lora_pipeline_tests.versions.lora_files import (
    Tensors,
    delivery,
    diffusers_lora,
    header_of,
    in_order,
    inspected,
    saved,
    with_header,
)


def reference_key(tensors: Tensors) -> str:
    """The content key as its documentation words it, on arrays instead of a file."""
    dtypes = {"float16": "F16", "float32": "F32", "float64": "F64", "uint8": "U8", "int64": "I64"}
    digest = hashlib.sha256()
    for name in sorted(tensors, key=str.encode):
        array = tensors[name]
        dtype, data = dtypes[str(array.dtype)].encode(), array.tobytes()
        digest.update(struct.pack("<Q", len(name.encode())) + name.encode())
        digest.update(struct.pack("<Q", len(dtype)) + dtype)
        digest.update(struct.pack(f"<Q{array.ndim}Q", array.ndim, *array.shape))
        digest.update(struct.pack("<Q", len(data)) + data)
    return digest.hexdigest()


# Identity


def test_saving_the_same_tensors_again_gives_other_files_and_one_content_key() -> None:
    tensors = diffusers_lora()
    metadata = {f"key {number}": str(number) for number in range(12)}
    files = [saved(tensors, metadata) for _ in range(6)]
    files.append(saved(tensors, {"training_id": "another"}))
    files.append(saved(tensors))
    records = [inspected(file) for file in files]
    assert len({record.content_key for record in records}) == 1
    assert len({record.autov3 for record in records}) == 1
    assert len({record.file_sha256 for record in records}) == len(set(files)) >= 3


def test_the_order_of_tensors_in_the_file_does_not_matter() -> None:
    tensors = list(diffusers_lora().items())
    forwards, backwards = inspected(in_order(tensors)), inspected(in_order(tensors[::-1]))
    assert forwards.content_key == backwards.content_key
    assert forwards.autov3 != backwards.autov3


def test_names_and_shapes_are_part_of_the_content_although_autov3_does_not_see_them() -> None:
    values = np.arange(16, dtype="<f2")
    wide = in_order([("a", values.reshape(2, 8))])
    square = in_order([("b", values.reshape(4, 4))])
    hashes = [hash_file(io.BytesIO(content), header_of(content)) for content in (wide, square)]
    assert hashes[0].autov3 == hashes[1].autov3
    assert hashes[0].content_key != hashes[1].content_key


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "bytes", "one tensor less"])
def test_any_change_of_a_tensor_is_another_lora(change: str) -> None:
    before = diffusers_lora(rank=4, width=8)
    after = dict(before)
    name = next(iter(before))
    partner = name.replace("lora_A", "lora_B")
    if change == "name":
        for old in (name, partner):
            after[old.replace("to_q", "to_k")] = after.pop(old)
    elif change == "shape":
        after[name], after[partner] = before[name].reshape(2, 16), before[partner].reshape(16, 2)
    elif change == "dtype":
        after[name] = before[name].view("<f4").reshape(4, 4)
    elif change == "bytes":
        after[name] = before[name] + np.float16(0.01)
    else:
        del after[name], after[partner]
    assert inspected(saved(before)).content_key != inspected(saved(after)).content_key


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values: st.SearchStrategy[NDArray[Any]] = st.one_of(
    *(
        arrays.arrays(
            dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=elements
        )
        for dtype, elements in (
            ("<f2", st.floats(-100, 100, width=16)),
            ("<f4", st.floats(-100, 100, width=32)),
            ("<f8", st.floats(-100, 100)),
            ("u1", st.integers(0, 255)),
            ("<i8", st.integers(-9, 9)),
        )
    )
)


@given(st.dictionaries(names, values, max_size=5))
def test_the_content_key_is_what_its_documentation_says(others: Tensors) -> None:
    tensors = {"x.lora_A.weight": np.ones((1, 2), "<f4"), "x.lora_B.weight": np.ones((2, 1), "<f4")}
    tensors |= {f"other {name}": value for name, value in others.items()}
    record = inspected(saved(tensors))
    assert record.content_key == reference_key(tensors)
    assert record.tensor_count == len(tensors)


def test_the_content_key_of_a_known_file_never_changes() -> None:
    """It is stored as identity: another framing would make strangers of all registered LoRAs."""
    down = np.arange(8, dtype="<f2").reshape(2, 4)
    up = np.arange(8, 16, dtype="<f2").reshape(4, 2)
    content = in_order([("é.lora_B.weight", up), ("é.lora_A.weight", down)])
    assert (
        inspected(content).content_key == "057cf1385d05a6b111ea6d23ad409c9f96dab557679d33026a8b44ebf5d21c55"
    )


def test_the_other_hashes_are_those_that_other_programs_compute() -> None:
    content = saved(diffusers_lora(), {"sshs_model_hash": "f" * 64})
    record = inspected(content)
    data = content[8 + struct.unpack("<Q", content[:8])[0] :]
    assert record.file_sha256 == hashlib.sha256(content).hexdigest()
    assert record.autov2 == hashlib.sha256(content).hexdigest()[:10]
    assert record.autov3 == hashlib.sha256(data).hexdigest()
    assert record.size == len(content)


def test_a_file_and_its_delivery_give_the_same_record(tmp_path: Path) -> None:
    content = saved(diffusers_lora(), {"format": "pt"})
    local = tmp_path / "local.safetensors"
    local.write_bytes(content)
    fetched = read_weights([delivery(content)], tmp_path / "fetched.safetensors", cap_bytes=10**6)
    bare = read_weights([content], tmp_path / "bare.safetensors", cap_bytes=10**6)
    without_path = {**vars(inspect_safetensors(local)), "path": None}
    assert {**vars(fetched), "path": None} == without_path == {**vars(bare), "path": None}
    assert fetched.path == tmp_path / "fetched.safetensors"
    assert fetched.path.read_bytes() == content == (tmp_path / "bare.safetensors").read_bytes()


# The file on our side


def test_the_path_appears_only_for_verified_weights_and_for_its_owner_alone(tmp_path: Path) -> None:
    content = saved(diffusers_lora())
    target = tmp_path / "lora.safetensors"
    with pytest.raises(WeightsRefused):
        read_weights([delivery(content)[:2000]], target, cap_bytes=10**6)
    assert list(tmp_path.iterdir()) == []
    read_weights([delivery(content)], target, cap_bytes=10**6)
    assert list(tmp_path.iterdir()) == [target]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_refused_download_leaves_an_earlier_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "lora.safetensors"
    target.write_bytes(b"before")
    with pytest.raises(WeightsRefused):
        read_weights([b"<html>"], target, cap_bytes=10**6)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_connection_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def cut_connection() -> Any:
        yield delivery(saved(diffusers_lora()))[:3000]
        raise ConnectionResetError("peer went away")

    with pytest.raises(ConnectionResetError):
        read_weights(cut_connection(), tmp_path / "lora.safetensors", cap_bytes=10**6)
    assert list(tmp_path.iterdir()) == []


# What is kept of the header's metadata


def test_metadata_is_kept_short_enough_for_a_database() -> None:
    metadata = {f"key{number:03}": "v" for number in range(300)}
    metadata |= {"a tags": "x" * 50_000, "b nul": "a\0b", "n" * 5_000: "v"}
    kept = inspected(saved(diffusers_lora(), metadata)).metadata
    assert kept["a tags"] == "(50,000 characters left out)"
    assert kept["b nul"] == "a\ufffdb"
    assert len(kept) == 100
    assert all(len(text) <= 1_000 for item in kept.items() for text in item)


def test_metadata_that_no_database_can_store_as_text_is_repaired() -> None:
    content = with_header(
        b'{"__metadata__":{"a":"\\ud800"},"x.lora_A":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]},'
        b'"x.lora_B":{"dtype":"U8","shape":[1,1],"data_offsets":[1,2]}}',
        b"\1\2",
    )
    assert inspected(content).metadata == {"a": "\ufffd"}


def test_the_record_says_nothing_of_metadata_in_logs() -> None:
    assert "secret" not in repr(inspected(saved(diffusers_lora(), {"comment": "secret"})))


def test_files_of_the_library_read_back_as_they_were_written() -> None:
    """The library is the witness that our own files are real ones."""
    tensors = diffusers_lora()
    for content in (saved(tensors), in_order(list(tensors.items())[::-1])):
        loaded = safetensors.numpy.load(content)
        assert {name: array.tolist() for name, array in loaded.items()} == {
            name: array.tolist() for name, array in tensors.items()
        }
