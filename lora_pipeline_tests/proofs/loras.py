"""Small valid LoRAs as trainers deliver them; each training has other tensors."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tarfile
from typing import Any


@functools.cache
def lora_file(job_id: str) -> bytes:
    """The .safetensors file of a training."""
    chance = random.Random(job_id)
    header: dict[str, Any] = {}
    data = b""
    for name, shape in (("lora_A", (4, 8)), ("lora_B", (8, 4))):
        values = [chance.uniform(-1, 1) for _ in range(shape[0] * shape[1])]
        part = struct.pack(f"<{len(values)}e", *values)
        key = f"transformer.transformer_blocks.0.attn.to_q.{name}.weight"
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@functools.cache
def weights_archive(job_id: str) -> bytes:
    """The same file in the tar of Replicate's trainer."""
    lora = lora_file(job_id)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("output/flux_train_replicate/lora.safetensors")
        member.size = len(lora)
        tar.addfile(member, io.BytesIO(lora))
    return out.getvalue()
