"""The two servers as commands."""

from __future__ import annotations

import socket

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline_tests.cli.conftest import Run


@pytest.mark.parametrize("server", ["api", "simulator"])
def test_a_port_that_is_taken_is_an_error_and_not_drift(run: Run, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(server, "--port", str(taken.getsockname()[1]))
    assert ended.code == Exit.ERROR
    assert "address already in use" in ended.err
