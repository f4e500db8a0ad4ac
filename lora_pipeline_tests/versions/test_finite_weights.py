"""A training that diverged leaves NaN or infinity: found in every float format, and nothing else is taken for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline_tests.versions.lora_files import inspected, refused_file, with_header


def lora_of(dtype: str, data: bytes, count: int) -> bytes:
    """A LoRA of rank 1 whose upper matrix has these bytes."""
    down = b"\0" * (len(data) // count)
    return with_header(
        {
            "x.lora_A.weight": {"dtype": dtype, "shape": [1, 1], "data_offsets": [0, len(down)]},
            "x.lora_B.weight": {
                "dtype": dtype,
                "shape": [count, 1],
                "data_offsets": [len(down), len(down) + len(data)],
            },
        },
        down + data,
    )


@pytest.mark.parametrize(("dtype", "view"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8"), ("BF16", "<u2")])
@given(data=st.data())
def test_weights_that_are_no_numbers_are_refused_and_all_others_taken(
    dtype: str, view: str, data: st.DataObject
) -> None:
    width = np.dtype(view).itemsize
    exponents = st.sampled_from([b"\x7f", b"\xff", b"\x7c", b"\xfc", b"\x7b", b"\x3f"])
    before = st.sampled_from([b"\x7f", b"\x80", b"\xef", b"\xf0", b"\x00"])
    number = st.one_of(
        st.binary(min_size=width, max_size=width),
        st.tuples(st.binary(min_size=width - 2, max_size=width - 2), before, exponents).map(b"".join),
    )
    numbers = data.draw(st.lists(number, min_size=1, max_size=6))
    array = np.frombuffer(b"".join(numbers), view)
    if dtype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    content = lora_of(dtype, b"".join(numbers), len(numbers))
    if np.isfinite(array).all():
        assert inspected(content).rank == 1
    else:
        refused = refused_file(content)
        assert (refused.code, refused.worth_retrying) == ("not_finite", False)


@pytest.mark.parametrize(
    ("dtype", "byte", "finite"),
    [
        ("F8_E5M2", 0x7C, False),
        ("F8_E5M2", 0x7B, True),
        ("F8_E4M3", 0xFF, False),
        ("F8_E4M3", 0x7E, True),
        ("F8_E4M3FNUZ", 0x80, False),
        ("F8_E5M2FNUZ", 0x7F, True),
        ("F8_E8M0", 0xFF, False),
        ("U8", 0xFF, True),
    ],
)
def test_eight_bit_floats_have_their_own_values_that_are_no_numbers(
    dtype: str, byte: int, finite: bool
) -> None:
    content = lora_of(dtype, bytes([1, byte, 2]), 3)
    if finite:
        assert inspected(content).tensor_count == 2
    else:
        assert refused_file(content).code == "not_finite"


def test_a_bad_number_is_found_in_any_piece_of_a_large_tensor() -> None:
    values = np.zeros(3 * 2**20, "<f2")
    values[-1] = np.inf
    assert refused_file(lora_of("F16", values.tobytes(), len(values))).code == "not_finite"
