"""Every table of the first release"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("content_key", sa.String(length=64), nullable=False),
        sa.Column("file_sha256", sa.String(length=64), nullable=False),
        sa.Column("autov2", sa.String(length=10), nullable=False),
        sa.Column("autov3", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tensor_count", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column(
            "header_metadata", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("content_key", name=op.f("uq_artifacts_content_key")),
    )
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_artifacts_file_sha256"), ["file_sha256"], unique=False)

    op.create_table(
        "audit_log",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("details", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_log_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_log_subject"), ["subject"], unique=False)

    op.create_table(
        "controls",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("changed_by", sa.String(length=128), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_controls")),
    )
    op.create_table(
        "merge_plans",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("groups", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('planned', 'applying', 'applied', 'undoing', 'undone')",
            name=op.f("ck_merge_plans_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merge_plans")),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("asset_key", sa.String(length=100), nullable=False),
        sa.Column("partition", sa.String(length=100), nullable=True),
        sa.Column("payload", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim_token", sa.String(length=36), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_outbox_claim_token"), ["claim_token"], unique=False)
        batch_op.create_index(
            "ix_outbox_owed",
            ["id"],
            unique=False,
            sqlite_where=sa.text("acknowledged_at IS NULL"),
            postgresql_where=sa.text("acknowledged_at IS NULL"),
        )

    op.create_table(
        "review_items",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("details", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_items")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_review_items_kind_subject")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("is_house", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("active_model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_users_email"), ["email"], unique=False)

    op.create_table(
        "webhook_deliveries",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("delivery_id", sa.String(length=128), nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "provider", "delivery_id", name=op.f("uq_webhook_deliveries_provider_delivery_id")
        ),
    )
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_deliveries_job_id"), ["job_id"], unique=False)

    op.create_table(
        "artifact_locations",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("bucket", sa.String(length=255), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("object_version", sa.String(length=255), nullable=False),
        sa.Column("etag", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("overwritten_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_artifact_locations_artifact_id_artifacts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact_locations")),
        sa.UniqueConstraint(
            "namespace",
            "bucket",
            "key",
            "object_version",
            "artifact_id",
            name=op.f("uq_artifact_locations_namespace_bucket_key_object_version_artifact_id"),
        ),
    )
    with op.batch_alter_table("artifact_locations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_artifact_locations_artifact_id"), ["artifact_id"], unique=False)
        batch_op.create_index("ix_artifact_locations_object", ["namespace", "bucket", "key"], unique=False)

    op.create_table(
        "images",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("captured_on", sa.String(length=10), nullable=True),
        sa.Column("phash", sa.String(length=16), nullable=True),
        sa.Column("phash_mirror", sa.String(length=16), nullable=True),
        sa.Column("sharpness", sa.Double(), nullable=True),
        sa.Column("findings", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("normalised_key", sa.Text(), nullable=True),
        sa.Column("normalised_sha256", sa.String(length=64), nullable=True),
        sa.Column("normalised_crc32", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("normalised_size", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_images_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("user_id", "sha256", name=op.f("uq_images_user_id_sha256")),
    )
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_images_sha256"), ["sha256"], unique=False)

    op.create_table(
        "merge_journal",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("plan_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("after", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["merge_plans.id"], name=op.f("fk_merge_journal_plan_id_merge_plans")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merge_journal")),
        sa.UniqueConstraint("plan_id", "sequence", name=op.f("uq_merge_journal_plan_id_sequence")),
    )
    with op.batch_alter_table("merge_journal", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_merge_journal_plan_id"), ["plan_id"], unique=False)

    op.create_table(
        "user_models",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("model_key", sa.String(length=100), nullable=False),
        sa.Column("model_name", sa.String(length=200), nullable=False),
        sa.Column("model_type", sa.String(length=16), nullable=False),
        sa.Column("gender", sa.String(length=16), nullable=True),
        sa.Column("trigger_word", sa.String(length=64), nullable=False),
        sa.Column("training_id", sa.String(length=128), nullable=True),
        sa.Column("replicate_model_id", sa.String(length=200), nullable=True),
        sa.Column("replicate_version_id", sa.String(length=300), nullable=True),
        sa.Column("lora_weights_url", sa.Text(), nullable=True),
        sa.Column("lora_scale", sa.Double(), server_default=sa.text("(1.0)"), nullable=False),
        sa.Column("training_status", sa.String(length=16), nullable=False),
        sa.Column("training_progress", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("estimated_completion_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("is_test", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "model_type IN ('person', 'object', 'style')", name=op.f("ck_user_models_model_type")
        ),
        sa.CheckConstraint(
            "training_status IN ('pending', 'training', 'completed', 'failed', 'canceled')",
            name=op.f("ck_user_models_status"),
        ),
        sa.CheckConstraint(
            "training_progress BETWEEN 0 AND 100", name=op.f("ck_user_models_progress_percent")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_models_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_models")),
        sa.UniqueConstraint("model_key", name=op.f("uq_user_models_model_key")),
        sa.UniqueConstraint("trigger_word", name=op.f("uq_user_models_trigger_word")),
    )
    with op.batch_alter_table("user_models", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_user_models_replicate_model_id"), ["replicate_model_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_user_models_user_id"), ["user_id"], unique=False)

    op.create_table(
        "image_sets",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("manifest_key", sa.Text(), nullable=True),
        sa.Column("contact_sheet_key", sa.Text(), nullable=True),
        sa.Column("image_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("usable_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("findings", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("consent", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("last_image_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_for_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.String(length=36), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('draft', 'ready')", name=op.f("ck_image_sets_state")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["user_models.id"], name=op.f("fk_image_sets_model_id_user_models")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_sets")),
    )
    with op.batch_alter_table("image_sets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_image_sets_model_id"), ["model_id"], unique=False)
        batch_op.create_index(
            "uq_image_sets_one_draft",
            ["model_id"],
            unique=True,
            sqlite_where=sa.text("state = 'draft'"),
            postgresql_where=sa.text("state = 'draft'"),
        )

    op.create_table(
        "selfie_uploads",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("original_url", sa.Text(), nullable=False),
        sa.Column("source_fingerprint", sa.String(length=200), nullable=False),
        sa.Column("processed_url", sa.Text(), nullable=True),
        sa.Column("processing_status", sa.String(length=16), nullable=False),
        sa.Column("ai_model_output", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_selfie_uploads_image_id_images")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["user_models.id"], name=op.f("fk_selfie_uploads_model_id_user_models")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_selfie_uploads_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selfie_uploads")),
        sa.UniqueConstraint(
            "model_id",
            "original_url",
            "source_fingerprint",
            name=op.f("uq_selfie_uploads_model_id_original_url_source_fingerprint"),
        ),
    )
    with op.batch_alter_table("selfie_uploads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_selfie_uploads_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_selfie_uploads_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_selfie_uploads_user_id"), ["user_id"], unique=False)

    op.create_table(
        "image_set_members",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("image_set_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("chosen_by", sa.String(length=128), nullable=True),
        sa.Column("findings", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pending', 'included', 'excluded')", name=op.f("ck_image_set_members_verdict")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_image_set_members_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["image_set_id"],
            ["image_sets.id"],
            name=op.f("fk_image_set_members_image_set_id_image_sets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_set_members")),
        sa.UniqueConstraint(
            "image_set_id",
            "source_name",
            "image_id",
            name=op.f("uq_image_set_members_image_set_id_source_name_image_id"),
        ),
    )
    with op.batch_alter_table("image_set_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_image_set_members_image_id"), ["image_id"], unique=False)

    op.create_table(
        "training_runs",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("image_set_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("training_id", sa.String(length=128), nullable=True),
        sa.Column("simulated", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("destination", sa.String(length=200), nullable=False),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("trainer_requested", sa.String(length=300), nullable=False),
        sa.Column("trainer_returned", sa.String(length=300), nullable=True),
        sa.Column("parameters", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("parameter_policy", sa.String(length=64), nullable=False),
        sa.Column("trigger_word", sa.String(length=64), nullable=False),
        sa.Column("dataset_zip_url", sa.Text(), nullable=True),
        sa.Column("zip_key", sa.Text(), nullable=True),
        sa.Column("zip_sha256", sa.String(length=64), nullable=True),
        sa.Column("zip_size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("provider_file_id", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("hold_reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("progress_estimated", sa.Boolean(), server_default=sa.text("(true)"), nullable=False),
        sa.Column("loss_history", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("output_version", sa.String(length=300), nullable=True),
        sa.Column("output_artifact_url", sa.Text(), nullable=True),
        sa.Column("asked_by", sa.String(length=128), nullable=False),
        sa.Column("estimated_cost", sa.Double(), nullable=True),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("predict_seconds", sa.Double(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("post_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_polled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("poll_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("finalise_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.String(length=36), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state_changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("zip_deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'finalised', 'failed', 'canceled', 'aborted', 'lost', 'held')",
            name=op.f("ck_training_runs_state"),
        ),
        sa.CheckConstraint("progress BETWEEN 0 AND 100", name=op.f("ck_training_runs_progress_percent")),
        sa.ForeignKeyConstraint(
            ["image_set_id"], ["image_sets.id"], name=op.f("fk_training_runs_image_set_id_image_sets")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["user_models.id"], name=op.f("fk_training_runs_model_id_user_models")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_training_runs_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("model_id", "attempt", name=op.f("uq_training_runs_model_id_attempt")),
        sa.UniqueConstraint("token", name=op.f("uq_training_runs_token")),
    )
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_training_runs_following", ["provider", "state", "last_polled_at"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_training_runs_image_set_id"), ["image_set_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_training_runs_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_training_runs_user_id"), ["user_id"], unique=False)
        batch_op.create_index(
            "uq_training_runs_one_open",
            ["model_id"],
            unique=True,
            sqlite_where=sa.text(
                "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'lost', 'held')"
            ),
            postgresql_where=sa.text(
                "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'lost', 'held')"
            ),
        )
        batch_op.create_index(
            "uq_training_runs_provider_job",
            ["provider", "training_id"],
            unique=True,
            sqlite_where=sa.text("training_id IS NOT NULL"),
            postgresql_where=sa.text("training_id IS NOT NULL"),
        )

    op.create_table(
        "lora_weights",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("training_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("trigger_word", sa.String(length=64), nullable=False),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("s3_bucket", sa.String(length=255), nullable=False),
        sa.Column("s3_key", sa.Text(), nullable=False),
        sa.Column("file_size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("network_type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("default_scales", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("metadata", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_lora_weights_artifact_id_artifacts")
        ),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_runs.id"],
            name=op.f("fk_lora_weights_training_run_id_training_runs"),
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_lora_weights_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lora_weights")),
        sa.UniqueConstraint("training_run_id", name=op.f("uq_lora_weights_training_run_id")),
    )
    with op.batch_alter_table("lora_weights", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_lora_weights_artifact_id"), ["artifact_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_lora_weights_user_id"), ["user_id"], unique=False)

    op.create_table(
        "model_versions",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("training_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("provider_version", sa.String(length=300), nullable=True),
        sa.Column("weights_url", sa.Text(), nullable=True),
        sa.Column("weights_state", sa.String(length=16), nullable=False),
        sa.Column("trigger_word", sa.String(length=64), nullable=False),
        sa.Column("lora_scale", sa.Double(), nullable=False),
        sa.Column("parameters", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("image_count", sa.Integer(), nullable=True),
        sa.Column("provenance", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("simulated", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("trained_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "weights_state IN ('unverified', 'verified', 'missing')",
            name=op.f("ck_model_versions_weights_state"),
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_model_versions_artifact_id_artifacts")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["user_models.id"], name=op.f("fk_model_versions_model_id_user_models")
        ),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_runs.id"],
            name=op.f("fk_model_versions_training_run_id_training_runs"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("model_id", "number", name=op.f("uq_model_versions_model_id_number")),
    )
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_versions_artifact_id"), ["artifact_id"], unique=False)
        batch_op.create_index(
            "uq_model_versions_provider_version",
            ["provider_version"],
            unique=True,
            sqlite_where=sa.text("provider_version IS NOT NULL"),
            postgresql_where=sa.text("provider_version IS NOT NULL"),
        )
        batch_op.create_index(
            "uq_model_versions_training_run",
            ["training_run_id"],
            unique=True,
            sqlite_where=sa.text("training_run_id IS NOT NULL"),
            postgresql_where=sa.text("training_run_id IS NOT NULL"),
        )

    op.create_table(
        "activations",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("active_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("active_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["user_models.id"], name=op.f("fk_activations_model_id_user_models")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_activations_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activations")),
    )
    with op.batch_alter_table("activations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_activations_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_activations_version_id"), ["version_id"], unique=False)
        batch_op.create_index(
            "uq_activations_one_open",
            ["model_id"],
            unique=True,
            sqlite_where=sa.text("active_to IS NULL"),
            postgresql_where=sa.text("active_to IS NULL"),
        )

    op.create_table(
        "version_aliases",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("alias", sa.String(length=1100), nullable=False),
        sa.Column("version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_version_aliases_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version_aliases")),
        sa.UniqueConstraint("kind", "alias", name=op.f("uq_version_aliases_kind_alias")),
    )
    with op.batch_alter_table("version_aliases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_version_aliases_version_id"), ["version_id"], unique=False)

    op.create_table(
        "version_redirects",
        sa.Column(
            "old_version_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_version_redirects_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("old_version_id", name=op.f("pk_version_redirects")),
    )
    with op.batch_alter_table("version_redirects", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_version_redirects_version_id"), ["version_id"], unique=False)

    # users and user_models point at each other: the second half of the circle is closed last.
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.create_foreign_key(
            "fk_users_active_model_id_user_models",
            "user_models",
            ["active_model_id"],
            ["id"],
            ondelete="SET NULL",
        )


def downgrade() -> None:
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_constraint("fk_users_active_model_id_user_models", type_="foreignkey")

    with op.batch_alter_table("version_redirects", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_version_redirects_version_id"))

    op.drop_table("version_redirects")
    with op.batch_alter_table("version_aliases", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_version_aliases_version_id"))

    op.drop_table("version_aliases")
    with op.batch_alter_table("activations", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_activations_one_open",
            sqlite_where=sa.text("active_to IS NULL"),
            postgresql_where=sa.text("active_to IS NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_activations_version_id"))
        batch_op.drop_index(batch_op.f("ix_activations_model_id"))

    op.drop_table("activations")
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_model_versions_training_run",
            sqlite_where=sa.text("training_run_id IS NOT NULL"),
            postgresql_where=sa.text("training_run_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "uq_model_versions_provider_version",
            sqlite_where=sa.text("provider_version IS NOT NULL"),
            postgresql_where=sa.text("provider_version IS NOT NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_model_versions_artifact_id"))

    op.drop_table("model_versions")
    with op.batch_alter_table("lora_weights", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_lora_weights_user_id"))
        batch_op.drop_index(batch_op.f("ix_lora_weights_artifact_id"))

    op.drop_table("lora_weights")
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_training_runs_provider_job",
            sqlite_where=sa.text("training_id IS NOT NULL"),
            postgresql_where=sa.text("training_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "uq_training_runs_one_open",
            sqlite_where=sa.text(
                "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'lost', 'held')"
            ),
            postgresql_where=sa.text(
                "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'lost', 'held')"
            ),
        )
        batch_op.drop_index(batch_op.f("ix_training_runs_user_id"))
        batch_op.drop_index(batch_op.f("ix_training_runs_model_id"))
        batch_op.drop_index(batch_op.f("ix_training_runs_image_set_id"))
        batch_op.drop_index("ix_training_runs_following")

    op.drop_table("training_runs")
    with op.batch_alter_table("image_set_members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_image_set_members_image_id"))

    op.drop_table("image_set_members")
    with op.batch_alter_table("selfie_uploads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_selfie_uploads_user_id"))
        batch_op.drop_index(batch_op.f("ix_selfie_uploads_model_id"))
        batch_op.drop_index(batch_op.f("ix_selfie_uploads_image_id"))

    op.drop_table("selfie_uploads")
    with op.batch_alter_table("image_sets", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_image_sets_one_draft",
            sqlite_where=sa.text("state = 'draft'"),
            postgresql_where=sa.text("state = 'draft'"),
        )
        batch_op.drop_index(batch_op.f("ix_image_sets_model_id"))

    op.drop_table("image_sets")
    with op.batch_alter_table("user_models", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_user_models_user_id"))
        batch_op.drop_index(batch_op.f("ix_user_models_replicate_model_id"))

    op.drop_table("user_models")
    with op.batch_alter_table("merge_journal", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_merge_journal_plan_id"))

    op.drop_table("merge_journal")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_images_sha256"))

    op.drop_table("images")
    with op.batch_alter_table("artifact_locations", schema=None) as batch_op:
        batch_op.drop_index("ix_artifact_locations_object")
        batch_op.drop_index(batch_op.f("ix_artifact_locations_artifact_id"))

    op.drop_table("artifact_locations")
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_webhook_deliveries_job_id"))

    op.drop_table("webhook_deliveries")
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_users_email"))

    op.drop_table("users")
    op.drop_table("review_items")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_outbox_owed",
            sqlite_where=sa.text("acknowledged_at IS NULL"),
            postgresql_where=sa.text("acknowledged_at IS NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_outbox_claim_token"))

    op.drop_table("outbox")
    op.drop_table("merge_plans")
    op.drop_table("controls")
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_log_subject"))
        batch_op.drop_index(batch_op.f("ix_audit_log_at"))

    op.drop_table("audit_log")
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_artifacts_file_sha256"))

    op.drop_table("artifacts")
