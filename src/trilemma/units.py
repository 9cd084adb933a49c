"""Units: constants, parsing "80 GiB" and "500 ms" at the rim, printing. Inside there is one unit per quantity.

Seconds, bytes, tokens, dollars, joules, watts. A bare number where a unit is needed is an error, never a guess.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from trilemma.errors import InputError

KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12
KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
PS_PER_S: Final = 10**12
SECONDS_PER_H: Final = 3600.0
HOURS_PER_YEAR: Final = 8760.0
HOURS_PER_MONTH: Final = HOURS_PER_YEAR / 12

TIME_S: Final[Mapping[str, float]] = {
    "ps": 1e-12, "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0,
    "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
BYTES: Final[Mapping[str, float]] = {
    "b": 1, "kb": KB, "mb": MB, "gb": GB, "tb": TB, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
}  # fmt: skip
RATE_PER_S: Final[Mapping[str, float]] = {
    "req/s": 1.0, "requests/s": 1.0, "rps": 1.0, "req/min": 1 / 60, "requests/min": 1 / 60, "rpm": 1 / 60,
    "req/h": 1 / 3600, "requests/h": 1 / 3600,
}  # fmt: skip

# A comma only groups thousands: "1,500 ms" is 1500 ms, "1,5 s" is refused rather than read as 15 s.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)"
_NUMBER_UNIT = re.compile(rf"^\s*([-+]?(?:{_DIGITS}\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s,.].*?)?\s*$")


def parse(text: object, table: Mapping[str, float], *, where: str, what: str, example: str) -> float:
    """A number with a unit of `table`, in the table's base unit; finite and not negative.

    Raises InputError naming `where` for a missing or unknown unit, a negative or a non-finite number.

    >>> parse("500 msec", TIME_S, where="limits[0]", what="a time", example="500 ms")
    0.5
    """
    expected = f"{what} with a unit such as '{example}'"
    match = _NUMBER_UNIT.match(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(where, expected=expected, found=repr(text))
    number, unit = match.groups()
    if unit is None:
        raise InputError(where, expected=expected, found=repr(text), hint="the unit is missing")
    scale = table.get(unit.strip().lower())
    if scale is None:
        raise InputError(where, expected=expected, found=repr(text), hint=f"units known: {', '.join(table)}")
    value = float(number.replace(",", "").replace("_", "")) * scale
    if not math.isfinite(value) or value < 0:
        raise InputError(where, expected=f"{what} that is finite and not negative", found=repr(text))
    return value


def parse_time_s(text: object, *, where: str) -> float:
    """Seconds from "500 ms", "2 h", "1.5 s".

    >>> parse_time_s("2 h", where="deadline")
    7200.0
    """
    return parse(text, TIME_S, where=where, what="a time", example="500 ms")


def parse_bytes(text: object, *, where: str) -> float:
    """Bytes from "80 GiB" (2^30) or "80 GB" (10^9).

    >>> parse_bytes("80 GiB", where="hbm") == 80 * GIB
    True
    """
    return parse(text, BYTES, where=where, what="a size", example="80 GiB")


def parse_rate_per_s(text: object, *, where: str) -> float:
    """Requests per second from "12 req/s" or "600 req/min".

    >>> parse_rate_per_s("600 req/min", where="rate")
    10.0
    """
    return parse(text, RATE_PER_S, where=where, what="a rate", example="12 req/s")


def parse_share(text: object, *, where: str) -> float:
    """A share from "25%" or 0.25; finite and not negative.

    >>> parse_share("25%", where="headroom"), parse_share(0.25, where="headroom")
    (0.25, 0.25)
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        value = float(text)
    else:
        raw = str(text).strip()
        try:
            value = float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
        except ValueError:
            raise InputError(where, expected="a share such as '25%' or 0.25", found=repr(text)) from None
    if not math.isfinite(value) or value < 0:
        raise InputError(where, expected="a share that is finite and not negative", found=repr(text))
    return value


def show_time(seconds: float | None) -> str:
    """A time with three significant digits and the unit a person would pick.

    >>> show_time(0.0312), show_time(2.5), show_time(None), show_time(5400)
    ('31.2 ms', '2.5 s', '-', '1.5 h')
    """
    if seconds is None or math.isnan(seconds):
        return "-"
    if math.isinf(seconds):
        return "inf"
    for unit, scale in (("h", 3600.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= 0.9995 * scale:  # what would round to 1,000 of the smaller unit
            return f"{seconds / scale:.3g} {unit}" if seconds / scale < 1000 else f"{seconds / scale:,.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0 s"


def show_bytes(count: float | None) -> str:
    """Bytes in binary units.

    >>> show_bytes(80 * GIB), show_bytes(327_680)
    ('80 GiB', '320 KiB')
    """
    if count is None:
        return "-"
    for unit, scale in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(count) >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:.0f} B"


def show_usd(amount: float | None) -> str:
    """Dollars with cents below a thousand, none above.

    >>> show_usd(2.5), show_usd(1234567.8), show_usd(None)
    ('$2.50', '$1,234,568', '-')
    """
    if amount is None:
        return "-"
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount):,.2f}" if abs(amount) < 1000 else f"{sign}${abs(amount):,.0f}"
