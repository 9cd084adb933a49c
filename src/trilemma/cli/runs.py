"""`trilemma runs`: what was planned before, listed, shown, compared and removed."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trilemma.cli.options import Output, OutputFile, StoreFile
from trilemma.cli.output import emit, table_text
from trilemma.errors import InputError

PARTS = {"versions": "Versions", "question": "Question", "chosen": "Plan", "bill": "Bill ($/h)", "limits": "Limits"}
LISTED = ("id", "name", "status", "asked_at", "chosen", "usd_per_h", "candidates", "simulated")

app = typer.Typer(name="runs", help="Plans that were made before.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(metavar="ID", help="A run, by its id or the first digits of it.")]


@app.command("list")
def list_runs(*, store: StoreFile = None, output: Output = None, output_file: OutputFile = None) -> None:
    """List the runs, the last asked first."""
    from trilemma import api

    rows = api.list_runs(store=store)
    emit(
        rows,
        output=output,
        output_file=output_file,
        text=lambda: table_text([{name: row.get(name) for name in LISTED} for row in rows]) if rows else "no runs yet",
    )


@app.command()
def show(run: RunId, *, store: StoreFile = None, output: Output = None, output_file: OutputFile = None) -> None:
    """Print the answer of a run as the plan did."""
    from trilemma import api

    found = api.show_run(run, store=store)
    document, printed = found["document"], found["printed"]
    if document is None:
        raise InputError(
            f"run {found['id']}", expected="a run with an answer", found="one that was stopped before it had one",
            hint="plan again: it goes on where it was",
        )  # fmt: skip
    emit(document["frontier"], output=output, output_file=output_file, document=document, text=lambda: printed)


@app.command()
def compare(
    first: RunId, second: RunId, *, store: StoreFile = None, output: Output = None, output_file: OutputFile = None
) -> None:
    """Show what differs between two runs: the question, the plan, the lines of its bill, its latencies."""
    from trilemma import api

    found = api.compare_runs(first, second, store=store)
    rows = [{"part": part} | row for part in PARTS for row in found[part]]
    emit(rows, output=output, output_file=output_file, document=found, text=lambda: _compared(found))


@app.command("rm")
def remove(
    runs: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Runs to remove.")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Every run, and all that is kept to go on from.")] = False,
    store: StoreFile = None,
) -> None:
    """Remove runs and their answers, without asking."""
    from trilemma import api

    if bool(runs) == all_:
        raise InputError("runs rm", expected="ids of runs, or --all", found="both" if runs else "neither")
    for row in api.remove_runs(runs or [], everything=all_, store=store):
        typer.echo(f"removed {row['id']} {row['name']}")


def _compared(found: Mapping[str, Any]) -> str:
    """Both runs, and a table for each part that differs."""
    heads = [{"": word, **{name: found[word].get(name) for name in LISTED}} for word in ("first", "second")]
    blocks = [table_text(heads)]
    for part, title in PARTS.items():
        rows = [dict(row) for row in found[part]]
        if all(row["change"] is None for row in rows):
            rows = [{name: value for name, value in row.items() if name != "change"} for row in rows]
        blocks.append(f"{title}\n{table_text(rows)}" if rows else f"{title}: the same")
    return "\n\n".join(blocks)
