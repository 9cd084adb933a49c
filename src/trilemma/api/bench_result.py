"""A measured run as plain data, in the words of a simulated one."""

from typing import Any

import numpy as np

from trilemma.api.bench_load import Sending
from trilemma.bench.answer import Ending
from trilemma.bench.probe import Found, exactness
from trilemma.bench.records import Measured
from trilemma.bench.validity import Validity
from trilemma.metrics.summary import summarise
from trilemma.report.document import limit_dict, served_dict
from trilemma.report.numbers import finite


def measured_dict(measured: Measured, sending: Sending, found: Found, verdict: Validity) -> dict[str, Any]:
    """Latencies, limits and throughput under the same names as `simulate` gives them; behind them what was sent, what
    went wrong, and whether the client kept up."""
    outcomes = measured.outcomes()
    summary = summarise(outcomes.timings, sending.limits)
    dialect = found.dialect
    return {
        "name": sending.label,
        "endpoint": {
            "address": dialect.endpoint.origin,
            "path": dialect.endpoint.path,
            "model": dialect.model,
            "prompts": str(dialect.writing.form),
            "lengths_by": exactness(dialect.asking),
        },
        "valid": verdict.is_valid,
        "complete": not measured.stopped,
        "stopped": measured.stopped or None,
        **served_dict(summary),
        "latencies": {key: finite(value) for key, value in summary.values.items()},
        "limits": [limit_dict(limit, summary, 1.0) for limit in sending.limits],
        "prefix_hit_share": _hit_share(measured),
        "load": {
            "kind": sending.kind,
            "concurrency": sending.clients or None,
            "offered_requests_per_s": finite(_offered(measured, sending)),
            "in_table": len(measured.requests),
            "unsent": measured.unsent,
        },
        "sent": {ending.replace(" ", "_"): count for ending, count in measured.endings.items()},
        "retries": sum(record.retries for record in measured.records),
        "reconnects": sum(record.reconnects for record in measured.records),
        "errors": [{"error": why, "times": times} for why, times in measured.errors.items()],
        "tokens": _tokens(measured),
        "client": {
            "scheduling_error_p50_s": verdict.sending_p50_s,
            "scheduling_error_p99_s": verdict.sending_p99_s,
            "loop_lag_p50_s": verdict.lag_p50_s,
            "loop_lag_p99_s": verdict.lag_p99_s,
            "allowed_s": verdict.allowed_s,
            "why_not_valid": list(verdict.reasons),
            "connections": measured.connections,
            "connect_p99_s": _percentile(measured.connect_s, 99),
            "cpu_share": measured.cpu_share,
        },
        "source": "measured",
        "notes": [*sending.notes, *found.notes, *_notes(measured)],
    }


def _tokens(measured: Measured) -> dict[str, Any]:
    """Tokens asked for and counted, of the requests that finished; None where the server gave no usage."""
    done = [record for record in measured.records if record.ending is Ending.DONE]
    asked = measured.requests.take(np.array([record.index for record in done], dtype=np.int64))
    prompt = [record.prompt_tokens for record in done if record.prompt_tokens is not None]
    output = [record.output_tokens for record in done if record.output_tokens is not None]
    wanted = asked.output_tokens.tolist()
    got = [record.output_tokens or len(record.token_ns) for record in done]
    return {
        "prompt_asked": int(asked.prompt_tokens.sum()),
        "prompt_counted": sum(prompt) if len(prompt) == len(done) else None,
        "output_asked": int(asked.output_tokens.sum()),
        "output_counted": sum(output) if len(output) == len(done) else None,
        "chunks": sum(len(record.token_ns) for record in done),
        "answers_of_other_length": sum(have != want for have, want in zip(got, wanted, strict=True)),
    }


def _notes(measured: Measured) -> list[str]:
    """What a reader should know of the numbers."""
    tokens, notes = _tokens(measured), []
    output, chunks = tokens["output_counted"], tokens["chunks"]
    if output and abs(chunks / output - 1) > 0.01:
        notes.append(f"{output / chunks:.3g} tokens a chunk: gaps (itl) are between chunks, TPOT is by tokens")
    prompt, asked = tokens["prompt_counted"], tokens["prompt_asked"]
    if prompt and abs(prompt / asked - 1) > 0.01:
        notes.append(f"prompts had {100 * (prompt / asked - 1):+.1f}% of the tokens asked for")
    if short := tokens["answers_of_other_length"]:
        notes.append(f"{short:,} answers did not have the length asked for")
    if not measured.keeps_connections:
        notes.append("the server closes connections after an answer: times to the first token hold opening a new one")
    if measured.unsent and not measured.stopped:
        notes.append(f"{measured.unsent:,} requests were not sent: the duration ended, or a turn before them failed")
    return notes


def _hit_share(measured: Measured) -> float | None:
    """Prompt tokens found in the server's prefix cache over all; None where it does not say."""
    said = [r for r in measured.records if r.cached_tokens is not None and r.prompt_tokens]
    total = sum(record.prompt_tokens or 0 for record in said)
    return sum(record.cached_tokens or 0 for record in said) / total if total else None


def _offered(measured: Measured, sending: Sending) -> float:
    """Requests per second at which the table's requests come; infinite by clients, or all at once."""
    return float("inf") if sending.clients else measured.requests.rate_per_s


def _percentile(values: np.ndarray[tuple[int], np.dtype[np.float64]], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values.size else None
