"""The rates of economics.toml as values: prices around the hardware, the grid's carbon, exchange rates."""

from collections.abc import Mapping

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.figure import Figure
from trilemma.catalogue.grid import GridRegion, grid_region
from trilemma.catalogue.rows import DOLLARS, Row, is_currency
from trilemma.errors import InputError

MAY_BE_ZERO = {
    "residual_share", "maintenance_share_per_year", "insurance_share_per_year", "operations_fte_per_node",
    "colocation_usd_per_kw_month", "capex_uplift", "discount_rate", "upkeep_fte", "benchmark_gpu_hours",
    "api_wrapper_weeks", "electricity_usd_per_kwh", "grid_gco2_per_kwh", "instance_start_s", "quantisation_weeks",
    "checkpoint_check_weeks", "spot_lost_work_s", "backfill_usd_per_mtok",
}  # fmt: skip
SHARES = ("discount_rate", "residual_share", "maintenance_share_per_year", "insurance_share_per_year")
GRID, GRID_REGION, EXCHANGE_RATES = "grid_gco2_per_kwh", "grid_region", "exchange_rates"
RATES = tuple(name for name in Economics.__dataclass_fields__ if name not in {"figures", GRID, EXCHANGE_RATES})


def read_economics(row: Row, regions: Mapping[str, GridRegion], exchange_rates: Mapping[str, float]) -> Economics:
    """Rates and prices around the hardware; the grid's carbon as a number or as a region.

    `exchange_rates`, USD per unit of a currency, go before the row's, whose figures are kept as "exchange_rates.EUR".
    InputError names file and key.
    """
    figures = {name: row.figure(name, above_zero=name not in MAY_BE_ZERO) for name in RATES}
    figures[GRID] = _grid(row, regions)
    exchange = {code: rate for code, rate in _exchange_rates(row).items() if code not in exchange_rates}
    row.end()
    for name in SHARES:
        if figures[name].value > 1:
            raise InputError(
                row.place(name), expected="a share from 0 to 1", found=f"{figures[name].value:g}", hint="0.09 is 9%"
            )
    if figures["pue"].value < 1:
        raise InputError(row.place("pue"), expected="a ratio of at least 1", found=f"{figures['pue'].value:g}")
    return Economics(
        **{name: figure.value for name, figure in figures.items()},
        exchange_rates={code: figure.value for code, figure in exchange.items()} | dict(exchange_rates),
        figures=figures | {f"{EXCHANGE_RATES}.{code}": figure for code, figure in exchange.items()},
    )


def _grid(row: Row, regions: Mapping[str, GridRegion]) -> Figure:
    if not row.has(GRID_REGION):
        return row.figure(GRID)
    place = row.place(GRID_REGION)
    if row.has(GRID):
        raise InputError(place, expected=f"a region or {GRID}", found="both", hint="leave one of them out")
    return grid_region(regions, row.text(GRID_REGION), where=place).gco2_per_kwh


def _exchange_rates(row: Row) -> dict[str, Figure]:
    rates: dict[str, Figure] = {}
    for currency, rate in row.figures(EXCHANGE_RATES, above_zero=True).items():
        if not is_currency(currency) or currency == DOLLARS:
            raise InputError(
                row.place(f"{EXCHANGE_RATES}.{currency}"), expected="a currency such as EUR, other than USD",
                found=repr(currency),
            )  # fmt: skip
        rates[currency] = rate
    return rates
