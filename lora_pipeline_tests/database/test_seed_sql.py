"""The queries of the administrators' guides, word for word, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from lora_pipeline.database.sessions import Database
from lora_pipeline_tests.versions.fleets import add_served, provider_model

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

WHO_NEEDS_A_SYNC = """
SELECT
  u.email,
  um.replicate_model_id,
  um.replicate_version_id,
  um.updated_at
FROM user_models um
JOIN users u ON u.id = um.user_id
WHERE um.training_status = 'completed'
ORDER BY um.updated_at DESC;
"""

ONE_USER = """
SELECT
  u.email,
  um.replicate_model_id,
  um.replicate_version_id,
  um.updated_at,
  um.completed_at
FROM users u
JOIN user_models um ON u.id = um.user_id
WHERE um.replicate_model_id LIKE '%user-50c%'
  AND um.training_status = 'completed'
ORDER BY um.updated_at DESC;
"""

ONE_CUSTOMER = """
SELECT user_id, training_status, replicate_model_id, updated_at
FROM user_models WHERE user_id = '45038279';
"""


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.read() as session:
        return [tuple(row) for row in session.execute(text(query))]


def add_users(database: Database) -> None:
    for age, key in enumerate(("user-50c", "user-51d", "45038279")):
        changed = NOW - timedelta(days=age)
        add_served(
            database,
            key,
            f"{provider_model(key)}:{age:064x}",
            email=f"{key}@example.org",
            updated_at=changed,
            completed_at=changed - timedelta(hours=1),
        )
    add_served(database, "user-50c-2", None, training_status="training", email="two@example.org")


def test_completed_models_and_their_users_newest_change_first(database: Database) -> None:
    add_users(database)
    assert [row[:3] for row in rows(database, WHO_NEEDS_A_SYNC)] == [
        (f"{key}@example.org", provider_model(key), f"{provider_model(key)}:{age:064x}")
        for age, key in enumerate(("user-50c", "user-51d", "45038279"))
    ]


def test_one_users_completed_models(database: Database) -> None:
    add_users(database)
    (found,) = rows(database, ONE_USER)
    assert found[:3] == (
        "user-50c@example.org",
        provider_model("user-50c"),
        f"{provider_model('user-50c')}:{0:064x}",
    )
    assert all(found[3:])


def test_one_customers_status(database: Database) -> None:
    add_users(database)
    (found,) = rows(database, ONE_CUSTOMER)
    assert found[:3] == ("45038279", "completed", provider_model("45038279"))
