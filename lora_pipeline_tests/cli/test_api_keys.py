"""`api-keys` on the command line."""

from __future__ import annotations

from lora_pipeline.access.keys import caller_with
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline_tests.cli.conftest import Run


def test_a_key_is_shown_once_listed_by_name_and_revoked(run: Run) -> None:
    assert run("db", "upgrade").code == 0
    made = run("api-keys", "create", "phone app", "--user", "42", "--json")
    assert made.code == 0, made.err
    key = made.json["key"]
    database = Connections(Settings()).database
    caller = caller_with(database, key)
    assert caller is not None
    assert (caller.actor, caller.user_id, caller.is_admin) == ("key:phone app", "42", False)

    admin = run("api-keys", "create", "operations", "--admin")
    assert admin.out.startswith("lora_")
    listed = run("api-keys", "list")
    assert "phone app" in listed.out
    assert key not in listed.out
    assert [row["scope"] for row in run("api-keys", "list", "--json").json] == ["user", "admin"]

    assert run("api-keys", "revoke", "phone app").code == 0
    assert caller_with(database, key) is None
    assert "before" in run("api-keys", "revoke", "phone app").out


def test_a_key_needs_one_scope_and_a_name_of_its_own(run: Run) -> None:
    run("db", "upgrade")
    assert run("api-keys", "create", "x").code == 2
    assert run("api-keys", "create", "x", "--user", "42", "--admin").code == 2
    assert run("api-keys", "create", "x", "--user", "42").code == 0
    again = run("api-keys", "create", "x", "--admin")
    assert again.code == 2
    assert "Choose another name" in again.err
    assert run("api-keys", "revoke", "y").code == 2
