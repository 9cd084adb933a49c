"""`trilemma simulate`: one deployment under a scenario's load; its latencies, throughput and limits."""

from typing import Annotated

import typer

from trilemma.cli import options as o
from trilemma.cli.output import emit, pairs
from trilemma.cli.progress import progress
from trilemma.errors import CheckFailedError


def simulate(
    scenario: o.ScenarioFile,
    *,
    accelerator: o.Accelerator = None,
    engine: o.Engine = None,
    precision: o.Precision = None,
    kv_precision: o.KvPrecision = None,
    tensor: o.Tensor = None,
    pipeline: o.Pipeline = None,
    data: o.Data = None,
    expert: o.Expert = None,
    replicas: o.Replicas = None,
    max_num_batched_tokens: o.MaxNumBatchedTokens = None,
    max_num_seqs: o.MaxNumSeqs = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 4 if a limit is missed.")] = False,
    set_: o.Assignments = None,
    seed: o.Seed = None,
    catalogue: o.CatalogueFiles = None,
    output: o.Output = None,
    output_file: o.OutputFile = None,
    quiet: o.Quiet = False,
) -> None:
    """Replay a scenario's load on one deployment."""
    from trilemma import api

    deployment = o.given({
        "accelerator": accelerator, "engine": engine, "precision": precision, "kv_precision": kv_precision,
        "tensor": tensor, "pipeline": pipeline, "data": data, "expert": expert, "replicas": replicas,
        "max_num_batched_tokens": max_num_batched_tokens, "max_num_seqs": max_num_seqs,
    })  # fmt: skip
    with progress("simulations", quiet=quiet) as advance:
        result = api.simulate(
            scenario,
            deployment=deployment,
            overrides=o.assignments(set_),
            catalogue_files=catalogue or (),
            seed=seed,
            progress=advance,
        )
    emit(pairs(result), output=output, output_file=output_file, document=result)
    missed = [limit["limit"] for limit in result["limits"] if not limit["met"]]
    if check and missed:
        raise CheckFailedError(f"limits missed: {', '.join(missed)}")
