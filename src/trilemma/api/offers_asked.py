"""The ways to obtain GPUs that a user names: kinds, terms, an offer's own name, or an API."""

from collections.abc import Sequence
from dataclasses import dataclass

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import Catalogue
from trilemma.catalogue.market import KINDS
from trilemma.catalogue.offer import Offer
from trilemma.errors import InputError, did_you_mean

ALIASES = {"own": "owned", "ondemand": "on-demand", "on demand": "on-demand"}
API = "api"
LEAST = 2  # a comparison needs so many offers


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One way to obtain GPUs: a `label` ("owned", "reserved-1y", "api") or one offer by its `name`."""

    label: str
    name: str = ""

    @property
    def shown(self) -> str:
        """As the user would write it."""
        return self.name or self.label

    def fits(self, offer: Offer) -> bool:
        """Whether the offer is what was meant."""
        return offer.name == self.name if self.name else offer.label == self.label and offer.default


def wanted_offers(text: str, catalogue: Catalogue, *, where: str) -> tuple[Wanted, ...]:
    """What a list such as "own,reserved-1y,api" means, each once, in a fixed order; a kind stands for its terms.

    Raises InputError, naming the flag, for an empty list, less than two offers, and names that nobody offers.
    """
    words = [word.strip() for word in text.split(",")]
    if not any(words):
        raise InputError(where, expected="offers between commas, such as own,reserved-1y,api", found=repr(text))
    found: dict[Wanted, None] = {}
    for word in words:
        for one in _meant(word, catalogue, where):
            found[one] = None
    if len(found) < LEAST:
        raise InputError(where, expected="at least two offers to compare", found=repr(text))
    return tuple(sorted(found, key=lambda one: (one.label, one.name)))


def _meant(word: str, catalogue: Catalogue, where: str) -> tuple[Wanted, ...]:
    if "/" in word:
        offer = catalogue.offer(word, where=where)
        return (Wanted(label=offer.label, name=offer.name),)
    key = word.casefold().replace("_", "-")
    key = ALIASES.get(key, key)
    labels = dict.fromkeys(offer.label for offer in catalogue.offers.values())
    if key == API or key in labels:
        return (Wanted(label=key),)
    terms = tuple(
        dict.fromkeys(Wanted(label=offer.label) for offer in catalogue.offers.values() if offer.kind.value == key)
    )
    if terms:
        return terms
    known = dict.fromkeys(["own", *KINDS, *sorted(labels), API])
    raise InputError(
        where, expected=f"offers among {', '.join(known)}, or by name", found=repr(word),
        hint=did_you_mean(key, known),
    )  # fmt: skip


def offers_of(
    wanted: Wanted, catalogue: Catalogue, accelerators: Sequence[Accelerator], *, where: str
) -> tuple[Offer, ...]:
    """The offers of the accelerators that are meant; none where the catalogue has none.

    Raises InputError for an offer named whose accelerator is not among them.
    """
    names = [accelerator.name for accelerator in accelerators]
    if wanted.name:
        offer = catalogue.offer(wanted.name, where=where)
        if offer.accelerator not in names:
            raise InputError(where, expected=f"an offer of {', '.join(names)}", found=repr(wanted.name))
        return (offer,)
    return tuple(o for o in catalogue.offers.values() if o.accelerator in names and wanted.fits(o))
