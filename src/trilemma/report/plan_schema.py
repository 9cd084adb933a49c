"""The schema of what explains a plan: prices of limits, corners, what would change it, levers."""

from trilemma.planner.corners import MEASURES, NAMES
from trilemma.report.schema_words import Schema, amount, array, closed, count, number, or_null, ref, text


def explanation_keys() -> dict[str, Schema]:
    """The keys of an answer that explain it."""
    return {
        "stopped_in": text("What was stopped half way; empty: nothing.", choices=("", "search", "explanation")),
        "limit_prices": or_null(array(ref("limit_price")), "What each bound costs; null where not asked for or meant."),
        "corners": array(ref("corner"), "The best in cost, p99 TTFT, p99 ITL and tokens/s/GPU."),
        "changes": or_null(_changes(), "What would make another deployment the cheapest; null but for objective cost."),
        "certainty": or_null(_certainty(), "How sure the answer is; null but for objective cost."),
        "why_not": or_null(_why_not(), "Why the deployments that words pick were not chosen; null where not asked."),
        "levers": or_null(_levers(), "Every single change to the chosen plan; null where not asked for."),
    }


def explanation_definitions() -> dict[str, Schema]:
    """What the keys refer to."""
    return {"limit_price": _limit_price(), "corner": _corner(), "miss": _miss()}


def _limit_price() -> Schema:
    step = closed(
        {
            "bound": text("The bound moved."),
            "saves_usd_per_year": amount(),
            "label": text("The plan that is then the cheapest."),
            "usd_per_h": amount(),
        }
    )
    return closed(
        {
            "bound": text("As the scenario says it, normalised."),
            "tried": text("The furthest it was moved."),
            "relaxed": or_null(step, "The least step that saves anything; null where none does."),
            "furthest": or_null(step, "What the furthest step saves."),
            "free": or_null(text(), "The tightest bound at which the price stays what it is."),
        }
    )


def _corner() -> Schema:
    latencies = {name: or_null(amount()) for name in ("ttft_p99_s", "itl_p99_s")}
    given_up = {name: or_null(number(minimum=1 - 1e-9)) for name in MEASURES}
    return closed(
        {
            "corner": text(choices=tuple(NAMES.values())),
            "label": text(),
            "usd_per_h": amount(),
            **latencies,
            "output_tokens_per_s_per_gpu": amount(),
            "gives_up": closed(given_up, "How many times worse than the best in each."),
        }
    )


def _changes() -> Schema:
    price = closed(
        {
            "offer": text(),
            "unit": text("What the price is for."),
            "price_now_usd": amount(),
            "price_usd": amount("At which the plan costs no more than the chosen one."),
            "factor": amount("Over the price now."),
            "label": text("The plan that takes over."),
        }
    )
    traffic = closed(
        {
            "factor": amount("Times the load."),
            "label": text("The plan whose deployment takes over."),
            "usd_per_h": amount(),
            "chosen_usd_per_h": amount(),
        }
    )
    return closed(
        {
            "price_up": or_null(price, "The chosen offer's price, risen."),
            "rival_price": or_null(price, "Another plan's offer, fallen by the least."),
            "traffic_down": or_null(traffic, "Less load, down to a tenth."),
            "traffic_up": or_null(traffic, "More load, up to ten times."),
        }
    )


def _certainty() -> Schema:
    plan = closed({"label": text(), "probability_cheapest": number(minimum=0, maximum=1)})
    interval = closed({"low": amount(), "high": amount()})
    names = ("ttft", "tpot", "capacity")
    return closed(
        {
            "stays_cheapest": number("Of the chosen plan among these.", minimum=0, maximum=1),
            "plans": array(plan, "The chosen plan and the best of other deployments."),
            "interval_over_predicted": closed(
                dict.fromkeys(names, interval), "80% intervals, as ratios: what was measured over what is predicted."
            ),
        }
    )


def _miss() -> Schema:
    return closed({"limit": text(), "bound": amount(), "got": or_null(amount()), "excess": or_null(amount())})


def _why_not() -> Schema:
    reason = closed(
        {
            "label": text(),
            "stage": text("How far it came: those of rejections; cost: it meets the limits."),
            "reason": text(),
            "misses": array(ref("miss")),
            "usd_per_h": or_null(amount()),
            "simulated_after_all": {"type": "boolean"},
            "bill_lines": array(closed({"name": text(), "usd_per_h": amount()}), "Of a plan."),
        }
    )
    return closed(
        {
            "words": array(text()),
            "matched": count("Deployments of the space that have all of the words."),
            "is_chosen": {"type": "boolean", "description": "Whether the chosen plan has them."},
            "reasons": array(reason, "The best that match, nearest first."),
        }
    )


def _levers() -> Schema:
    measured = {
        name: or_null(amount())
        for name in (
            "usd_per_h", "usd_per_mtok_output", "ttft_p99_s", "itl_p99_s", "output_tokens_per_s_per_gpu",
            "saturation_requests_per_s",
        )
    }  # fmt: skip
    row = closed(
        {
            "lever": text(),
            "setting": text(),
            "is_chosen": {"type": "boolean"},
            "keeps_limits": {"type": "boolean"},
            "replicas": or_null(count()),
            "gpus": or_null(count("As many as the chosen plan's where the limits are not kept.")),
            **measured,
            "misses": array(ref("miss")),
            "reason": text("Why there is no plan; empty where there is one."),
        }
    )
    batch = closed(
        {
            "max_num_seqs": count(least=1),
            "output_tokens_per_s_per_gpu": amount(),
            "itl_p99_s": or_null(amount()),
            "usd_per_mtok_output": amount(),
            "misses": array(ref("miss")),
        },
        "One replica with an endless queue.",
    )
    return closed(
        {
            "label": text("The plan that is changed."),
            "rows": array(row),
            "batches": array(batch),
            "saturating_batch": or_null(count(), "The smallest batch with 95% of the most throughput."),
            "left_out": array(text()),
        }
    )
