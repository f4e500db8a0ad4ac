"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

JOB = "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"
FILE = "resources/style_images/1_ink_intensity/training_versions.json"
SHOW = "from lora_pipeline.cli.output import show_table; show_table({rows}, {columns}, title='a title')"


def shown(rows: list[dict[str, str]], columns: list[str]) -> list[str]:
    """The lines that a terminal of 80 columns shows, without colours."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", SHOW.format(rows=rows, columns=columns)],
        stdout=theirs,
        check=True,
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    return written.decode().replace("\r\n", "\n").split("\n")


def test_ids_that_do_not_fit_side_by_side_are_shown_whole_one_value_a_line() -> None:
    lines = shown([{"file": FILE, "stays": JOB, "merged_into_it": ""}], ["file", "stays", "merged_into_it"])
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.strip()] == [
        ["a", "title"],
        ["file", FILE],
        ["stays", JOB],
    ]


def test_what_fits_is_a_table_and_two_columns_always_are() -> None:
    lines = shown([{"entry": JOB, "defect": "no_reason", "n": "1"}], ["entry", "defect", "n"])
    assert [line.split() for line in lines if JOB in line] == [[JOB, "no_reason", "1"]]
    lines = shown([{"what": "weights", "value": "x" * 100}], ["what", "value"])
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines) == 100
