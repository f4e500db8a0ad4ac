"""What the buckets showed when they were last listed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "inventory_places",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("bucket", sa.String(length=255), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("marker", sa.Text(), nullable=False),
        sa.Column("pass_began_at", _MOMENT, nullable=True),
        sa.Column("counts", _JSON, nullable=False),
        sa.Column("completed_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inventory_places")),
        sa.UniqueConstraint(
            "namespace", "bucket", "prefix", name=op.f("uq_inventory_places_namespace_bucket_prefix")
        ),
    )
    op.create_table(
        "inventory_objects",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("bucket", sa.String(length=255), nullable=False),
        sa.Column("key", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("object_version", sa.String(length=255), nullable=False),
        sa.Column("etag", sa.String(length=128), nullable=False),
        sa.Column("size", _ROW_ID, nullable=False),
        sa.Column("modified", _MOMENT, nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("overwritten_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("claims", _JSON, nullable=False),
        sa.Column("file_sha256", sa.String(length=64), nullable=True),
        sa.Column("artifact_id", _ROW_ID, nullable=True),
        sa.Column("version_id", _ROW_ID, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("first_seen", _MOMENT, nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'attached', 'expected', 'unregistered', 'doubtful', 'refused')",
            name=op.f("ck_inventory_objects_state"),
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["artifacts.id"],
            name=op.f("fk_inventory_objects_artifact_id_artifacts"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name=op.f("fk_inventory_objects_version_id_model_versions"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inventory_objects")),
        sa.UniqueConstraint(
            "namespace", "bucket", "key", "object_version", "etag", "size", name="uq_inventory_objects_bytes"
        ),
    )
    op.create_index(op.f("ix_inventory_objects_artifact_id"), "inventory_objects", ["artifact_id"])
    op.create_index(op.f("ix_inventory_objects_version_id"), "inventory_objects", ["version_id"])
    op.create_index("ix_inventory_objects_state", "inventory_objects", ["state", "id"])
    op.create_index(
        "ix_inventory_objects_listed",
        "inventory_objects",
        ["namespace", "bucket", "key"],
        sqlite_where=sa.text("listed = 1"),
        postgresql_where=sa.text("listed"),
    )


def downgrade() -> None:
    op.drop_table("inventory_objects")
    op.drop_table("inventory_places")
