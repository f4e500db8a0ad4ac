"""Connections and transactions on SQLite and PostgreSQL.

SQLite: explicit `BEGIN IMMEDIATE` for writes, because Python's default deferred transactions silently lose
concurrent read-modify-write updates (599 of 800 in a trial) and fail at once on a lock upgrade whatever
the busy timeout says; WAL so that readers never wait for the writer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import CursorResult, Delete, Engine, Update, create_engine, event, make_url
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from lora_pipeline.database.observing import session_marks

SQLITE_BUSY_MS = 30_000
POSTGRES_CONNECT_S = 5
_READ_ONLY = "lora_read_only"


def database_url(text: str) -> URL:
    """The SQLAlchemy URL for a `DATABASE_URL`, with the driver that this project ships.

    `postgres://` (as hosting providers print it) and `postgresql://` both mean psycopg 3. Raises ValueError, which
    quotes nothing of the address: a password may stand in the wrong place.
    """
    scheme, separator, rest = text.partition("://")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    try:
        url = make_url(f"{scheme}{separator}{rest}")
    except (ValueError, ArgumentError):
        raise ValueError(
            "DATABASE_URL cannot be read; expected sqlite:///path/to/file or postgresql://user:password@host/name, "
            "other characters as %40"
        ) from None
    if "@" in (url.host or ""):
        raise ValueError("DATABASE_URL has more than one @. Write an @ in the password as %40")
    return url


def shown_url(url: URL) -> str:
    """The address as people may see it: without its password, wherever that stands."""
    place = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return url.set(query=place).render_as_string(hide_password=True)


class Database:
    """One database and its transactions. Cheap to make: nothing connects before the first use.

    With `observing` its sessions refuse what would submit, serve or delete anything; see `observing`.
    """

    def __init__(self, url: str, *, observing: bool = False) -> None:
        self.url = database_url(url)
        self.observing = observing
        self.engine = _engine(self.url)
        marks = session_marks(observing)
        self._write = sessionmaker(self.engine, expire_on_commit=False, info=marks)
        self._read = sessionmaker(
            self.engine.execution_options(**{_READ_ONLY: True}),
            expire_on_commit=False,
            autoflush=False,
            info=marks,
        )
        # SQLite has no round trips to save, and its driver would come back in another transaction mode.
        self._glance = self._read if self.dialect == "sqlite" else _without_transactions(self.engine)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A writing transaction: committed at the end, rolled back on any error."""
        with self._write.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A reading transaction that takes no write lock; what it changes is thrown away."""
        with self._read() as session:
            yield session

    @contextmanager
    def glance(self) -> Iterator[Session]:
        """Reading one statement without a transaction around it: half the round trips on PostgreSQL.

        Two statements may see two different moments there; where that matters, `read`.
        """
        with self._glance() as session:
            yield session

    def drop_old_pages(self) -> None:
        """Leave no older page in SQLite's write-ahead log, as far as nobody reads; PostgreSQL's vacuum sees to its own."""
        if self.dialect != "sqlite":
            return
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    def close(self) -> None:
        self.engine.dispose()


def changed_rows(session: Session, statement: Update | Delete) -> int:
    """Run a guarded UPDATE or DELETE and say how many rows it hit: 0 means that the guard said no."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return int(result.rowcount)


def _without_transactions(engine: Engine) -> sessionmaker[Session]:
    committing = engine.execution_options(isolation_level="AUTOCOMMIT")
    return sessionmaker(committing, expire_on_commit=False, autoflush=False)


def _engine(url: URL) -> Engine:
    """Its errors quote statements without their values: tracebacks end in logs and in Dagster's storage, which no
    erasure reaches."""
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            Path(url.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # pre_ping: a database restarted under a long-lived code server must not fail the next tick.
    # psycopg would wait 130 s for a server that takes the connection and says nothing.
    within = {} if "connect_timeout" in url.query else {"connect_timeout": POSTGRES_CONNECT_S}
    return create_engine(
        url, hide_parameters=True, pool_pre_ping=True, pool_size=5, max_overflow=20, connect_args=within
    )


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    raw: Any = connection
    raw.isolation_level = None  # SQLAlchemy's begin event speaks, not the driver
    cursor = raw.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        # What is deleted is overwritten: a file's free pages would still spell out who was erased.
        "secure_delete=ON",
        f"busy_timeout={SQLITE_BUSY_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
