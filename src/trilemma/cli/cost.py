"""`trilemma cost`: the four-dimension bill of one deployment under a scenario's load."""

from trilemma.cli import options as o
from trilemma.cli.output import emit, pairs
from trilemma.cli.progress import progress


def cost(
    scenario: o.ScenarioFile,
    *,
    accelerator: o.Accelerator = None,
    offer: o.OfferName = None,
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
    set_: o.Assignments = None,
    seed: o.Seed = None,
    catalogue: o.CatalogueFiles = None,
    output: o.Output = None,
    output_file: o.OutputFile = None,
    quiet: o.Quiet = False,
) -> None:
    """Price one deployment under a load.

    The bill has capital, operational and engineering cost, and shows what was useful, wasted, spare, idle, stranded.
    """
    from trilemma import api

    deployment = o.given({
        "accelerator": accelerator, "engine": engine, "precision": precision, "kv_precision": kv_precision,
        "tensor": tensor, "pipeline": pipeline, "data": data, "expert": expert, "replicas": replicas,
        "max_num_batched_tokens": max_num_batched_tokens, "max_num_seqs": max_num_seqs,
    })  # fmt: skip
    with progress("simulations", quiet=quiet) as advance:
        bill = api.cost(
            scenario,
            deployment=deployment,
            offer=offer,
            overrides=o.assignments(set_),
            catalogue_files=catalogue or (),
            seed=seed,
            progress=advance,
        )
    emit(pairs(bill), output=output, output_file=output_file, document=bill)
