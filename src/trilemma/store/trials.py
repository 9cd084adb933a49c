"""Finished pieces of work by the key of their content, and how many bytes of them are kept."""

import os
import warnings
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.exc import DatabaseError

from trilemma.errors import InputError
from trilemma.store.content import WRITTEN_BY, UnreadableError, packed, unpacked
from trilemma.store.tables import TRIALS
from trilemma.units import MIB

VARIABLE: Final = "TRILEMMA_STORE_MIB"
USUAL_MIB: Final = 512
KEPT: Final = 0.8  # of the bound, once it was passed: dropping a little each time would go on for ever
ASKED_AT_ONCE: Final = 500  # keys in one query: SQLite limits its variables
DROPPED_AT_ONCE: Final = 200
LOOKS: Final = 1024  # at how much is kept, while as much as the bound is written
# Written by hand: to build it anew for each result takes longer than the database does.
KEEP: Final = (
    "INSERT INTO trials (key, written_by, content) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET written_by = excluded.written_by, content = excluded.content"
)
BYTES_USED: Final = text(
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)


def most_bytes() -> int:
    """How large the database may grow: TRILEMMA_STORE_MIB, otherwise USUAL_MIB. InputError for what is no number."""
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return USUAL_MIB * MIB
    try:
        mib = float(given)
    except ValueError:
        mib = 0.0
    if not 0 < mib < float("inf"):
        raise InputError(VARIABLE, expected="a number of MiB above 0", found=repr(given))
    return int(mib * MIB)


class Trials:
    """Results under their keys. What cannot be read back counts as unknown, and is replaced.

    Where the disk is full or the database broken, nothing more is kept, with a warning: the work itself goes on.
    """

    def __init__(self, engine: Engine, *, most: int) -> None:
        """`most` in bytes of the whole database; beyond it the oldest results are dropped."""
        self._engine, self._most, self._broken = engine, most, False
        self._one_writes = Lock()  # of the threads of this process: SQLite would have them wait longer than it takes
        self._unseen = most  # bytes written since the size was last looked at: at the start it is not known

    def known(self, keys: Iterable[str]) -> dict[str, object]:
        """The results that are kept of `keys`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, object] = {}
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            for key, content in self._read(wanted[start : start + ASKED_AT_ONCE]):
                try:
                    found[key] = unpacked(content)
                except UnreadableError:
                    continue
        return found

    def _read(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        query = select(TRIALS.c.key, TRIALS.c.content).where(TRIALS.c.key.in_(keys), TRIALS.c.written_by == WRITTEN_BY)
        try:
            with self._engine.connect() as connection:
                return [(row.key, row.content) for row in connection.execute(query)]
        except DatabaseError as error:
            self._give_up(error)
            return []

    def remember(self, results: Sequence[tuple[str, object]]) -> None:
        """Keeps results, in one transaction: all of them or, where the process is killed meanwhile, none."""
        if self._broken or not results:
            return
        rows = [(key, WRITTEN_BY, packed(value)) for key, value in results]
        try:
            with self._one_writes:
                with self._engine.begin() as connection:
                    connection.exec_driver_sql(KEEP, rows)
                self._unseen += sum(len(content) for *_, content in rows)
                if self._unseen >= self._most / LOOKS:
                    self._unseen = 0
                    if self.bytes_used() > self._most:
                        self._drop_oldest()
        except DatabaseError as error:
            self._give_up(error)

    def __len__(self) -> int:
        with self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(TRIALS)).scalar_one()

    def bytes_used(self) -> int:
        """Bytes of the database that hold something; pages that wait for new rows are not among them."""
        with self._engine.connect() as connection:
            return int(connection.execute(BYTES_USED).scalar_one())

    def forget_all(self) -> None:
        """Drops every result and gives its space back."""
        with self._engine.begin() as connection:
            connection.execute(delete(TRIALS))
        self._shrink()

    def _drop_oldest(self) -> None:
        """Drops results, oldest first, until there is room again."""
        while self.bytes_used() > KEPT * self._most:
            oldest = select(TRIALS.c.number).order_by(TRIALS.c.number).limit(DROPPED_AT_ONCE)
            with self._engine.begin() as connection:
                dropped = connection.execute(delete(TRIALS).where(TRIALS.c.number.in_(oldest.scalar_subquery())))
            if not dropped.rowcount:
                break
        self._shrink()

    def _shrink(self) -> None:
        """Gives free pages back to the file system."""
        with self._engine.connect() as connection:
            # As a script: Python takes one step of a statement without rows, and this one takes a step a page.
            cursor = connection.connection.cursor()
            cursor.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.close()

    def _give_up(self, error: DatabaseError) -> None:
        if not self._broken:
            warnings.warn(f"results are not kept any longer: {error.orig}", UserWarning, stacklevel=4)
        self._broken = True
