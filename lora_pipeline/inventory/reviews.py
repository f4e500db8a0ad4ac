"""What only a person can decide, kept once each until somebody has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ReviewItem

_LONGEST_SUBJECT = 300


def keep_reviews(
    database: Database, kind: str, reviews: Iterable[tuple[str, dict[str, Any]]], now: datetime
) -> None:
    """Keep these (subject, details) pairs, except those of subjects that are known already."""
    with database.begin() as session:
        known = set(session.scalars(select(ReviewItem.subject).where(ReviewItem.kind == kind)))
        for whole, details in reviews:
            subject = whole[:_LONGEST_SUBJECT]
            if subject not in known:
                known.add(subject)
                session.add(ReviewItem(kind=kind, subject=subject, details=details, created_at=now))
