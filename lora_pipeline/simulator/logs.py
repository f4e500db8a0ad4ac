"""The log of a simulated trainer, in the shape of ai-toolkit's under the ostris trainer.

Progress bars end in a carriage return and not in a newline; other bars (downloads, latents, upload) run before and
after the training's own, so that only `flux_train_replicate:` lines tell the training's progress, and the last match
counts. The loss falls, noisily, as a function of the training's id.
"""

from __future__ import annotations

import hashlib
import math

from lora_pipeline.simulator.trainings import Training

FIRST_LINE = "[SIMULATED] no GPU, no model: this log is made up by lora_pipeline's provider simulator\n"
CELLS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int = 10) -> str:
    """tqdm's bar: whole cells, then one partial cell, then spaces."""
    whole, part = divmod(int(share * width * 8), 8)
    text = CELLS[8] * whole + (CELLS[part] if part else "")
    return text.ljust(width)


def span(seconds: float) -> str:
    """tqdm's time: MM:SS, with hours where there are any."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes:02d}:{secs:02d}"


def pace(done: int, seconds: float, unit: str = "it") -> str:
    """tqdm's rate: units a second, or seconds a unit where it is slower than one."""
    rate = done / seconds if seconds else 0.0
    if not rate:
        return f"?{unit}/s"
    return f"{rate:.2f}{unit}/s" if rate >= 1 else f"{1 / rate:.2f}s/{unit}"


def progress(label: str, done: int, total: int, seconds: float, extra: str = "", unit: str = "it") -> str:
    """One tqdm line without its line end."""
    left = span(seconds / done * (total - done)) if done else "?"
    share = done / total if total else 1.0
    return (
        f"{label}{share * 100:3.0f}%|{bar(share)}| {done}/{total} "
        f"[{span(seconds)}<{left}, {pace(done, seconds, unit)}{extra}]"
    )


def loss_at(identity: str, step: int, steps: int) -> float:
    """The loss at a step: falls from about 0.5 towards 0.25, with noise; the same for the same training."""
    noise = int.from_bytes(hashlib.sha256(f"{identity}/{step}".encode()).digest()[:4], "big") / 2**32
    return (0.25 + 0.25 * math.exp(-4 * step / max(steps, 1))) * (0.9 + 0.2 * noise)


def step_line(training: Training, step: int, seconds: float) -> str:
    """The trainer's own progress line after `step` steps."""
    rate = float(training.input.get("learning_rate") or 4e-4)
    loss = loss_at(training.id, step, training.steps)
    extra = f", lr: {rate:.1e} loss: {loss:.1e}"
    return progress("flux_train_replicate: ", step, training.steps, seconds, extra)


def setup_text(training: Training, share: float) -> str:
    """What is printed before the first step; `share` of it has passed."""
    images = training.images or 12
    lines = [
        FIRST_LINE,
        f"Extracted {images} files from zip to input_images\n",
        *(progress("Fetching 23 files: ", i, 23, i * 0.4) + "\r" for i in range(0, 24, 3)),
        progress("Fetching 23 files: ", 23, 23, 9.2) + "\n",
        "Loading Flux model\n",
        *(progress("Loading checkpoint shards: ", i, 3, i * 1.7) + "\r" for i in range(4)),
        "\nQuantizing transformer\nLoading vae\nLoading t5\nLoading clip\nmaking pipe\npreparing\n",
        f"create LoRA network. base dim (rank): {training.input.get('lora_rank', 16)}, alpha: {training.input.get('lora_rank', 16)}\n",
        "create LoRA for Text Encoder: 0 modules.\ncreate LoRA for U-Net: 494 modules.\nenable LoRA for U-Net\n",
        f"Dataset: input_images\n  -  Preprocessing image dimensions\n{progress('', images, images, images * 0.01)}\n",
        *(progress("Caching latents: ", i, images, i * 0.2) + "\r" for i in range(images + 1)),
        "\n",
    ]
    return "".join(lines[: math.ceil(len(lines) * share)])


def closing_text(share: float) -> str:
    """What is printed after the last step: bars at 100 % that do not mean that the training has succeeded."""
    lines = [
        "\nSaved to output/flux_train_replicate/flux_train_replicate.safetensors\n",
        *(progress("Generating Images: ", i, 4, i * 3.0) + "\r" for i in range(5)),
        "\nCreating archive\n",
        *(progress("Uploading: ", i, 164, i / 20, unit="MB") + "\r" for i in range(0, 165, 41)),
        "\n",
    ]
    return "".join(lines[: math.ceil(len(lines) * share)])


def log_text(training: Training, life: float, line_count: int) -> str:
    """The whole log as it stands at this moment of life, with at most `line_count` lines of training progress."""
    until = min(life, training.ends_life)
    if until < training.starts_life:
        return ""
    if training.archive == "refused":
        return f"{FIRST_LINE}Traceback (most recent call last):\n  ...\n{training.error}\n"
    setup_share = 1.0 if training.setup_s <= 0 else (until - training.starts_life) / training.setup_s
    text = setup_text(training, min(setup_share, 1.0))
    if setup_share < 1:
        return text
    done = training.steps_at(until)
    whole = training.last_step_life - training.first_step_life
    if training.ends_life > until + 1e12:
        whole = training.steps * 0.9
    stride = max(1, training.steps // line_count)
    shown = [*range(0, done, stride), done]
    text += "".join(step_line(training, step, whole * step / training.steps) + "\r" for step in shown)
    if training.outcome == "failed" and training.error and until >= training.ends_life:
        return text + f"\nTraceback (most recent call last):\n  ...\n{training.error}\n"
    closing = (until - training.last_step_life) / training.upload_s if training.upload_s > 0 else 1.0
    if done < training.steps or closing < 0:
        return text
    return text + closing_text(min(closing, 1.0))
