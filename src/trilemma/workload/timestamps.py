"""Calendar timestamps of traces: 7-digit fractions, optional time zone, whole nanoseconds inside.

The fast path reads a whole column at once and refuses anything unusual; `parse_one` then reads stamp by stamp.
"""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

STAMP_BYTES = 48
_PLAIN = "0000-00-00 00:00:00"
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?\s?(Z|UTC|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_one(text: str) -> tuple[int, bool]:
    """Nanoseconds since 1970 in UTC, and whether the text names its zone; without one UTC is taken.

    Raises ValueError for anything that is not a timestamp of the years 1970 to 2199.

    >>> parse_one("1970-01-01 00:00:01.0000001+00:00")
    (1000000100, True)
    """
    match = _ISO.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, zone = match[7], match[8]
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    if not 1970 <= moment.year < 2200:
        raise ValueError(text)
    if zone and zone[0] in "+-":
        minutes = int(zone[1:3]) * 60 + int(zone[3:].removeprefix(":") or 0)
        moment -= timedelta(minutes=-minutes if zone[0] == "-" else minutes)
    since = moment - _EPOCH
    nanoseconds = int((fraction or "").ljust(9, "0"))
    return (since.days * 86_400 + since.seconds) * 10**9 + nanoseconds, zone is not None


def parse_column(stamps: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """(n,) bytes -> (n,) nanoseconds, for a column whose rows share layout and zone.

    Raises ValueError where any row differs from the layout of the first one's zone or is no timestamp.

    >>> parse_column(np.array([b"1970-01-01 00:00:01.5Z", b"1970-01-01 00:00:02Z"])).tolist()
    [1500000000, 2000000000]
    """
    first, zoned = parse_one(stamps[0].decode())
    width = stamps.dtype.itemsize
    characters = np.frombuffer(stamps.tobytes(), dtype=np.uint8).reshape(-1, width).copy()
    shift = 0
    if zoned:
        text = stamps[0].decode()
        body = re.split(r"\s?(?:Z|UTC|[+-][\d:]+)$", text, maxsplit=1)[0]
        zone = text[len(body) :].encode()
        lengths = np.char.str_len(stamps)
        if lengths.min() < len(_PLAIN) + len(zone):
            raise ValueError("a timestamp without the first one's zone")
        at = (lengths - len(zone))[:, None] + np.arange(len(zone))
        if (np.take_along_axis(characters, at, axis=1) != np.frombuffer(zone, dtype=np.uint8)).any():
            raise ValueError("a timestamp without the first one's zone")
        np.put_along_axis(characters, at, 0, axis=1)
        shift = first - parse_one(body)[0]
    _check_layout(characters)
    plain = characters.view(f"S{width}").ravel()
    # Both sides are whole nanoseconds; the years checked above cannot overflow 64 bits.
    return plain.astype("datetime64[ns]").astype(np.int64) + shift


def _check_layout(characters: npt.NDArray[np.uint8]) -> None:
    """Raise ValueError unless each row reads 19NN/20NN/21NN-NN-NN NN:NN:NN with at most nine more digits."""
    if characters.shape[1] < len(_PLAIN):
        raise ValueError("too short for a timestamp")
    digit = (characters >= ord("0")) & (characters <= ord("9"))
    fits = True
    for place, sample in enumerate(_PLAIN):
        column = characters[:, place]
        if sample == "0":
            fits &= bool(digit[:, place].all())
        elif sample == " ":
            fits &= bool(((column == ord(" ")) | (column == ord("T"))).all())
        else:
            fits &= bool((column == ord(sample)).all())
    rest, rest_digit = characters[:, len(_PLAIN) :], digit[:, len(_PLAIN) :]
    if rest.shape[1]:
        fits &= bool(((rest[:, 0] == 0) | (rest[:, 0] == ord("."))).all())
        fits &= bool((rest_digit[:, 1:] | (rest[:, 1:] == 0)).all())
        fits &= not rest[:, 10:].any()
        fits &= bool((rest[:, 1:].any(axis=1) == (rest[:, 0] == ord("."))).all())
    year = characters[:, :4].astype(np.int64) @ np.array([1000, 100, 10, 1]) - ord("0") * 1111
    if not fits or year.min() < 1970 or year.max() >= 2200:
        raise ValueError("not a plain timestamp")
