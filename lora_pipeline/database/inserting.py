"""Inserting what may be there already, in the words of the database at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Base


def insertion(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT into the table that can say what is to happen ON CONFLICT."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_unless_there(
    session: Session, table: type[Base], unique: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows (by column name), but not those whose unique columns are taken, even if by another transaction now."""
    if rows:
        # Rows as parameters, not as VALUES: the statement is compiled once, whatever their number.
        statement = insertion(session, table).on_conflict_do_nothing(index_elements=unique)
        session.execute(statement, [dict(row) for row in rows])
