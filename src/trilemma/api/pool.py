"""Work spread over this machine's cores."""

import gc
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, get_ident
from typing import Any, TypeVar, cast

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.model import Model
from trilemma.catalogue.precision import Precision
from trilemma.errors import InputError
from trilemma.planner.work import HERE, Executor
from trilemma.store.content import Writer, without_collection

T = TypeVar("T")
R = TypeVar("R")
FUNCTIONS_KEPT = 4  # by each worker: a plan has few, and each holds a whole workload
ROWS = (Model, Precision, Accelerator, Engine)
ROWS_KEPT = 4096  # of which it is known where they are written: results read from a store each bring their own
RARELY = (100_000, 20, 100)  # when a worker looks for garbage: a simulation leaves next to none that goes round
ENGINES = ("processes", "ray")


class Processes:
    """Spreads items over worker processes; results come in the order of the items.

    What is large and comes again and again is written to a file once, and each worker reads it once, instead of
    travelling with every item: the function, which carries a workload, and the models and rows of the catalogue that
    items and results are made of. Several threads may map at once.
    """

    is_shared = True

    def __init__(self, pool: ProcessPoolExecutor, folder: Path) -> None:
        """`folder` holds the files; nobody else may write there."""
        self._pool, self._folder = pool, folder

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """function(item) for every item, in order."""
        futures = self._submitted(function, items)
        try:
            while futures:
                yield cast(R, _loaded(futures.pop(0).result()))
        finally:
            _cancel(futures)

    def arrivals(self, function: Callable[[T], R], items: Sequence[T], /) -> Iterator[list[tuple[int, R]]]:
        """(position, result) as they come, in batches of what is there."""
        futures = self._submitted(function, items)
        positions = {future: position for position, future in enumerate(futures)}
        done: SimpleQueue[Future[bytes]] = SimpleQueue()
        try:
            for future in futures:
                future.add_done_callback(done.put)
            left = len(futures)
            while left:
                batch = [done.get(), *_at_once(done)]
                left -= len(batch)
                good = [
                    (positions[future], cast(R, _loaded(future.result())))
                    for future in batch
                    if future.exception() is None
                ]
                if good:
                    yield good
                for future in batch:
                    future.result()
        finally:
            _cancel(futures)

    def _submitted(self, function: Callable[[T], R], items: Iterable[T]) -> "list[Future[bytes]]":
        path = self._written(pickle.dumps(function, protocol=5))
        reductions = dict.fromkeys(ROWS, self._reduced_row)
        with _without_interrupts():  # workers start now, and must leave Ctrl-C to this process
            return [self._pool.submit(_call, path, _dumped(item, reductions)) for item in items]

    def _reduced_row(self, row: object) -> object:
        """A row as the file that holds it."""
        known = _paths.get(id(row))
        if known is None:
            path = self._written(pickle.dumps(row, protocol=5))
            _note_row(path, row)
            known = row, path
        return _row, (known[1],)

    def _written(self, content: bytes) -> str:
        """The file that holds this."""
        path = self._folder / sha256(content).hexdigest()
        if not path.exists():  # whole or not at all: another thread may look for it meanwhile
            begun = path.with_suffix(f".{get_ident()}")
            begun.write_bytes(content)
            begun.replace(path)
        return str(path)


def _at_once(queue: "SimpleQueue[Future[R]]") -> Iterator["Future[R]"]:
    """What is in the queue by now."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def _cancel(futures: Iterable["Future[Any]"]) -> None:
    for future in futures:
        future.cancel()


_rows: dict[str, object] = {}  # of files: the rows that this process holds of them
_paths: dict[int, tuple[object, str]] = {}  # by id, with the row itself, so that the id stays its own


def _note_row(path: str, row: object) -> None:
    if len(_paths) >= ROWS_KEPT:
        _paths.clear()
    _paths[id(row)] = row, path
    _rows.setdefault(path, row)


def _row(path: str) -> object:
    """The row of a file, the same one each time."""
    if path not in _rows:
        _note_row(path, pickle.loads(Path(path).read_bytes()))
    return _rows[path]


def _reduced_known_row(row: Any) -> object:  # noqa: ANN401 - any row
    """In a worker: a row as the file it came from; one that was made here as itself."""
    known = _paths.get(id(row))
    return row.__reduce_ex__(5) if known is None else (_row, (known[1],))


def _dumped(value: object, reductions: Mapping[type, Callable[[Any], object]]) -> bytes:
    buffer = BytesIO()
    Writer(buffer, reductions).dump(value)
    return buffer.getvalue()


def _loaded(content: bytes) -> object:
    """What another process of this pool wrote."""
    with without_collection():
        return pickle.loads(content)


def _call(path: str, item: bytes) -> bytes:
    """In a worker: the function of that file on one item."""
    return _dumped(_function(path)(_loaded(item)), dict.fromkeys(ROWS, _reduced_known_row))


@lru_cache(maxsize=FUNCTIONS_KEPT)
def _function(path: str) -> Callable[[Any], Any]:
    return cast(Callable[[Any], Any], pickle.loads(Path(path).read_bytes()))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Holds SIGINT back; processes started meanwhile never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    """In a worker: ends it when the process that started it is gone, even if that was killed. What it was forked with
    stays for good, and need not be looked through for garbage."""
    gc.freeze()
    gc.set_threshold(*RARELY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


@contextmanager
def workers(count: int | None = None, *, engine: str = "processes") -> Iterator[Executor]:
    """An executor over `count` processes (default: all cores); with one, the work stays in this process.

    `engine` "ray" spreads over a Ray cluster instead, whatever `count`. Workers are never forked from this process,
    whose threads they would not get: where the system can, from a server that has read all they need (`api.warm`), else
    each is started anew. Whatever ends the block but its own end stops them at once.
    """
    if engine not in ENGINES:
        raise InputError("--engine", expected=f"one of {', '.join(ENGINES)}", found=repr(engine))
    if engine == "ray":
        from trilemma.api.ray_pool import ray_workers

        with ray_workers() as executor:
            yield executor
        return
    wanted = cores() if count is None else count
    if wanted <= 1:
        yield HERE
        return
    with tempfile.TemporaryDirectory(prefix="trilemma-") as folder:
        pool = ProcessPoolExecutor(wanted, mp_context=_context(), initializer=_begin_worker)
        try:
            yield Processes(pool, Path(folder))
        except BaseException:
            _terminate(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            _rows.clear()
            _paths.clear()


def prepare_workers(count: int | None = None) -> None:
    """Starts what workers are forked from, which takes half a second beside this process, where there will be some."""
    context = _context()
    if (cores() if count is None else count) > 1 and context.get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with _without_interrupts():
            ensure_running()


def _context() -> BaseContext:
    """How workers are started."""
    if "forkserver" not in get_all_start_methods():  # Windows
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["trilemma.api.warm"])
    return context


def _terminate(pool: ProcessPoolExecutor) -> None:
    """Ends the workers in the middle of their work; the pool has no public way to, before Python 3.14."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()
