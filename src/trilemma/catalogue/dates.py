"""The date of a price: ISO, as exact as its source, and its age on another day."""

import re
from datetime import date
from typing import Final

from trilemma.errors import InputError

_ISO: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
EXPECTED: Final = "an ISO date such as 2026-09-25, 2026-09 or 2026"


def day_of(text: str, *, where: str) -> date:
    """The day an ISO date means; the middle of the month or year where it names no more.

    Raises InputError naming `where` for anything else.

    >>> day_of("2026-09-25", where="as_of"), day_of("2026-09", where="as_of"), day_of("2026", where="as_of")
    (datetime.date(2026, 9, 25), datetime.date(2026, 9, 15), datetime.date(2026, 7, 1))
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise InputError(where, expected=EXPECTED, found=repr(text))
    year, month, day = match.groups()
    try:
        return date(int(year), int(month or 7), int(day or (15 if month else 1)))
    except ValueError:
        raise InputError(where, expected=EXPECTED, found=repr(text), hint="there is no such day") from None


def age_days(text: str, as_of: date, *, where: str = "as_of") -> int:
    """Days from an ISO date to `as_of`; negative for a later date.

    >>> age_days("2026-09", date(2026, 11, 1))
    47
    """
    return (as_of - day_of(text, where=where)).days
