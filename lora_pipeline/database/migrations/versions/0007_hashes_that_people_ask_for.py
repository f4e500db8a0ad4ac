"""The hashes and outside ids that people ask for, found without reading every row"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ASKED_FOR = (
    ("images", "normalised_sha256"),
    ("image_sets", "external_id"),
    ("image_sets", "digest"),
    ("training_runs", "zip_sha256"),
    ("artifacts", "autov3"),
)


def upgrade() -> None:
    for table, column in _ASKED_FOR:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    for table, column in _ASKED_FOR:
        op.drop_index(op.f(f"ix_{table}_{column}"), table_name=table)
