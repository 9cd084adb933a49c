"""A plan in words for a terminal: what to deploy, what it costs, why, why not the others, and how to start it."""

from collections.abc import Iterable, Iterator

from trilemma.cost.bill import Bill
from trilemma.deployment.spec import Deployment
from trilemma.planner.answer import Answer, Plan, Rejection
from trilemma.planner.question import Question
from trilemma.report.document import PlanReport, limit_dict
from trilemma.report.plan_flagged import levers_text, why_not_text
from trilemma.report.plan_sections import changes_section, corners_section, limit_prices_section
from trilemma.report.table import aligned
from trilemma.units import HOURS_PER_YEAR, show_bytes, show_time, show_usd

FRONTIER_ROWS = 8
WHY_NOT_ROWS = 10
REASONS = {
    "cost": "keep the limits at a higher price", "bound": "too dear even at saturation", "memory": "too little memory",
    "support": "not supported", "size": "too many GPUs", "limits": "miss a limit",
}  # fmt: skip


def plan_text(report: PlanReport) -> str:
    """The whole answer; sections that have nothing to say are left out.

    Where one deployment or the levers were asked about, that is the answer, under the line that says what was asked.
    """
    chosen, told = report.answer.chosen, report.explanation
    if chosen is None:
        return f"{report.answer.name}: nothing meets the limits\n"
    asked = "" if told is None or told.why_not is None else why_not_text(told.why_not, chosen)
    levers = "" if told is None or told.levers is None else levers_text(told.levers)
    if asked or levers:
        return "\n\n".join(section for section in (_question(report), asked, levers) if section) + "\n"
    sections = [
        _headline(report, chosen),
        _limits(report.question, chosen),
        _bill(chosen.bill),
        _why(chosen, report.question),
        "" if told is None else limit_prices_section(told.limit_prices or ()),
        _frontier(report.answer),
        "" if told is None else corners_section(told.corners),
        "" if told is None else changes_section(told),
        _why_not(report.answer),
        f"Launch\n{report.launch_summary.rstrip()}" if report.launch_summary else "",
        _small_print(report, chosen),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _question(report: PlanReport) -> str:
    """What was asked, in one line."""
    question, workload = report.question, report.question.workload
    n = len(workload.requests)
    if workload.batch:
        load = f"{n:,} requests, all there at the start"
    elif workload.clients:
        load = f"{n:,} requests from {workload.clients:,} clients"
    else:
        hour = " in the busiest hour" if workload.profile is not None else ", hour after hour"
        load = f"{n:,} requests at {workload.sizing_rps:.3g} requests/s{hour}"
    return f"{question.name}: {question.model.name}, {workload.label}: {load}"


def _headline(report: PlanReport, chosen: Plan) -> str:
    d = chosen.trial.deployment
    knobs = f"--max-num-batched-tokens {d.knobs.max_num_batched_tokens} --max-num-seqs {d.knobs.max_num_seqs}"
    knobs += (", prefix caching" if d.knobs.prefix_caching else "") + (", MTP" if d.speculative_mtp else "")
    counts = report.answer.counts
    unit = chosen.bill.usd_per_mtok_output
    lines = [
        _question(report),
        "",
        *_incomplete(report),
        f"Deploy {d.replicas} x {d.accelerator.title} {_spread(d)}, {d.precision.name} weights, "
        f"{'FP8' if d.kv_bytes_per_element < 2 else 'BF16'} KV cache, {d.engine.title}, {knobs}",
        f"  {d.gpus} GPUs in use, {chosen.bill.paid_gpus:.3g} paid on average, {chosen.offer.name} "
        f"({chosen.offer.market}, {chosen.offer.price.as_of})",
        f"  {show_usd(chosen.usd_per_h)}/h, {show_usd(chosen.usd_per_h * HOURS_PER_YEAR)} a year"
        + ("" if unit is None else f", {show_usd(unit)} per million output tokens inside the limits"),
        f"  {_best_in(report)} of {counts.candidates:,} candidates ({counts.shapes:,} deployments at their offers); "
        f"{counts.simulated:,} deployments simulated in {counts.simulations:,} runs, {counts.sized:,} of them sized "
        "and run on the whole workload",
    ]
    return "\n".join(lines)


def _spread(d: Deployment) -> str:
    """How a replica is spread over GPUs: "TP4 PP2"."""
    p = d.parallelism
    ways = (("PP", p.pipeline), ("DP", p.data), ("EP", p.expert))
    return f"TP{p.tensor}" + "".join(f" {name}{count}" for name, count in ways if count > 1)


def _best_in(report: PlanReport) -> str:
    """What the chosen plan is best in."""
    told = report.explanation
    return "cheapest" if told is None or not told.sentence else f"{told.sentence};"


def _incomplete(report: PlanReport) -> list[str]:
    """That the work was stopped half way."""
    if report.answer.complete:
        return []
    counts, told = report.answer.counts, report.explanation
    if told is not None and told.stopped_in == "explanation":
        return ["INCOMPLETE: stopped while the answer was being explained; what is deployed is final", ""]
    return [
        f"INCOMPLETE: stopped after {counts.simulated:,} of {counts.shapes:,} deployments; this is the best so far",
        "",
    ]


def _limits(question: Question, chosen: Plan) -> str:
    if not question.limits:
        return ""
    rows = []
    for limit in question.limits:
        margin = chosen.trial.margins.get(limit.metric, 1.0)
        values = limit_dict(limit, chosen.trial.summary, margin)
        shown = limit.show(values["value"]), limit.show(values["value_at_confidence"])
        rows.append([limit.text, *shown, "yes" if values["met"] else "NO"])
    header = ["limit", "predicted", f"at {100 * question.confidence:.0f}% confidence", "met"]
    goodput = chosen.trial.summary.goodput_share
    tail = "" if goodput is None else f"\n{100 * goodput:.2f}% of requests inside every limit of their own"
    return "Limits\n" + aligned(header, rows, right=[False, True, True, False]) + tail


def _bill(bill: Bill) -> str:
    uses = list(bill.use_view)
    rows = [
        [dimension, *(f"{cells[use]:.2f}" for use in uses), f"{sum(cells.values()):.2f}"]
        for dimension, cells in bill.matrix.items()
    ]
    rows.append(["total", *(f"{value:.2f}" for value in bill.use_view.values()), f"{bill.total_usd_per_h:.2f}"])
    table = aligned(["$/h", *uses, "total"], rows, right=[False] + [True] * (len(uses) + 1))
    share = 100 * bill.opportunity_usd_per_h / bill.total_usd_per_h if bill.total_usd_per_h else 0.0
    lines = [
        "Bill",
        table,
        f"opportunity: {show_usd(bill.opportunity_usd_per_h)}/h of the capital and operational money ({share:.0f}% of "
        "the total, inside it) bought nothing",
    ]
    latency, reserve = bill.headroom_latency_usd_per_h, bill.headroom_reserve_usd_per_h
    if latency is not None and reserve is not None:
        lines.append(f"headroom: {show_usd(latency)}/h is the price of latency, {show_usd(reserve)}/h reserve")
    return "\n".join(lines)


def _why(chosen: Plan, question: Question) -> str:
    trial, memory = chosen.trial, chosen.trial.memory
    capacity = trial.fleet.capacity
    lines = ["Why", f"binds: {trial.binds}"]
    if capacity.knee_rps is not None and capacity.saturation_rps is not None:
        lines.append(
            f"a replica keeps the limits up to {capacity.knee_rps:.3g} requests/s of the {capacity.saturation_rps:.3g} "
            f"it saturates at; sized for load x {1 + question.sizing.headroom:.2f}"
            + (f" + {question.sizing.spare_replicas} spare" if question.sizing.spare_replicas else "")
        )
    decode, prefill = trial.decode_terms, trial.prefill_terms
    where = "in the job" if question.workload.batch else "at the knee"
    for name, terms in ((f"decode step {where}", decode), ("full prefill step", prefill)):
        parts = sorted(terms.seconds.items(), key=lambda item: -item[1])[:4]
        shown = ", ".join(f"{term} {show_time(seconds)}" for term, seconds in parts)
        lines.append(f"{name} {show_time(terms.total_s)}: {shown}; waits for {terms.bottleneck}")
    lines.append(
        f"memory per GPU: weights {show_bytes(memory.weight_bytes)}, activations "
        f"{show_bytes(memory.activation_bytes)}, framework {show_bytes(memory.framework_bytes)}, KV "
        f"{show_bytes(memory.pool_bytes)} = {memory.kv_capacity_tokens_per_replica:,} tokens a replica; at most "
        f"{100 * trial.peak_kv_share:.0f}% full {where}"
    )
    return "\n".join(lines)


def _plan_cells(p: Plan) -> list[str]:
    values = p.trial.summary.values
    unit = p.bill.usd_per_mtok_output
    return [
        p.label,
        f"{p.trial.output_tokens_per_s_per_gpu:,.0f}",
        show_time(values.get("ttft_p99_s")),
        show_time(values.get("itl_p99_s")),
        f"{p.usd_per_h:,.2f}",
        "-" if unit is None else f"{unit:,.2f}",
    ]


PLAN_HEADER = ["deployment", "tok/s/GPU", "TTFT p99", "ITL p99", "$/h", "$/Mtok"]
PLAN_RIGHT = [False, True, True, True, True, True]


def _frontier(answer: Answer) -> str:
    if len(answer.frontier) < 2:
        return ""
    rows = [_plan_cells(p) for p in answer.frontier[:FRONTIER_ROWS]]
    more = len(answer.frontier) - FRONTIER_ROWS
    tail = f"\n({more} more in -o json)" if more > 0 else ""
    return "Frontier (throughput per GPU, TTFT, $/Mtok)\n" + aligned(PLAN_HEADER, rows, right=PLAN_RIGHT) + tail


def _best_by(plans: Iterable[Plan]) -> Iterator[tuple[str, Plan]]:
    """The cheapest plan of each accelerator and of each kind of offer, once."""
    seen: set[str] = set()
    for p in plans:
        for key in (p.trial.deployment.accelerator.name, p.offer.label):
            if key not in seen:
                seen.add(key)
                yield key, p


def _why_not(answer: Answer) -> str:
    """Per accelerator and kind of offer the best that lost; for accelerators without a plan, why."""
    chosen = answer.chosen
    if chosen is None:
        return ""
    rows = []
    here = {chosen.trial.deployment.accelerator.name, chosen.offer.label}
    for key, p in _best_by(answer.plans):
        if key not in here:
            more = p.usd_per_h - chosen.usd_per_h
            rows.append([key, p.label, f"{show_usd(more)}/h dearer ({show_usd(p.usd_per_h)}/h)"])
    with_plan = {p.trial.deployment.accelerator.name for p in answer.plans}
    closest: dict[str, Rejection] = {}
    for r in answer.rejected:
        name = r.label.split()[0]
        if r.stage != "cost" and name not in with_plan and (name not in closest or _nearer(r, closest[name])):
            closest[name] = r
    rows += [[name, r.label, r.reason] for name, r in closest.items()]
    if not rows:
        return ""
    table = aligned(["instead of", "its best", "why not"], rows[:WHY_NOT_ROWS])
    tail = f"(all {len(answer.rejected):,} rejections with their reasons in -o json: {_by_reason(answer)})"
    return f"Why not\n{table}\n{tail}"


def _by_reason(answer: Answer) -> str:
    """How many candidates are out for which reason, those that miss a limit by the first one they miss."""
    counted: dict[str, int] = {}
    for r in answer.rejected:
        limit = "a limit" if r.miss is None else r.miss.limit.text
        reason = f"miss {limit}" if r.stage == "limits" else REASONS[r.stage]
        counted[reason] = counted.get(reason, 0) + 1
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counted.items(), key=lambda x: (-x[1], x[0])))


def _nearer(a: Rejection, b: Rejection) -> bool:
    """Whether rejection `a` is closer to a plan than `b`: it got further, or missed by less."""
    order = ("memory", "support", "size", "bound", "limits")
    rank_a, rank_b = (order.index(r.stage) if r.stage in order else 0 for r in (a, b))
    if rank_a != rank_b:
        return rank_a > rank_b
    return a.miss is not None and b.miss is not None and a.miss.excess < b.miss.excess


def _small_print(report: PlanReport, chosen: Plan) -> str:
    notes = [*chosen.trial.notes, *chosen.bill.notes, *report.answer.warnings]
    source = chosen.trial.source.label
    notes.append(
        f"latencies are {source} (simulated on the workload; prefix caching off); trilemma {report.version}, catalogue "
        f"{report.catalogue_digest[:12]}, prices as of {report.question.as_of}, seed {report.question.seed}"
    )
    return "Notes\n" + "\n".join(f"- {note}" for note in dict.fromkeys(notes))
