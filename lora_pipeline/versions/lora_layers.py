"""Whether tensors are a LoRA, told by their names and shapes alone, and which LoRA rank it has.

A LoRA changes a layer by the product of two matrices: one down to the rank, one back up. Two spellings are in use:
``<layer>.lora_A.weight`` / ``lora_B`` (diffusers, PEFT, ai-toolkit) and ``<layer>.lora_down.weight`` / ``lora_up``
(kohya). Other tensors (``alpha``, ``dora_scale``, biases) may stand beside them.
"""

import re
from collections.abc import Iterable

from lora_pipeline.versions.refusal import Refusal, WeightsRefused
from lora_pipeline.versions.safetensors_file import Tensor

_MATRIX = re.compile(
    r"(?:(?P<layer>.+)\.)?lora_(?P<side>A|B|down|up)(?P<adapter>\.(?!weight$)\w+)?(?P<weight>\.weight)?",
    re.DOTALL,
)
_OTHER_SIDE = {"A": "B", "B": "A", "down": "up", "up": "down"}


def lora_rank(tensors: Iterable[Tensor]) -> int | None:
    """The rank that all layers share, or None where layers have different ranks (some trainers do that).

    Raises WeightsRefused (``not_a_lora``) where there is no pair, a matrix lacks its other half, or the two halves
    disagree about the rank.
    """
    sides: dict[tuple[str | None, ...], dict[str, Tensor]] = {}
    for tensor in tensors:
        match = _MATRIX.fullmatch(tensor.name)
        if match and match["adapter"] != ".bias":
            pair = (match["layer"], match["adapter"], match["weight"], _spelling(match["side"]))
            sides.setdefault(pair, {})[match["side"]] = tensor
    if not sides:
        raise _not_a_lora("no tensor is named lora_A and lora_B, or lora_down and lora_up")
    ranks = {_pair_rank(pair) for pair in sides.values()}
    return ranks.pop() if len(ranks) == 1 else None


def _spelling(side: str) -> str:
    return "AB" if side in "AB" else "down/up"


def _pair_rank(pair: dict[str, Tensor]) -> int:
    """Down is (rank, in, …), up is (out, rank, …): convolutions carry their kernel behind."""
    if len(pair) == 1:
        side, tensor = next(iter(pair.items()))
        raise _not_a_lora(f"{tensor.name[:200]!r} has no lora_{_OTHER_SIDE[side]} to match")
    down = pair.get("A") or pair["down"]
    up = pair.get("B") or pair["up"]
    if min(len(down.shape), len(up.shape)) < 2 or down.shape[0] != up.shape[1] or down.shape[0] < 1:
        raise _not_a_lora(
            f"{down.name[:200]!r} {_shape(down)} and {up.name[:200]!r} {_shape(up)} do not share a rank"
        )
    return down.shape[0]


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "scalar"


def _not_a_lora(what: str) -> WeightsRefused:
    return WeightsRefused(
        Refusal.NOT_A_LORA, f"The file is no LoRA: {what}. Check which trainer and which file this is"
    )
