"""Runs: what was asked, when, how it ended, and the answer as it was printed."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from trilemma.errors import InputError
from trilemma.store.tables import ANSWERS, RUNS, forgiving

ID_LENGTH: Final = 12
SHORTEST: Final = 4  # of an id that is given by its first digits
NEAREST: Final = 3


class Status(StrEnum):
    """How far a run came."""

    RUNNING = "running"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One question as it was asked. Times in ISO 8601, UTC: `created_at` first asked, `asked_at` last; `digest` is the
    catalogue's, `program` the version; `summary` a few plain values that a list shows."""

    id: str
    kind: str
    name: str
    digest: str
    program: str
    created_at: str
    asked_at: str
    status: Status
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The answer of a run: plain values, and the text that was printed."""

    document: Mapping[str, Any]
    printed: str


class Runs:
    """The runs of a store. The same question of the same program and catalogue is the same run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, key: str, *, kind: str, name: str, digest: str, program: str) -> str:
        """Notes that a question is being worked on, and gives the id of its run, the first digits of its key."""
        now = _now()
        row = {
            "id": key[:ID_LENGTH], "kind": kind, "name": name, "digest": digest, "program": program, "created_at": now,
            "asked_at": now, "status": Status.RUNNING.value, "process": os.getpid(), "summary": "{}",
        }  # fmt: skip
        again = {"asked_at": now, "status": Status.RUNNING.value, "process": os.getpid()}
        with forgiving("run"), self._engine.begin() as connection:
            connection.execute(insert(RUNS).values(row).on_conflict_do_update(index_elements=["id"], set_=again))
        return str(row["id"])

    def end(self, run: str, status: Status, *, summary: Mapping[str, Any], kept: Kept | None) -> None:
        """Notes how a run ended, with its answer; None leaves the answer of an earlier try as it is."""
        changes = {"status": status.value, "asked_at": _now()}
        with forgiving("answer"), self._engine.begin() as connection:
            if kept is not None:
                changes["summary"] = json.dumps(summary)
                row = {"run": run, "document": _squeezed(json.dumps(kept.document)), "printed": _squeezed(kept.printed)}
                same = {name: row[name] for name in ("document", "printed")}
                connection.execute(insert(ANSWERS).values(row).on_conflict_do_update(index_elements=["run"], set_=same))
            connection.execute(update(RUNS).where(RUNS.c.id == run).values(changes))

    def asked_again(self, key: str) -> bool:
        """Notes that a run was answered from the store; False where its answer is not there."""
        run = key[:ID_LENGTH]
        kept = select(ANSWERS.c.run).where(ANSWERS.c.run == run)
        with forgiving("time of the run"), self._engine.begin() as connection:
            if connection.execute(kept).first() is None:
                return False
            connection.execute(update(RUNS).where(RUNS.c.id == run).values(asked_at=_now()))
        return True

    def all(self) -> list[Run]:
        """Every run, the last asked first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(RUNS).order_by(RUNS.c.asked_at.desc(), RUNS.c.id)).mappings().all()
        return [_run(row) for row in rows]

    def find(self, given: str) -> Run:
        """The run of an id, or of the first digits of one. InputError with the nearest ids where there is none."""
        every = {run.id: run for run in self.all()}
        word = given.strip().lower()
        if word in every:
            return every[word]
        starting = [name for name in every if len(word) >= SHORTEST and name.startswith(word)]
        if len(starting) == 1:
            return every[starting[0]]
        if starting:
            raise InputError("run", expected="digits of one run alone", found=repr(given), hint=", ".join(starting))
        raise InputError("run", expected="the id of a run", found=repr(given), hint=_nearest(word, list(every)))

    def answer(self, run: Run) -> Kept | None:
        """The answer of a run; None where it never had one."""
        query = select(ANSWERS.c.document, ANSWERS.c.printed).where(ANSWERS.c.run == run.id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Kept(document=json.loads(zlib.decompress(row.document)), printed=zlib.decompress(row.printed).decode())

    def forget(self, runs: Sequence[Run]) -> None:
        """Drops runs and their answers."""
        ids = [run.id for run in runs]
        with self._engine.begin() as connection:
            connection.execute(delete(ANSWERS).where(ANSWERS.c.run.in_(ids)))
            connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=NEAREST, cutoff=0.3)
    if near:
        return f"nearest: {', '.join(near)}"
    return f"the last: {', '.join(known[:NEAREST])}" if known else "nothing is kept yet"


def _run(row: Mapping[Any, Any]) -> Run:
    """A row as a run; one whose process is gone was interrupted, whatever it could not write down any more."""
    status = Status(row["status"])
    if status is Status.RUNNING and not _alive(row["process"]):
        status = Status.INTERRUPTED
    names = ("id", "kind", "name", "digest", "program", "created_at", "asked_at")
    return Run(**{name: row[name] for name in names}, status=status, summary=json.loads(row["summary"]))


def _alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if os.name != "posix":  # elsewhere signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _squeezed(content: str) -> bytes:
    return zlib.compress(content.encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
