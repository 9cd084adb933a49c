"""Progress on stderr: a bar on a terminal, one line elsewhere, nothing when quiet."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, int, str], None]


@contextmanager
def progress(what: str = "", *, quiet: bool) -> Iterator[Advance]:
    """A function (done, total, now) to report progress of `what` with; `quiet` also silences our warnings."""
    if quiet:
        warnings.simplefilter("ignore", UserWarning)
        yield lambda done, total, now: None
    elif sys.stderr.isatty():
        with _bar(what) as advance:
            yield advance
    else:
        yield _line(what)


def _line(what: str) -> Advance:
    """Says once how much there is to do."""
    said = False

    def advance(done: int, total: int, now: str) -> None:
        nonlocal said
        if not said:
            print(f"{what}: {total}", file=sys.stderr, flush=True)
        said = True

    return advance


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """A bar that vanishes when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, now="", visible=False)

        def advance(done: int, total: int, now: str) -> None:
            bar.update(task, completed=done, total=total, now=now, visible=True)

        yield advance
