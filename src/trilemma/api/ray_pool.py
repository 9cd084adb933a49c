"""Work spread over a Ray cluster, for questions too large for one machine."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import trilemma
from trilemma.errors import UnsupportedError

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 10  # of one item whose worker was lost


class RayTasks:
    """Every item a task. One whose worker or machine is lost is done again elsewhere; results come in the order of the
    items and are those that one process gives. What the function itself raises is raised here."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - the module, imported late
        """`ray` is connected to a cluster."""
        self._ray = ray
        self._task = ray.remote(max_retries=RETRIES, num_cpus=1)(_call)

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """function(item) for every item, in order."""
        waiting = self._submitted(function, items)
        try:
            while waiting:
                yield self._ray.get(waiting[0])
                waiting.pop(0)
        finally:
            self._cancel(waiting)

    def arrivals(self, function: Callable[[T], R], items: Sequence[T], /) -> Iterator[list[tuple[int, R]]]:
        """(position, result) as they come."""
        waiting = self._submitted(function, items)
        positions = {task: position for position, task in enumerate(waiting)}
        try:
            while waiting:
                done, waiting = self._ray.wait(waiting, num_returns=1)
                yield [(positions[task], self._ray.get(task)) for task in done]
        finally:
            self._cancel(waiting)

    def _submitted(self, function: Callable[[T], R], items: Iterable[T]) -> list[Any]:
        carried = self._ray.put(function)  # once: it holds the whole workload
        return [self._task.remote(carried, item, trilemma.__version__) for item in items]

    def _cancel(self, tasks: Iterable[Any]) -> None:
        for task in tasks:
            self._ray.cancel(task, force=True)


def _call(function: Callable[[T], R], item: T, version: str) -> R:
    """On a worker, which must run the program that asks."""
    if trilemma.__version__ != version:
        raise UnsupportedError(f"a Ray worker has trilemma {trilemma.__version__}, this program is {version}")
    return function(item)


@contextmanager
def ray_workers() -> Iterator[RayTasks]:
    """An executor over the Ray cluster that RAY_ADDRESS names, or over one started here on all cores.

    A connection that is there already is used and left open. UnsupportedError where Ray is not installed.
    """
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UnsupportedError("--engine ray needs Ray: install trilemma[ray]") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False, logging_level="ERROR"
        )
    try:
        yield RayTasks(ray)
    finally:
        if ours:
            ray.shutdown()
