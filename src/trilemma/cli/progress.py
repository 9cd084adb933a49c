"""Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trilemma.cli.eta import Eta, show_left
from trilemma.cli.stopping import Stop, stoppable

Advance = Callable[[int, int, str], None]
LINE_EVERY_S = 30.0  # where there is no bar: a log wants to be read


@contextmanager
def progress(what: str = "", *, quiet: bool, may_stop: bool = False) -> Iterator[Advance]:
    """A function (done, total, now) to report progress of `what` with; `quiet` also silences our warnings.

    With `may_stop` the first Ctrl-C makes the function raise Interrupted, so that the work ends with what it has, and
    the second ends the program.
    """
    if quiet:
        warnings.simplefilter("ignore", UserWarning)
    if not may_stop:
        with _shown(what, quiet=quiet) as advance:
            yield advance
        return
    with stoppable() as stop, _shown(what, quiet=quiet) as advance:
        try:
            yield lambda done, total, now: _advance_or_stop(stop, advance, done, total, now)
        except Exception as error:
            if stop.asked and _found_nothing(error):
                raise KeyboardInterrupt from None
            raise


def _found_nothing(error: Exception) -> bool:
    """Whether work says that it was stopped before it had anything to show."""
    from trilemma.api import Interrupted

    return isinstance(error, Interrupted)


def _advance_or_stop(stop: Stop, advance: Advance, done: int, total: int, now: str) -> None:
    advance(done, total, now)
    stop.begun = True
    if stop.asked:
        from trilemma.api import Interrupted

        raise Interrupted(f"stopped after {done:,} of {total:,}")


@contextmanager
def _shown(what: str, *, quiet: bool) -> Iterator[Advance]:
    if quiet:
        yield lambda done, total, now: None
    elif sys.stderr.isatty():
        with _bar(what) as advance:
            yield advance
    else:
        yield _lines(what)


def _lines(what: str, clock: Callable[[], float] = time.monotonic) -> Advance:
    """Says once how much there is to do, and for long work now and then how far it is."""
    eta, said_s = Eta(), None

    def advance(done: int, total: int, now: str) -> None:
        nonlocal said_s
        at_s = clock()
        left_s = eta.left_s(done, total, now, at_s)
        if said_s is None:
            said_s = at_s
            print(f"{what}: {total}", file=sys.stderr, flush=True)
        elif done < total and at_s - said_s >= LINE_EVERY_S:
            said_s = at_s
            print(f"{what}: {done} of {total} {show_left(left_s)}".rstrip(), file=sys.stderr, flush=True)

    return advance


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """A bar that vanishes when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TextColumn("{task.fields[left]}"),
    )
    eta = Eta()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, now="", left="", visible=False)

        def advance(done: int, total: int, now: str) -> None:
            left = show_left(eta.left_s(done, total, now, time.monotonic()))
            bar.update(task, completed=done, total=total, now=now, left=left, visible=True)

        yield advance
