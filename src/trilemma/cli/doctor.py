"""`trilemma doctor`: whether this machine has what the program needs."""

from trilemma.cli import options as o
from trilemma.cli.output import emit
from trilemma.cli.progress import progress
from trilemma.errors import CheckFailedError


def doctor(output: o.Output = None, output_file: o.OutputFile = None, quiet: o.Quiet = False) -> None:
    """Check this machine and the shipped data.

    Versions, cores, memory, the compiler's cache, the age of the shipped prices, the shipped trace. Exits with 4 if a
    check fails.
    """
    from trilemma.cli.checks import examine

    with progress(quiet=quiet):
        rows = examine()
    emit(rows, output=output, output_file=output_file)
    if failed := [str(row["check"]) for row in rows if row["status"] == "fail"]:
        raise CheckFailedError(f"failed: {', '.join(failed)}")
