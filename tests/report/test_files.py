"""Tables of a run: every format says the same, a file is whole or absent, a bad place is known before the run."""

import csv
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.report.outcomes import a_series, runs
from trilemma.errors import InputError, UnsupportedError
from trilemma.metrics.outcomes import STATUSES, WAIT_REASONS
from trilemma.report import requests_file
from trilemma.report.files import check_apart, check_writable, whole_file
from trilemma.report.requests_file import (
    SUFFIXES,
    Words,
    check_table_file,
    request_columns,
    series_columns,
    write_table,
)


def read(path):
    """Columns of a written file as lists of Python values, what is missing as None."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [row[name] or None for row in rows] for name in (rows[0] if rows else ())}
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pydict()


def plain(column):
    if isinstance(column, Words):
        return [column.names[code] for code in column.codes]
    return [None if isinstance(value, float) and math.isnan(value) else value for value in column.tolist()]


def same(found, wanted):
    if wanted is None or isinstance(wanted, str):
        return found == wanted
    return type(wanted)(found) == wanted


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=runs(min_size=1))
def test_every_format_holds_every_value(suffix, tmp_path, run):
    if suffix != ".csv":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"requests{suffix}"
    columns = request_columns(run)
    write_table(path, columns, where="--requests-file")
    found = read(path)
    assert list(found) == list(columns)
    for name, column in columns.items():
        wanted = plain(column)
        assert len(found[name]) == len(wanted)
        assert all(same(*pair) for pair in zip(found[name], wanted, strict=True)), name


@given(runs())
def test_what_a_row_says_of_a_request(run):
    columns = request_columns(run)
    status = plain(columns["status"])
    assert set(status) <= set(STATUSES)
    assert set(plain(columns["wait_reason"])) <= set(WAIT_REASONS)
    for i, word in enumerate(status):
        assert (word == "finished") == math.isfinite(columns["e2e_s"][i])
        assert (word == "failed") == math.isfinite(run.lost_s[i])
        if word == "finished":
            assert 0 <= columns["queued_s"][i] <= columns["ttft_s"][i] <= columns["e2e_s"][i]
    assert ("session" in columns) == (run.session is not None)


def test_series_columns_are_equally_long_and_carry_power_where_known():
    series = a_series()
    assert "power_w" not in series_columns(series)
    columns = series_columns(series, np.array([1.0, 2.0, 3.0, 4.0]))
    assert {column.size for column in columns.values()} == {4}
    assert columns["prefill_tokens_per_s"].tolist() == [0.0, 10.0, 20.0, 120.0]  # the last interval is shorter
    assert columns["idle_share"].tolist() == pytest.approx([1, 1 - 5 / 24, 1 - 10 / 24, 1 - 15 / 24])


def test_a_table_longer_than_a_chunk_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(requests_file, "_CSV_ROWS", 7)
    write_table(tmp_path / "a.csv", {"x": np.arange(30), "y": np.full(30, np.nan)}, where="f")
    assert (tmp_path / "a.csv").read_text() == "x,y\n" + "".join(f"{i},\n" for i in range(30))


def test_parquet_and_arrow_say_what_made_them(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "a.parquet", {"x": np.arange(3)}, where="f", about={"scenario": "chat"})
    assert pq.read_schema(tmp_path / "a.parquet").metadata == {b"scenario": b"chat"}


def test_without_the_library_the_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(requests_file, "find_spec", lambda name: None)
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(UnsupportedError, match=r"need pyarrow: install trilemma\[arrow\]"):
            check_table_file(tmp_path / name, where="--requests-file")
    check_table_file(tmp_path / "a.csv", where="--requests-file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.json", "a", "a.csv.gz", "parquet"])
def test_unknown_endings_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"--series-file .*: expected a file ending in \.parquet, \.arrow or \.csv"):
        check_table_file(tmp_path / name, where="--series-file")


def test_the_endings_are_read_in_any_case(tmp_path):
    write_table(tmp_path / "A.CSV", {"x": np.arange(1)}, where="f")
    assert (tmp_path / "A.CSV").read_text() == "x\n0\n"
    assert SUFFIXES == (".parquet", ".arrow", ".csv")


@pytest.mark.parametrize(
    ("name", "found"),
    [("missing/a.csv", "no such file or directory"), ("folder.csv", "a folder"), ("file.csv/a.csv", "not a directory")],
)
def test_a_place_that_cannot_be_written_to_is_known_beforehand(tmp_path, name, found):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.csv").write_text("")
    for act in (check_writable, check_table_file):
        with pytest.raises(InputError) as caught:
            act(tmp_path / name, where="--requests-file")
        assert str(caught.value) == f"--requests-file {tmp_path / name}: expected a file to write, found {found}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv", "folder.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_known_beforehand(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="permission denied"):
        check_writable(tmp_path / "a.csv", where="--requests-file")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_what_fails_halfway_leaves_the_old_file_and_no_other(tmp_path, error):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def fail():
        with whole_file(target, where="f") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_interrupted_table_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(requests_file, "_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_table(tmp_path / "a.csv", {"x": np.arange(3)}, where="f")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_through_links_with_the_usual_permissions(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")
    (tmp_path / "link.csv").symlink_to(target)
    write_table(tmp_path / "link.csv", {"x": np.arange(1)}, where="f")
    assert (target.read_text(), (tmp_path / "link.csv").is_symlink()) == ("x\n0\n", True)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_devices_are_written_to_not_replaced():
    check_writable(Path(os.devnull), where="f")
    with whole_file(Path(os.devnull), where="f") as path:
        path.write_text("gone")
    assert not Path(os.devnull).is_file()


def test_two_flags_with_one_file_are_refused(tmp_path):
    check_apart({"--a": tmp_path / "x.csv", "--b": tmp_path / "y.csv", "--c": None, "--d": None})
    check_apart({"--a": Path(os.devnull), "--b": Path(os.devnull)})
    with pytest.raises(InputError, match=r"--b .*: expected a file of its own, found that of --a"):
        check_apart({"--a": tmp_path / "x.csv", "--b": tmp_path / "." / "x.csv"})
