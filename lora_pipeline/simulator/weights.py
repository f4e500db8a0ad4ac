"""The weights a simulated training delivers: a small, valid Flux LoRA inside the trainer's tar layout.

The same training gives the same bytes at every download; two trainings never give the same tensors. The metadata of
the file says that it is simulated. Also here: the damaged deliveries that occur in practice, made on demand.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from types import MappingProxyType
from typing import TYPE_CHECKING

from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainings import Training

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FOLDER = "output/flux_train_replicate"
DAMAGES = (
    "truncated",
    "html",
    "two_members",
    "dotdot",
    "no_member",
    "not_safetensors",
    "header_too_long",
    "not_finite",
    "missing",
    "expired",
)
"""`missing` is a 404, `expired` a 403 in S3's XML; the others are bodies with status 200."""

HTML_PAGE = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
EXPIRED_PAGE = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'


def tensor_shapes(rank: int, blocks: int, width: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and shapes as ai-toolkit writes a Flux LoRA: A projects down to the rank, B back up."""
    double = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
    single = ("attn.to_q", "attn.to_k", "attn.to_v")
    for kind, layers in (("transformer_blocks", double), ("single_transformer_blocks", single)):
        for block in range(blocks):
            for layer in layers:
                name = f"transformer.{kind}.{block}.{layer}"
                yield f"{name}.lora_A.weight", (rank, width)
                yield f"{name}.lora_B.weight", (width, rank)


def safetensors_bytes(training: Training, settings: SimulatorSettings, *, finite: bool = True) -> bytes:
    """The .safetensors file of a training."""
    rank = int(training.input.get("lora_rank") or 16)
    shapes = tensor_shapes(rank, settings.lora_blocks, settings.lora_width)
    return packed(shapes, metadata(training, rank), training.id, finite=finite)


def packed(
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    told: dict[str, str],
    seed: str,
    *,
    finite: bool,
    fixed: Mapping[str, float] = MappingProxyType({}),
) -> bytes:
    """A .safetensors file of noise that is the same for the same seed, but for tensors of a `fixed` value.

    Written by hand, because the library orders metadata at random: other bytes each time.
    """
    import numpy as np

    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big"))
    header: dict[str, object] = {"__metadata__": told}
    parts: list[bytes] = []
    offset = 0
    for name, shape in shapes:
        values = random.standard_normal(shape, dtype=np.float32) * 0.02
        if name in fixed:
            values = np.full(shape, fixed[name], dtype=np.float32)
        elif not finite:
            values.flat[0] = np.nan
        data = np.asarray(values).astype("<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def metadata(training: Training, rank: int) -> dict[str, str]:
    """The header's metadata: strings only, as the format asks."""
    return {
        "format": "pt",
        "simulated": "true",
        "software": json.dumps({"name": "lora_pipeline simulator", "repo": "none: not trained"}),
        "ss_base_model_version": "flux1",
        "ss_output_name": "flux_train_replicate",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
        "training_id": training.id,
        "training_info": json.dumps({"step": training.steps, "epoch": 0}),
    }


def config_text(training: Training) -> str:
    """config.yaml as the trainer leaves it, short."""
    given = training.input
    return (
        "job: extension\nconfig:\n  name: flux_train_replicate\n  process:\n  - type: custom_sd_trainer\n"
        f"    trigger_word: {json.dumps(str(given.get('trigger_word', 'TOK')))}\n"
        f"    network:\n      type: lora\n      linear: {given.get('lora_rank', 16)}\n      linear_alpha: {given.get('lora_rank', 16)}\n"
        f"    train:\n      batch_size: {given.get('batch_size', 1)}\n      steps: {training.steps}\n"
        f"      lr: {given.get('learning_rate', 0.0004)}\n      optimizer: {given.get('optimizer', 'adamw8bit')}\n"
        "meta:\n  simulated: true\n"
    )


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    """A plain tar with fixed times, so that the same members give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1735488000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive_bytes(training: Training, settings: SimulatorSettings) -> bytes:
    """What the weights URL delivers, damaged where the training's quirks ask for it."""
    damage = training.quirks.weights
    lora = safetensors_bytes(training, settings, finite=damage != "not_finite")
    captions = [(f"{FOLDER}/captions/{name}", text.encode()) for name, text in training.captions.items()]
    others = [(f"{FOLDER}/config.yaml", config_text(training).encode()), *captions]
    normal = [(f"{FOLDER}/lora.safetensors", lora), *others]
    if damage == "html":
        return HTML_PAGE
    if damage == "truncated":
        whole = tar_of(normal)
        return whole[: len(lora) // 2]
    if damage == "header_too_long":
        return tar_of([(f"{FOLDER}/lora.safetensors", struct.pack("<Q", 2**40) + lora[8:]), *others])
    if damage == "not_safetensors":
        return tar_of([(f"{FOLDER}/lora.safetensors", b"PK\x03\x04" + lora[4:]), *others])
    members = {
        "two_members": [*normal, (f"{FOLDER}/lora_000000500.safetensors", lora)],
        "dotdot": [("../../../tmp/lora.safetensors", lora), *others],
        "no_member": others,
    }.get(damage or "", normal)
    return tar_of(members)
