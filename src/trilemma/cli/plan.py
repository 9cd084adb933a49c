"""`trilemma plan`: the cheapest deployment inside the limits, its bill, its rivals and its launch command."""

from trilemma.cli.options import (
    Assignments,
    CatalogueFiles,
    Output,
    OutputFile,
    Quiet,
    ScenarioFile,
    Seed,
    assignments,
)
from trilemma.cli.output import emit
from trilemma.cli.progress import progress


def plan(
    scenario: ScenarioFile,
    *,
    set_: Assignments = None,
    seed: Seed = None,
    catalogue: CatalogueFiles = None,
    output: Output = None,
    output_file: OutputFile = None,
    quiet: Quiet = False,
) -> None:
    """Find the cheapest deployment for a scenario.

    CSV holds the frontier, one deployment a row; JSON and YAML the whole answer.
    """
    from trilemma import api, report

    with progress("candidates", quiet=quiet) as advance:
        answer = api.plan(
            scenario,
            overrides=assignments(set_),
            catalogue_files=catalogue or (),
            seed=seed,
            progress=advance,
        )
    document = answer.to_dict()
    emit(
        document["frontier"],
        output=output,
        output_file=output_file,
        document=document,
        text=lambda: report.plan_text(answer),
    )
