"""Generated trees of training_versions.json with known truth: what is one LoRA, what only looks like one."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

BUCKET = "storyboard-user-files"
FOLDER = "actor_maker_user/custom-styles-models"
NAME = "training_versions.json"

# One object in eight spellings.
SPELLINGS = (
    "https://{bucket}.s3-accelerate.amazonaws.com/{key}",
    "https://{bucket}.s3.us-west-1.amazonaws.com/{key}",
    "https://s3-accelerate.amazonaws.com/{bucket}/{key}",
    "s3://{bucket}/{key}",
    "https://{bucket}.s3.amazonaws.com/{key}",
    "https://s3.us-west-1.amazonaws.com/{bucket}/{key}",
    "https://{bucket}.s3.dualstack.us-west-1.amazonaws.com/{key}",
    "https://{bucket}.s3.us-west-1.amazonaws.com/{key}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0f1e2d",
)

PARAMETERS: dict[str, Any] = {
    "network_dim": 16,
    "network_alpha": 16,
    "learning_rate": 0.0001,
    "max_train_steps": 2000,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "optimizer_type": "adamw8bit",
    "batch_size": 1,
    "num_repeats": 10,
    "gradient_dtype": "bf16",
    "save_every_n_steps": 500,
    "class_tokens": "style1",
}

# The two entries of one LoRA as the two writers of the older system left them.
WEBHOOK_ENTRY: dict[str, Any] = {
    "id": "3e248bb6-012c-4384-ae6c-4b19c126d093-e1",
    "name": "V7",
    "timestamp": "2025-10-12T08:14:00.884Z",
    "parameters": {"network_dim": 16, "network_alpha": 16, "learning_rate": 0.0001},
    "status": "completed",
    "selectionSetId": 1,
    "imageCount": 43,
    "loraUrl": f"https://{BUCKET}.s3-accelerate.amazonaws.com/{FOLDER}/style_1_vV7.safetensors",
    "completedAt": "2025-10-12T08:41:05.201Z",
}
SYNCED_ENTRY: dict[str, Any] = {
    "id": "style_1_vV7",
    "name": "style_1_vV7.safetensors",
    "status": "completed",
    "loraUrl": f"https://{BUCKET}.s3.us-west-1.amazonaws.com/{FOLDER}/style_1_vV7.safetensors",
    "timestamp": "2025-10-12T08:41:02+00:00",
    "lastSynced": "2025-10-12T09:46:20.075Z",
    "parameters": {},
    "description": "Synced from S3",
}


@dataclass
class Truth:
    """What a generated tree holds."""

    files: list[Path] = field(default_factory=list)
    loras: dict[Path, list[dict[str, Any]]] = field(default_factory=dict)
    """For each file the LoRAs that must be left, each with the fields that its entry must have."""
    entries: int = 0
    duplicates: int = 0


def write(path: Path, value: Any, *, indent: int | None = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False))
    return path


def style_file(base: Path, number: int, slug: str = "ink_intensity") -> Path:
    return base / "resources" / "style_images" / f"{number}_{slug}" / NAME


def actor_file(base: Path, number: int, slug: str = "ada") -> Path:
    return base / "resources" / "actors" / f"{number:04d}_{slug}" / NAME


def make_tree(base: Path, files: int, loras: int = 5, seed: int = 1) -> Truth:
    """`files` files of `loras` LoRAs each, most of them twice and some three times: about 10 entries a file of 5."""
    truth = Truth()
    generator = random.Random(seed)
    for number in range(1, files + 1):
        style = number % 4 != 0
        path = style_file(base, number) if style else actor_file(base, number)
        name = f"style_{number}" if style else f"actor_{number}"
        entries, wanted = _file(generator, name, loras, style=style)
        wrapper = {"versions": entries, "schema": 3, "owner": {"team": "Grün"}}
        write(path, wrapper, indent=generator.choice([2, 2, 2, 4, None]))
        truth.files.append(path)
        truth.loras[path] = wanted
        truth.entries += len(entries)
        truth.duplicates += len(entries) - len(wanted)
    return truth


def _file(
    generator: random.Random, name: str, loras: int, *, style: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    entries: list[dict[str, Any]] = []
    wanted: list[dict[str, Any]] = []
    for number in range(loras, 0, -1):
        key = f"{FOLDER}/{name}_vV{number}.safetensors"
        rich = _webhook(generator, number, _url(generator, key), style=style)
        copies = [
            _synced(generator, f"{name}_vV{number}", _url(generator, key))
            for _ in range(generator.choice([0, 1, 1, 1, 2]))
        ]
        if copies and generator.random() < 0.4:
            copies[0]["isGood"] = generator.random() < 0.5
        elif generator.random() < 0.3:
            rich["isGood"] = True
        group = [rich, *copies]
        wanted.append(
            {
                "id": rich["id"],
                "ids": {entry["id"] for entry in group},
                "keys": {key for entry in group for key in entry},
                "parameters": rich["parameters"],
                "isGood": next((entry["isGood"] for entry in group if "isGood" in entry), None),
                "lastSynced": max((entry["lastSynced"] for entry in copies), default=None),
            }
        )
        entries += group
    # The same file name in another folder is another LoRA; a failed training is none.
    lookalike = _synced(generator, f"{name}_vV1", _url(generator, f"archive/2024/{name}_vV1.safetensors"))
    failed = _webhook(generator, loras + 1, None, style=style) | {
        "status": "failed",
        "error": "Training failed",
    }
    wanted += [
        {
            "id": single["id"],
            "ids": {single["id"]},
            "keys": set(single),
            "parameters": single["parameters"],
            "isGood": None,
            "lastSynced": single.get("lastSynced"),
        }
        for single in (lookalike, failed)
    ]
    entries = [failed, *entries, lookalike]
    if generator.random() < 0.5:
        generator.shuffle(entries)
    return entries, wanted


def _url(generator: random.Random, key: str) -> str:
    return generator.choice(SPELLINGS).format(bucket=BUCKET, key=key)


def _webhook(generator: random.Random, number: int, url: str | None, *, style: bool) -> dict[str, Any]:
    parameters = {key: value for key, value in PARAMETERS.items() if style or key != "save_every_n_steps"}
    entry = {
        "id": f"{UUID(int=generator.getrandbits(128))}-e{generator.choice([1, 2])}",
        "name": f"V{number}",
        "timestamp": f"2025-10-{number % 28 + 1:02d}T08:14:00.{generator.randrange(1000):03d}Z",
        "parameters": parameters,
        "status": "completed",
        "selectionSetId": number,
        "imageCount": generator.randrange(5, 60),
        "myOwnKey": {"note": "größer", "value": 1e-07},
    }
    if url is not None:
        entry["loraUrl"] = url
        if generator.random() < 0.66:
            entry["completedAt"] = f"2025-10-{number % 28 + 1:02d}T08:41:05.{generator.randrange(1000):03d}Z"
    return entry


def _synced(generator: random.Random, name: str, url: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": f"{name}.safetensors",
        "status": "completed",
        "loraUrl": url,
        "timestamp": f"2025-10-12T08:{generator.randrange(60):02d}:02+00:00",
        "lastSynced": f"2025-10-12T09:{generator.randrange(60):02d}:20.075Z",
        "parameters": {},
        "description": "Synced from S3",
    }


def faults(truth: Truth) -> list[str]:
    """What a deduplicated tree lacks of the truth: a lost LoRA, a duplicate left, a lost field, an id without heir."""
    found = []
    for path in truth.files:
        entries = json.loads(path.read_text())["versions"]
        left = {entry["id"]: entry for entry in entries}
        if len(left) != len(entries) or len(entries) != len(truth.loras[path]):
            found.append(f"{path}: {len(entries)} entries of {len(left)} ids, {len(truth.loras[path])} LoRAs")
        for wanted in truth.loras[path]:
            entry = left.get(wanted["id"], {})
            if {entry.get("id"), *entry.get("mergedIds", [])} != wanted["ids"]:
                found.append(f"{path}: ids of {wanted['id']}")
            found += [f"{path}: {key} of {wanted['id']} lost" for key in wanted["keys"] - set(entry)]
            found += [
                f"{path}: {key} of {wanted['id']} is {entry.get(key)}"
                for key in ("parameters", "isGood", "lastSynced")
                if entry.get(key) != wanted[key]
            ]
    return found


def snapshot(base: Path) -> dict[str, bytes]:
    """Every file under `base` with its bytes."""
    return {
        str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()
    }
