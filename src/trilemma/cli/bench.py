"""`trilemma bench`: a workload sent to a live OpenAI-compatible endpoint, and what came back when."""

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o
from trilemma.cli.bench_table import watching
from trilemma.cli.output import emit, pairs
from trilemma.cli.stopping import INTERRUPTED
from trilemma.errors import CheckFailedError, InputError


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, such as http://127.0.0.1:8000.")],
    *,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Send the workload of this scenario and judge by its limits.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="TRACE", help="Send this trace: a shipped one's name or a file.")
    ] = None,
    trace_format: Annotated[
        str | None, typer.Option("--format", help="The trace's format; read from its header.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Send prompts of this length.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Ask for answers of this length.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Only the first N requests.")] = None,
    start: Annotated[str | None, typer.Option(help="Leave out what came before, such as '10 min'.")] = None,
    end: Annotated[str | None, typer.Option(help="Leave out what came from then on, such as '1 h'.")] = None,
    rate: Annotated[str | None, typer.Option(help="Mean rate instead of the recorded one, such as '5 req/s'.")] = None,
    rate_scale: Annotated[float, typer.Option(help="How many times as fast requests are sent.")] = 1.0,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Send by N clients, each its next request when its last is answered.")
    ] = None,
    duration: Annotated[str | None, typer.Option(help="Stop sending after this time, such as '60 s'.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="LIMIT", help="A limit to judge by, such as 'ttft p99 <= 1 s'.")
    ] = None,
    find_knee: Annotated[bool, typer.Option("--find-knee", help="Step the load until a limit breaks.")] = False,
    knee_step: Annotated[str, typer.Option(help="How long each load of --find-knee is sent.")] = "30 s",
    model: Annotated[str | None, typer.Option(help="The model's name there; the only one if left out.")] = None,
    route: Annotated[
        str | None, typer.Option("--api", metavar="NAME", help="completions (if left out) or chat.")
    ] = None,
    prompt_form: Annotated[
        str | None, typer.Option(metavar="NAME", help="token-ids (where the server takes them) or text.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=2, help="Leave out requests of more tokens, prompt and answer together.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the API key.")
    ] = None,
    insecure_credentials: Annotated[
        bool, typer.Option("--insecure-credentials", help="Send the key unencrypted to another machine.")
    ] = False,
    warmup: Annotated[int, typer.Option(min=0, help="Requests sent before the measurement, not counted.")] = 4,
    timeout: Annotated[str, typer.Option(help="How long an answer may take.")] = "10 min",
    retries: Annotated[
        int, typer.Option(min=0, max=100, help="How often a request is sent again to a busy server (429, 503).")
    ] = 0,
    max_client_lag: Annotated[
        str | None, typer.Option(help="How late the client may be at p99, '5 ms' if left out.")
    ] = None,
    prompt_seed: Annotated[
        int | None, typer.Option(min=0, help="The same prompts as another run with this seed; new ones if left out.")
    ] = None,
    requests_file: o.RequestsFile = None,
    tokens_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write when each token came here: .parquet, .arrow or .csv.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 4 if a limit is missed.")] = False,
    set_: o.Assignments = None,
    seed: o.Seed = None,
    catalogue: o.CatalogueFiles = None,
    output: o.Output = None,
    output_file: o.OutputFile = None,
    quiet: o.Quiet = False,
) -> None:
    """Measure a live server.

    Sends a scenario's workload, a trace or fixed lengths to an OpenAI-compatible endpoint and times every token.
    Exits with 4 where the run broke off, or the client was too slow for its numbers to count.
    """
    from trilemma.api import benching

    if find_knee and duration is not None:
        raise InputError("--duration", expected="--knee-step beside --find-knee", found=repr(duration))
    source = benching.Source(
        scenario=scenario, overrides=o.assignments(set_), catalogue_files=catalogue or (), trace=trace,
        trace_format=trace_format, prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed,
    )  # fmt: skip
    pace = benching.Pace(
        start=start, end=end, requests=requests, rate=rate, rate_scale=rate_scale, concurrency=concurrency,
        duration=duration, max_model_len=max_model_len,
    )  # fmt: skip
    options = benching.BenchOptions(
        model=model, route=route, prompt_form=prompt_form, api_key_env=api_key_env, retries=retries, warmup=warmup,
        insecure_credentials=insecure_credentials, timeout=timeout, max_client_lag=max_client_lag,
        prompt_seed=prompt_seed,
    )  # fmt: skip
    with watching(quiet=quiet) as watch:
        result = benching.bench(
            url,
            source=source,
            pace=pace,
            options=options,
            limits=limit or (),
            files=benching.BenchFiles(requests=requests_file, tokens=tokens_file),
            knee_step=knee_step if find_knee else None,
            progress=watch,
        )
    emit(pairs(result), output=output, output_file=output_file, document=result)
    if result["stopped"] == benching.STOPPED:
        raise typer.Exit(INTERRUPTED)
    if not result["complete"]:
        raise CheckFailedError(f"the run broke off: {result['stopped']}")
    if not result["valid"]:
        raise CheckFailedError(f"not valid: {'; '.join(result['client']['why_not_valid'])}")
    missed = [text["limit"] for text in result["limits"] if not text["met"]]
    if check and missed:
        raise CheckFailedError(f"limits missed: {', '.join(missed)}")
