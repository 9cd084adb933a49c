"""The database: its tables, and how it is opened so that a killed process damages nothing."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import CreateTable

from trilemma.errors import InputError

SCHEMA: Final = 1
APPLICATION: Final = 0x74726C6D  # "trlm": tells this database from another program's
WAIT_MS: Final = 30_000  # for another process that is writing

METADATA: Final = MetaData()
# One row a finished piece of work: `number` counts up, so the lowest is the oldest.
TRIALS: Final = Table(
    "trials",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("written_by", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
# One row a question asked of a program and catalogue; times are ISO 8601 in UTC.
RUNS: Final = Table(
    "runs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("program", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("asked_at", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("process", Integer, nullable=False),
    Column("summary", Text, nullable=False),
)
# Apart from `runs`, so that a list reads no page of them: JSON and the printed text, compressed.
ANSWERS: Final = Table(
    "answers",
    METADATA,
    Column("run", Text, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("printed", LargeBinary, nullable=False),
)


def opened(path: Path) -> Engine:
    """The database at `path`, its tables made. InputError where the file holds something else.

    The log is written ahead (WAL): a process killed at any moment leaves every finished transaction and no half one.
    Commits do not wait for the disk; a power cut may take the last of them, and damages nothing either.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT_MS / 1000})
    event.listen(engine, "connect", _set_up)
    try:
        with engine.begin() as connection:
            _make_tables(connection, path)
    except DatabaseError as error:
        engine.dispose()
        raise InputError(
            f"store {path}", expected="a database of trilemma that can be read and written", found=str(error.orig),
            hint="move it away, or go on with --no-store",
        ) from None  # fmt: skip
    except InputError:
        engine.dispose()
        raise
    return engine


def _make_tables(connection: Connection, path: Path) -> None:
    """The tables, where they are not there yet; the mark of ours first, so that two processes may do it at once."""
    empty = not connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one()
    if empty:
        connection.execute(text(f"PRAGMA application_id = {APPLICATION}"))
    application = connection.execute(text("PRAGMA application_id")).scalar_one()
    schema = connection.execute(text("PRAGMA user_version")).scalar_one()
    if application != APPLICATION or schema not in {0, SCHEMA}:
        found = f"version {schema}" if application == APPLICATION else "a database of another program"
        raise InputError(
            f"store {path}", expected=f"a database of trilemma, version {SCHEMA}", found=found,
            hint="move it away, or go on with --no-store",
        )  # fmt: skip
    if schema != SCHEMA:
        for table in METADATA.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(text(f"PRAGMA user_version = {SCHEMA}"))


def _set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    """What every connection is told; auto_vacuum only takes before the first table is made."""
    for pragma in (
        f"busy_timeout = {WAIT_MS}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = NORMAL",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


@contextmanager
def forgiving(what: str) -> Iterator[None]:
    """Lets work go on where the database cannot take `what` (a full disk, a lock held for long), with a warning."""
    try:
        yield
    except DatabaseError as error:
        warnings.warn(f"{what} not kept: {error.orig}", UserWarning, stacklevel=4)
