"""Which safetensors files are a LoRA, and of which rank."""

import numpy as np
import pytest

from lora_pipeline_tests.versions.lora_files import (
    Tensors,
    diffusers_lora,
    inspected,
    kohya_lora,
    refused_file,
    saved,
)


@pytest.mark.parametrize("tensors", [diffusers_lora(rank=4), kohya_lora(rank=4)], ids=["diffusers", "kohya"])
def test_both_namings_tell_the_rank(tensors: Tensors) -> None:
    record = inspected(saved(tensors))
    assert (record.rank, record.network_type, record.tensor_count) == (4, "lora", len(tensors))


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("x.lora_A", "x.lora_B"),
        ("x.lora_A.default.weight", "x.lora_B.default.weight"),
        ("lora_down.weight", "lora_up.weight"),
    ],
)
def test_names_without_weight_or_with_an_adapter_name_are_pairs_too(down: str, up: str) -> None:
    assert (
        inspected(saved({down: np.ones((3, 5)), up: np.ones((7, 3)), "x.lora_B.bias": np.ones(7)})).rank == 3
    )


def test_a_convolution_carries_its_kernel_behind_the_rank() -> None:
    tensors = {"c.lora_down.weight": np.ones((4, 8, 3, 3)), "c.lora_up.weight": np.ones((16, 4, 1, 1))}
    assert inspected(saved(tensors)).rank == 4


def test_layers_of_different_rank_have_no_single_rank() -> None:
    tensors = diffusers_lora(rank=4)
    tensors |= {"conv.lora_A.weight": np.ones((8, 3)), "conv.lora_B.weight": np.ones((3, 8))}
    assert inspected(saved(tensors)).rank is None


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"model.weight": np.ones((4, 4))}, "no tensor is named"),
        ({"x.lora_A.weight": np.ones((4, 8))}, "no lora_B"),
        ({"x.lora_A.weight": np.ones((4, 8)), "x.lora_up.weight": np.ones((8, 4))}, "no lora_"),
        ({"x.lora_A.weight": np.ones((4, 8)), "y.lora_B.weight": np.ones((8, 4))}, "no lora_"),
        ({"x.lora_A.weight": np.ones((4, 8)), "x.lora_B.weight": np.ones((8, 3))}, "do not share a rank"),
        ({"x.lora_A.weight": np.ones(4), "x.lora_B.weight": np.ones(4)}, "do not share a rank"),
        ({"x.lora_A.weight": np.ones((0, 8)), "x.lora_B.weight": np.ones((8, 0))}, "do not share a rank"),
    ],
)
def test_what_has_no_matching_pairs_is_no_lora(tensors: Tensors, reason: str) -> None:
    refused = refused_file(saved(tensors))
    assert refused.code == "not_a_lora"
    assert reason in str(refused)
    assert not refused.worth_retrying
