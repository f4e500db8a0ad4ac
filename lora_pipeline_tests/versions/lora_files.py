"""LoRA files and deliveries for the tests: real ones by the safetensors library, strange ones by hand."""

import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from lora_pipeline.versions.safetensors_file import SafetensorsHeader, read_header
from lora_pipeline.versions.weights import VerifiedWeights, WeightsRefused, inspect_safetensors

Tensors = dict[str, NDArray[Any]]
FOLDER = "output/flux_train_replicate"


def diffusers_lora(
    rank: int = 4, layers: int = 3, width: int = 8, dtype: str = "<f2", seed: int = 0
) -> Tensors:
    """Named as diffusers, PEFT and ai-toolkit do."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(layers):
        name = f"transformer.single_transformer_blocks.{layer}.attn.to_q"
        tensors[f"{name}.lora_A.weight"] = (random.standard_normal((rank, width)) * 0.02).astype(dtype)
        tensors[f"{name}.lora_B.weight"] = (random.standard_normal((width, rank)) * 0.02).astype(dtype)
    return tensors


def kohya_lora(rank: int = 4, layers: int = 3, width: int = 8) -> Tensors:
    """Named as kohya does, with the alpha beside each pair."""
    tensors: Tensors = {}
    for layer in range(layers):
        name = f"lora_unet_double_blocks_{layer}_img_attn_proj"
        tensors[f"{name}.lora_down.weight"] = np.ones((rank, width), np.float32)
        tensors[f"{name}.lora_up.weight"] = np.ones((width, rank), np.float32)
        tensors[f"{name}.alpha"] = np.array(float(rank), np.float32)
    return tensors


def saved(tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> bytes:
    """The file as the safetensors library writes it."""
    return bytes(safetensors.numpy.save(dict(tensors), metadata))


def with_header(header: object, data: bytes = b"") -> bytes:
    """A file with this header, which is JSON already when it is bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def in_order(tensors: Sequence[tuple[str, NDArray[Any]]], metadata: dict[str, str] | None = None) -> bytes:
    """A file whose tensors lie in the given order; the library knows only its own."""
    dtypes = {"float16": "F16", "float32": "F32", "float64": "F64", "uint8": "U8"}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, array in tensors:
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": dtypes[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    return with_header(header, data)


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info


def tar_of(
    members: Sequence[tuple[tarfile.TarInfo | str, bytes]],
    tar_format: int = tarfile.PAX_FORMAT,
    mode: str = "w",
) -> bytes:
    """An archive with these members; a name alone means a plain file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tar_format) as tar:  # type: ignore[call-overload]
        for named, content in members:
            info = member(named, len(content)) if isinstance(named, str) else named
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def delivery(lora: bytes) -> bytes:
    """The archive as the Flux trainer packs it."""
    return tar_of(
        [
            (member(FOLDER, kind=tarfile.DIRTYPE), b""),
            (f"{FOLDER}/lora.safetensors", lora),
            (f"{FOLDER}/config.yaml", b"job: extension\n"),
            (f"{FOLDER}/captions/1.txt", "a photo of user50, smiling – é".encode()),
        ]
    )


def header_of(content: bytes) -> SafetensorsHeader:
    return read_header(lambda start, length: content[start : start + length], len(content))


def inspected(content: bytes) -> VerifiedWeights:
    """The record of a file with this content."""
    return inspect_safetensors(io.BytesIO(content))


def refused_file(content: bytes) -> WeightsRefused:
    """Why a file with this content is refused; the test fails if it is not."""
    with pytest.raises(WeightsRefused) as refused:
        inspected(content)
    return refused.value
