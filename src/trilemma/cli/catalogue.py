"""`trilemma catalogue`: the shipped numbers and where they come from."""

from typing import Annotated

import typer

from trilemma.cli import options as o
from trilemma.cli.output import emit

Contains = Annotated[str, typer.Argument(metavar="TEXT", help="Only rows in which a text contains this, such as spot.")]
Details = Annotated[bool, typer.Option("--details", help="One number a row, each with low, high, source and date.")]

app = typer.Typer(help="List and filter the shipped numbers.", no_args_is_help=True, rich_markup_mode=None)


def _listed(table: str, words: str, *, detailed: bool = False) -> None:
    """Adds the command that lists one table."""

    def show(
        contains: Contains = "",
        *,
        details: Details = False,
        catalogue: o.CatalogueFiles = None,
        output: o.Output = None,
        output_file: o.OutputFile = None,
    ) -> None:
        from trilemma import api

        rows = api.catalogue(table, contains=contains, details=details, catalogue_files=catalogue or ())
        emit(rows, output=output, output_file=output_file)

    def show_plain(
        contains: Contains = "",
        *,
        catalogue: o.CatalogueFiles = None,
        output: o.Output = None,
        output_file: o.OutputFile = None,
    ) -> None:
        show(contains, catalogue=catalogue, output=output, output_file=output_file)

    app.command(table, help=words)(show if detailed else show_plain)


def _listed_by_accelerator(table: str, words: str, *, detailed: bool = False) -> None:
    """Adds the command that lists one table for an accelerator."""

    def show(
        contains: Contains = "",
        *,
        details: Details = False,
        accelerator: o.Accelerator = None,
        catalogue: o.CatalogueFiles = None,
        output: o.Output = None,
        output_file: o.OutputFile = None,
    ) -> None:
        from trilemma import api

        rows = api.catalogue(
            table, contains=contains, accelerator=accelerator, details=details, catalogue_files=catalogue or ()
        )
        emit(rows, output=output, output_file=output_file)

    def show_plain(
        contains: Contains = "",
        *,
        accelerator: o.Accelerator = None,
        catalogue: o.CatalogueFiles = None,
        output: o.Output = None,
        output_file: o.OutputFile = None,
    ) -> None:
        show(contains, accelerator=accelerator, catalogue=catalogue, output=output, output_file=output_file)

    app.command(table, help=words)(show if detailed else show_plain)


_listed("models", "Models: shape, parameters, native precision.")
_listed("accelerators", "Accelerators: memory, compute, links, power.", detailed=True)
_listed_by_accelerator("offers", "Ways to obtain accelerators: price, date, source.", detailed=True)
_listed_by_accelerator("precisions", "Weight formats, and what they run in.")
_listed("engines", "Serving engines and their defaults.", detailed=True)
_listed("economics", "Rates and prices around the hardware.")
_listed("grid", "Carbon of a kilowatt-hour by region.")
_listed("api", "Prices of models bought by the token.")
