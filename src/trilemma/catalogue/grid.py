"""How much carbon a kilowatt-hour carries, by region of the grid."""

from collections.abc import Mapping
from dataclasses import dataclass

from trilemma.catalogue.figure import Figure
from trilemma.catalogue.names import find, index_names
from trilemma.catalogue.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRegion:
    """A grid with the carbon of its electricity, `gco2_per_kwh` grams of CO2 per kWh, averaged over a year."""

    name: str
    title: str
    gco2_per_kwh: Figure
    aliases: tuple[str, ...] = ()


def read_grid_region(name: str, row: Row) -> GridRegion:
    """One region; InputError names file and key."""
    region = GridRegion(
        name=name,
        title=row.text("title"),
        aliases=row.texts("aliases"),
        gco2_per_kwh=row.figure("gco2_per_kwh"),
    )
    row.end()
    return region


def grid_region(regions: Mapping[str, GridRegion], name: str, *, where: str = "") -> GridRegion:
    """The region of that name or alias. InputError, at `where`, names the nearest ones where there is none."""
    index = index_names({key: region.aliases for key, region in regions.items()}, what="grid region", where={})
    return regions[find(name, index, what="grid region", where=where)]
