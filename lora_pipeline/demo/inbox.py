"""Dropping the demo's photographs into an inbox."""

from __future__ import annotations

import shutil
from pathlib import Path

from lora_pipeline.demo.photographs import photographs
from lora_pipeline.demo.shots import DemoModel
from lora_pipeline.image_sets.names import MODEL_DESCRIPTION


def drop_photographs(inbox: Path, model: DemoModel) -> bool:
    """Put a model's folder into the inbox, all of it at once; False where it lies there already.

    A folder that is there is left alone, whatever a person has added since: a file that was written again would
    look like a new one.
    """
    folder = inbox / model.key
    if folder.exists():
        return False
    inbox.mkdir(parents=True, exist_ok=True)
    # Beside the inbox: inside it, a half-filled folder would be taken for a model.
    preparing = inbox.with_name(f"{inbox.name}.preparing-{model.key}")
    shutil.rmtree(preparing, ignore_errors=True)
    preparing.mkdir()
    for name, data in photographs(model).items():
        (preparing / name).write_bytes(data)
    (preparing / MODEL_DESCRIPTION).write_text(model.description, encoding="utf-8")
    preparing.rename(folder)
    return True
