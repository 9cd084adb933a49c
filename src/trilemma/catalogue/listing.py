"""What `trilemma catalogue` prints: the rows of one table as flat dicts, filtered; every number with its provenance.

Keys carry their unit. A value that does not exist is None.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import Catalogue
from trilemma.catalogue.figure import Figure, weakest
from trilemma.catalogue.market import HOURLY
from trilemma.catalogue.names import key_of
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.support import precision_on
from trilemma.errors import InputError
from trilemma.units import GB, GIB, TB

if TYPE_CHECKING:
    from trilemma.catalogue.model import Model

Value = str | float | int | bool | None
Rows = list[dict[str, Value]]
TABLES: Final = ("models", "accelerators", "offers", "engines", "precisions", "economics", "grid", "api")
TERA: Final = 1e12


def catalogue_rows(
    catalogue: Catalogue, table: str, *, contains: str = "", accelerator: str | None = None, kind: str | None = None,
    details: bool = False, parameters: "Callable[[Model], tuple[int, int]] | None" = None,
) -> Rows:  # fmt: skip
    """The rows of one table: models, accelerators, offers, engines, precisions, economics, grid or api.

    `contains` keeps rows in which any text contains it, whatever the case. `accelerator` filters offers and says of
    precisions what they run in there. `kind` filters offers ("spot", "reserved-3y"). `details` lists accelerators,
    engines and offers number by number, each with low, high, source, date and reference. `parameters` counts a model's
    total and active parameters. Raises InputError for a table, an accelerator or a kind that does not exist.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> rows = catalogue_rows(load_catalogue(), "offers", accelerator="h100", kind="on-demand")
    >>> rows[0]["offer"], rows[0]["usd_per_gpu_h"], rows[0]["low"], rows[0]["high"]
    ('h100_sxm/on-demand', 3.29, 1.99, 6.16)
    """
    makers: Mapping[str, Callable[[], Rows]] = {
        "models": lambda: model_rows(catalogue, parameters=parameters),
        "accelerators": lambda: accelerator_rows(catalogue, details=details),
        "offers": lambda: offer_rows(catalogue, accelerator=accelerator, kind=kind, details=details),
        "engines": lambda: engine_rows(catalogue, details=details),
        "precisions": lambda: precision_rows(catalogue, accelerator=accelerator),
        "economics": lambda: [{"rate": name, **_figure(f)} for name, f in catalogue.economics.figures.items()],
        "grid": lambda: grid_rows(catalogue),
        "api": lambda: api_rows(catalogue),
    }
    if table not in makers:
        raise InputError("catalogue", expected=f"one of {', '.join(makers)}", found=repr(table))
    return filtered(makers[table](), contains, leave_out=PROVENANCE if details else ())


PROVENANCE = ("source", "as_of", "reference")


def filtered(rows: Iterable[dict[str, Value]], contains: str, *, leave_out: Collection[str] = ()) -> Rows:
    """Rows in which any text contains the words, whatever the case and the separators; columns `leave_out` apart."""
    key = key_of(contains)

    def texts(row: dict[str, Value]) -> Iterable[str]:
        return (value for name, value in row.items() if isinstance(value, str) and name not in leave_out)

    return [row for row in rows if any(key in key_of(text) for text in texts(row))]


def model_rows(catalogue: Catalogue, *, parameters: "Callable[[Model], tuple[int, int]] | None" = None) -> Rows:
    """Models with their shape; parameters in billions where the caller can count them."""
    rows: Rows = []
    for model in catalogue.models.values():
        total, active = parameters(model) if parameters else (None, None)
        rows.append({
            "model": model.name,
            "kind": "MoE" if model.is_moe else "dense",
            "attention": "+".join(dict.fromkeys(b.attention.kind.value for b in model.blocks if b.attention)),
            "parameters_billion": None if total is None else round(total / 1e9, 2),
            "active_billion": None if active is None else round(active / 1e9, 2),
            "layers": model.layers,
            "hidden": model.hidden,
            "native_precision": model.precision,
            "max_context_tokens": model.max_context_tokens or None,
            "aliases": ", ".join(model.aliases),
            "reference": model.reference,
        })  # fmt: skip
    return rows


def accelerator_rows(catalogue: Catalogue, *, details: bool = False) -> Rows:
    """Accelerators, one a row, with the weakest source of their numbers; or one number a row."""
    if details:
        return [
            {"accelerator": row.name, "number": name, **_figure(figure)}
            for row in catalogue.accelerators.values()
            for name, figure in row.figures.items()
        ]
    return [_accelerator(row, bool(catalogue.offers_for(row))) for row in catalogue.accelerators.values()]


def _accelerator(row: Accelerator, has_offer: bool) -> dict[str, Value]:
    figures = row.figures.values()
    return {
        "accelerator": row.name,
        "title": row.title,
        "family": row.family,
        "memory_gib": round(row.hbm_bytes / GIB, 1),
        "memory_tb_per_s": row.hbm_bytes_per_s / TB,
        **{f"{name}_tflops": _tera(row.flops.get(name)) for name in ("bf16", "fp8", "int8", "fp4")},
        "link_gb_per_s": row.link_bytes_per_s / GB,
        "link_domain_gpus": row.link_domain_gpus,
        "network_gb_per_s": row.network_bytes_per_s / GB,
        "gpus_per_node": row.gpus_per_node,
        "tdp_w": row.tdp_w,
        "node_max_kw": row.node_max_w / 1000,
        "offers": "yes" if has_offer else "no offer",
        "source": weakest(*(figure.source for figure in figures)).label,
        "aliases": ", ".join(row.aliases),
        "note": row.note,
    }


def offer_rows(
    catalogue: Catalogue, *, accelerator: str | None = None, kind: str | None = None, details: bool = False
) -> Rows:
    """Every offer, default or not; accelerators without any show one row that says so. Or one number a row."""
    names = list(catalogue.accelerators) if accelerator is None else [catalogue.accelerator(accelerator).name]
    kinds = None if kind is None else [kind]
    rows: Rows = []
    for name in names:
        found = catalogue.offers_for(name, kinds, default_only=False)
        rows += [row for offer in found for row in (_offer_numbers(offer) if details else [_offer(offer)])]
        if not found and kind is None and not details:
            rows.append({"offer": f"{name}: no offer", "accelerator": name} | dict.fromkeys(OFFER_KEYS))
    return rows


OFFER_KEYS: Final = (
    "kind", "market", "usd_per_unit", "usd_per_gpu_h", "low", "high", "unit_gpus", "upfront_share",
    "interruptions_per_h", "start_s", "billing_increment_h", "default", "source", "as_of", "reference",
)  # fmt: skip


def _offer(offer: Offer) -> dict[str, Value]:
    owned = offer.kind is OfferKind.OWNED
    return {
        "offer": offer.name,
        "accelerator": offer.accelerator,
        "kind": offer.label,
        "market": offer.market,
        "usd_per_unit": offer.price.value if owned else None,
        "usd_per_gpu_h": None if owned else offer.price.value,
        "low": offer.price.low,
        "high": offer.price.high,
        "unit_gpus": offer.purchase_unit_gpus,
        "upfront_share": offer.upfront_share or None,
        "interruptions_per_h": _value(offer.interruptions_per_h),
        "start_s": _value(offer.start_s),
        "billing_increment_h": offer.billing_increment_h if offer.kind in HOURLY else None,
        "default": offer.default,
        **_provenance(offer.price),
    }


def _offer_numbers(offer: Offer) -> Rows:
    """The price and what else is known of an offer, each with its provenance."""
    unit = "usd_per_unit" if offer.kind is OfferKind.OWNED else "usd_per_gpu_h"
    numbers = {unit: offer.price, "interruptions_per_h": offer.interruptions_per_h, "start_s": offer.start_s}
    return [
        {"offer": offer.name, "kind": offer.label, "number": name, **_figure(figure)}
        for name, figure in numbers.items()
        if figure is not None
    ]


def engine_rows(catalogue: Catalogue, *, details: bool = False) -> Rows:
    """Engines, one a row; or one sourced number a row."""
    if details:
        return [
            {"engine": row.name, "number": name, **_figure(figure)}
            for row in catalogue.engines.values()
            for name, figure in {
                **row.figures,
                **{f"{topology}.weeks": work.weeks for topology, work in row.effort.items()},
                **{f"{topology}.upkeep_scale": work.upkeep_scale for topology, work in row.effort.items()},
            }.items()
        ]  # fmt: skip
    return [
        {
            "engine": row.name,
            "title": row.title,
            "version": row.version,
            "vendors": ", ".join(row.vendors) or "any",
            "block_tokens": row.block_tokens,
            "gpu_memory_utilization": row.gpu_memory_utilization,
            "framework_gib": round(row.framework_bytes / GIB, 2),
            "tokens_and_seqs": "; ".join(
                f"{d.max_num_batched_tokens}/{d.max_num_seqs} from {d.min_hbm_bytes / GIB:.0f} GiB"
                + (f" (not {', '.join(d.except_families)})" if d.except_families else "")
                for d in row.scheduler_defaults
            ),
            **{f"weeks_{topology}": work.weeks.value for topology, work in row.effort.items()},
            "as_of": row.as_of,
            "reference": row.reference,
        }
        for row in catalogue.engines.values()
    ]


def precision_rows(catalogue: Catalogue, *, accelerator: str | None = None) -> Rows:
    """Number formats; with an accelerator, what its GEMMs run in and why."""
    on = None if accelerator is None else catalogue.accelerator(accelerator)
    rows: Rows = []
    for row in catalogue.precisions.values():
        listed: dict[str, Value] = {
            "precision": row.name,
            "bits_per_weight": row.bits_per_weight,
            "quantised": ", ".join(sorted(row.quantised)) or "nothing",
            "quantised_dense": None if row.quantised_dense is None else ", ".join(sorted(row.quantised_dense)),
            "compute": row.compute,
            "fallback": row.fallback_compute,
            "as_of": row.as_of,
            "note": row.note,
            "reference": row.reference,
        }
        if on is not None:
            support = precision_on(row, on)
            listed |= {f"runs_on_{on.name}_in": support.compute or "does not run", "because": support.reason or None}
        rows.append(listed)
    return rows


def grid_rows(catalogue: Catalogue) -> Rows:
    """Regions of the electricity grid with the carbon of a kilowatt-hour."""
    return [
        {
            "region": region.name,
            "title": region.title,
            "gco2_per_kwh": region.gco2_per_kwh.value,
            "low": region.gco2_per_kwh.low,
            "high": region.gco2_per_kwh.high,
            "aliases": ", ".join(region.aliases),
            **_provenance(region.gco2_per_kwh),
        }
        for region in catalogue.grid.values()
    ]


def api_rows(catalogue: Catalogue) -> Rows:
    """API prices in USD per million tokens."""
    rows: Rows = []
    for price in catalogue.api_prices.values():
        cached = price.cached_input_usd_per_mtok
        rows.append({
            "model": price.model,
            "input_usd_per_mtok": price.input_usd_per_mtok.value,
            "input_low": price.input_usd_per_mtok.low,
            "input_high": price.input_usd_per_mtok.high,
            "output_usd_per_mtok": price.output_usd_per_mtok.value,
            "output_low": price.output_usd_per_mtok.low,
            "output_high": price.output_usd_per_mtok.high,
            "cached_input_usd_per_mtok": _value(cached),
            "cached_low": None if cached is None else cached.low,
            "cached_high": None if cached is None else cached.high,
            "aliases": ", ".join(price.aliases),
            **_provenance(price.output_usd_per_mtok),
        })  # fmt: skip
    return rows


def _figure(figure: Figure) -> dict[str, Value]:
    return {"value": figure.value, "low": figure.low, "high": figure.high, **_provenance(figure)}


def _provenance(figure: Figure) -> dict[str, Value]:
    return {"source": figure.source.label, "as_of": figure.as_of, "reference": figure.reference}


def _value(figure: Figure | None) -> float | None:
    """The number; None is shown as unavailable."""
    return None if figure is None else figure.value


def _tera(flops: float | None) -> float | None:
    return None if flops is None else flops / TERA
