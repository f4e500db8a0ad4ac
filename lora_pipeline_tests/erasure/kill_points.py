"""An erasure killed before each of its commits and completed by the next run: a process of its own, for it forks.

`python -m lora_pipeline_tests.erasure.kill_points FOLDER SIMULATOR` prints how many points there were, or what is wrong.
FOLDER/fresh is a home with SQLite in which the users of `lives` lived.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import event

from lora_pipeline.connections import Connections
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline.erasure.receipts import receipt
from lora_pipeline.erasure.retention import run_retention
from lora_pipeline.settings import Settings
from lora_pipeline_tests.erasure.lives import USER, Traces, found_in_database, found_in_store, traces


def opened(home: Path, simulator: str, lease: timedelta = timedelta(0)) -> Connections:
    """Without a lease, that of a killed process has run out when the next one starts."""
    return Connections(
        Settings(
            home=home,
            database_url=None,
            replicate_api_token=SecretStr("r8_test"),
            replicate_base_url=simulator,
            image_profile="demo",
            ready_quiet=timedelta(0),
            ready_images=5,
            lease=lease,
        )
    )


def erase(connections: Connections) -> str:
    erasure_id, _ = begin_erasure(connections, USER, "test")
    carry_out(connections, erasure_id, forget_partition=lambda _: True)
    return erasure_id


def killed(home: Path, simulator: str, point: int) -> bool:
    """Erase in a child that dies before its `point`-th commit; whether it came that far."""
    child = os.fork()
    if child == 0:
        connections, seen = opened(home, simulator), 0

        def count(_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(connections.database.engine, "commit", count)
        erase(connections)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed before it was killed"
    return os.WIFSIGNALED(status)


def main(folder: Path, simulator: str) -> int:
    fresh, home = folder / "fresh", folder / "home"
    before = opened(fresh, simulator)
    gone = traces(before)
    hashes = gone.hashes
    before.database.close()
    point, again = 0, True
    while again:
        point += 1
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(fresh, home)
        again = killed(home, simulator, point)
        connections = opened(home, simulator)
        if point % 2:
            erasure_id = erase(connections)
        else:
            run_retention(connections, forget_partition=lambda _: True)
            erasure_id = erase(connections)
        with connections.database.read() as session:
            shown = receipt(session, erasure_id)
        assert shown["state"] == "completed", f"point {point}: {shown['waiting']}"
        assert found_in_database(connections, gone.names | gone.jobs) == set(), f"point {point}"
        assert found_in_store(connections, Traces(gone.names, [], set(), [])) == [], f"point {point}"
        assert not list((home / "inbox" / "user-50c").glob("*")), f"point {point}: the inbox"
        kept = (connections.store.get_bytes(info.key) for info in connections.store.list("users/other"))
        kept_hashes = {hashlib.sha256(content).hexdigest() for content in kept}
        assert hashes <= kept_hashes, f"point {point}: the other user's photographs"
        connections.database.close()
    return point - 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
