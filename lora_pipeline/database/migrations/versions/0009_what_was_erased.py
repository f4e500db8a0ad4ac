"""Erasures with their journals and receipts, the hashed names of who was erased, and photographs that are gone"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_hash", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("rows", _JSON, nullable=False),
        sa.Column("began_at", _MOMENT, nullable=False),
        sa.Column("completed_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("user_hash", name=op.f("uq_erasures_user_hash")),
    )
    op.create_table(
        "erasure_steps",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("erasure_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("until", _MOMENT, nullable=True),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'asked', 'deleted', 'gone', 'stays')", name=op.f("ck_erasure_steps_state")
        ),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["erasures.id"], name=op.f("fk_erasure_steps_erasure_id_erasures")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure_steps")),
    )
    op.create_index(op.f("ix_erasure_steps_erasure_id"), "erasure_steps", ["erasure_id"])
    op.create_index(op.f("ix_erasure_steps_sha256"), "erasure_steps", ["sha256"])
    op.create_index(
        "ix_erasure_steps_open",
        "erasure_steps",
        ["erasure_id"],
        sqlite_where=sa.text("target IS NOT NULL"),
        postgresql_where=sa.text("target IS NOT NULL"),
    )
    op.create_table(
        "erased_names",
        sa.Column("name_hash", sa.String(length=64), nullable=False),
        sa.Column("erasure_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["erasures.id"], name=op.f("fk_erased_names_erasure_id_erasures")
        ),
        sa.PrimaryKeyConstraint("name_hash", name=op.f("pk_erased_names")),
    )
    op.create_index(op.f("ix_erased_names_erasure_id"), "erased_names", ["erasure_id"])
    with op.batch_alter_table("images") as table:
        table.add_column(sa.Column("deleted_at", _MOMENT, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("images") as table:
        table.drop_column("deleted_at")
    op.drop_table("erased_names")
    op.drop_table("erasure_steps")
    op.drop_table("erasures")
