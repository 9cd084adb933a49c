"""Timestamps: whole columns and single stamps agree, to the last of seven digits."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.workload.timestamps import parse_column, parse_one

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2199, 12, 30), timezones=st.just(UTC))


@given(st.lists(st.tuples(MOMENTS, st.integers(0, 9)), min_size=1, max_size=8), st.sampled_from(["", "Z", "+00:00"]))
def test_column_and_single_agree_with_the_calendar(rows, zone):
    texts = [f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}{digit}{zone}" for moment, digit in rows]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = []
    for moment, digit in rows:
        since = moment - epoch
        expected.append(((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000 + digit * 100)
    assert [parse_one(text)[0] for text in texts] == expected
    assert parse_column(np.array(texts, dtype="S48")).tolist() == expected


def test_seven_digits_survive():
    early, late = parse_one("2023-11-16 18:15:46.6805900"), parse_one("2023-11-16 18:15:46.6805901")
    assert late[0] - early[0] == 100
    assert early[1] is False


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-05-10 02:00:00.009930+02:00", "2024-05-10 00:00:00.009930+00:00"),
        ("2024-05-09T19:00:00-0500", "2024-05-10 00:00:00Z"),
        ("2024-05-10 05:30:00 +05:30", "2024-05-10 00:00:00 UTC"),
        ("2024-05-10 01:00:00+01", "2024-05-10 00:00:00"),
    ],
)
def test_zones_are_taken_off(text, utc):
    assert parse_one(text)[0] == parse_one(utc)[0]
    assert parse_column(np.array([text.encode()] * 2)).tolist() == [parse_one(utc)[0]] * 2


def test_fractions_may_come_and_go_within_a_column():
    texts = [b"2024-05-10 00:00:01+00:00", b"2024-05-10 00:00:01.5+00:00", b"2024-05-10 00:00:02.000001+00:00"]
    assert np.diff(parse_column(np.array(texts))).tolist() == [500_000_000, 500_001_000]


@pytest.mark.parametrize(
    "text",
    [
        "", "NaT", "now", "2023", "2023-11-16", "2023-11-16 18:15", "2023-02-30 00:00:00", "2023-11-16 25:00:00",
        "2023-11-16 18:15:46.", "2023-11-16 18:15:46.1234567890", "2023-11-16 18:15:46x", "16/11/2023 18:15:46",
        "1969-12-31 23:59:59", "9999-01-01 00:00:00", "2023-11-16 18:15:46.68 05900", "1700158546.68",
    ],
)  # fmt: skip
def test_anything_else_is_refused_both_ways(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_one(text)
    good = b"2023-11-16 18:15:46.6805900"
    with pytest.raises(ValueError, match=r".*"):
        parse_column(np.array([good, text.encode()], dtype="S48"))
    with pytest.raises(ValueError, match=r".*"):
        parse_column(np.array([text.encode()], dtype="S48"))


def test_a_column_keeps_to_one_zone():
    with pytest.raises(ValueError, match="zone"):
        parse_column(np.array([b"2024-05-10 00:00:00+00:00", b"2024-05-10 00:00:00+01:00"]))
    with pytest.raises(ValueError, match="zone"):
        parse_column(np.array([b"2024-05-10 00:00:00Z", b"2024-05-10 00:00:00"]))
    with pytest.raises(ValueError, match=r".*"):
        parse_column(np.array([b"2024-05-10 00:00:00", b"2024-05-10 00:00:00Z"]))
