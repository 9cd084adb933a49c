"""A way to obtain accelerators: owned, on-demand, reserved, spot; and the price of buying tokens from an API."""

from dataclasses import dataclass
from enum import StrEnum

from trilemma.catalogue.figure import Figure
from trilemma.units import SECONDS_PER_H


class OfferKind(StrEnum):
    """How the money leaves: an asset, by the hour, by a term, or by the hour until it is taken away."""

    OWNED = "owned"
    ON_DEMAND = "on-demand"
    RESERVED = "reserved"
    SPOT = "spot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One priced way to get `purchase_unit_gpus` GPUs of `accelerator`.

    `price` is USD per purchase unit for OWNED (the node or rack, before network uplift) and USD per GPU-hour for the
    others. `term_months` and `upfront_share` apply to RESERVED; `interruptions_per_h`, per instance-hour, to SPOT
    (None: unknown). `start_s` is the time until a rented instance answers (None: `Economics.instance_start_s`);
    `billing_increment_h` the smallest time charged, ON_DEMAND and SPOT. `market` says whose price it is ("market
    median", "hyperscaler", "neocloud").
    """

    name: str
    accelerator: str
    kind: OfferKind
    price: Figure
    purchase_unit_gpus: int
    market: str
    term_months: int = 0
    upfront_share: float = 0.0
    interruptions_per_h: Figure | None = None
    start_s: Figure | None = None
    billing_increment_h: float = 1 / SECONDS_PER_H
    currency: str = "USD"
    default: bool = True

    @property
    def label(self) -> str:
        """The kind as scenarios write it, with the term: "owned", "on-demand", "reserved-1y", "reserved-3y", "spot"."""
        if self.kind is not OfferKind.RESERVED:
            return self.kind.value
        years, months = divmod(self.term_months, 12)
        return f"reserved-{self.term_months}m" if months else f"reserved-{years}y"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice:
    """USD per million tokens of a hosted model; `cached_input` None where the provider publishes none.

    `aliases` are other names of models served at this price, such as the checkpoint without a date.
    """

    model: str
    input_usd_per_mtok: Figure
    output_usd_per_mtok: Figure
    cached_input_usd_per_mtok: Figure | None = None
    aliases: tuple[str, ...] = ()
    currency: str = "USD"
