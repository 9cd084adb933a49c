"""The store: one database file of a user, with results to go on from and the runs they belong to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from trilemma.errors import InputError
from trilemma.store.place import VARIABLE, prepare, usual_path
from trilemma.store.runs import Runs
from trilemma.store.tables import opened
from trilemma.store.trials import Trials, most_bytes


class Store:
    """An open store. Several processes may use one at the same time."""

    def __init__(self, engine: Engine, *, most: int) -> None:
        """`most` in bytes."""
        self._engine = engine
        self.trials = Trials(engine, most=most)
        self.runs = Runs(engine)

    @classmethod
    @contextmanager
    def open(cls, path: Path | None = None, *, most: int | None = None) -> Iterator[Self]:
        """The store at `path` (default: this user's), made where there is none; closed behind the block.

        InputError for a place that cannot hold it or that somebody else could have written to, and for a damaged file.
        """
        place = usual_path() if path is None else path
        try:
            prepare(place)
        except OSError as error:
            raise InputError(
                f"store {place}", expected="a file that can be written", found=str(error.strerror).lower(),
                hint=f"{VARIABLE} names another place, --no-store goes on without one",
            ) from None  # fmt: skip
        engine = opened(place)
        try:
            yield cls(engine, most=most_bytes() if most is None else most)
        except DatabaseError as error:
            raise InputError(
                f"store {place}", expected="a database that can be read and written", found=str(error.orig),
                hint="move it away: what it held is then computed anew",
            ) from None  # fmt: skip
        finally:
            engine.dispose()

    def sound(self) -> bool:
        """Whether every page of the database is as it should be."""
        try:
            with self._engine.connect() as connection:
                return bool(connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok")
        except DatabaseError:
            return False
