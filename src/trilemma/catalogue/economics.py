"""The prices and rates around the hardware: finance, facility, labour; every default a sourced row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trilemma.catalogue.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """Rates as shares (0.09 for 9%), money in USD; `figures` keeps each default's sourced form by field name.

    Owned: capital is an annuity over `horizon_months` at `discount_rate` on node price x (1 + `capex_uplift`) with
    a residual of `residual_share` x node price. `maintenance_share_per_year` and `insurance_share_per_year` are of
    the node price with uplift. `operations_fte_per_node` staff looks after owned hardware, disjoint from
    `upkeep_fte`, the engineers who keep the serving stack. `model_life_months` is how long a model stays in
    production: it amortises tuning. `benchmark_gpu_hours` are spent once per tuned deployment. `api_wrapper_weeks` are
    engineer-weeks to put a bought API into production. `quantisation_weeks` are those of quantising a model oneself and
    judging the result, `checkpoint_check_weeks` those of judging a checkpoint that others quantised.

    Rented: `instance_start_s` passes until an instance answers; `spot_lost_work_s` of its work is lost when it is taken
    away. `backfill_usd_per_mtok` is what a batch output token in idle hours is worth to the user (0: nothing).
    `grid_gco2_per_kwh` is the carbon of the electricity. `exchange_rates` are USD per unit of a currency; prices were
    converted with them when they were read.
    """

    horizon_months: float
    discount_rate: float
    residual_share: float
    capex_uplift: float
    pue: float
    electricity_usd_per_kwh: float
    colocation_usd_per_kw_month: float
    maintenance_share_per_year: float
    insurance_share_per_year: float
    operations_fte_per_node: float
    engineer_usd_per_year: float
    upkeep_fte: float
    model_life_months: float
    benchmark_gpu_hours: float
    grid_gco2_per_kwh: float
    instance_start_s: float
    quantisation_weeks: float
    checkpoint_check_weeks: float
    spot_lost_work_s: float
    api_wrapper_weeks: float = 3.0
    backfill_usd_per_mtok: float = 0.0
    exchange_rates: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
