"""Forms of a result, and files that are whole or absent."""

import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.cli.output import Format, csv_text, emit, json_text, plain, table_text, write_whole
from trilemma.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child),
    max_leaves=10,
)


@given(VALUES)
def test_json_is_strict_whatever_the_value(value):
    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(json_text(value), parse_constant=refuse) == plain(value)


def test_arrays_and_scalars_of_numpy_become_lists_and_numbers():
    found = plain({"a": np.array([1.5, math.nan]), "b": np.int64(3), "c": np.float64("inf"), "d": np.bool_(True)})
    assert found == {"a": [1.5, None], "b": 3, "c": None, "d": True}


def test_rows_with_different_columns_share_a_header():
    rows = [{"a": 1, "b": [1, 2]}, {"a": math.nan, "c": 'say "x", please'}]
    assert csv_text(rows) == 'a,b,c\n1,"[1, 2]",\n,,"say ""x"", please"\n'
    assert table_text(rows).splitlines()[0].split() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "begins"),
    [("x.json", "["), ("x.csv", "a\n1"), ("x.yaml", "- a: 1"), ("x.yml", "- a: 1"), ("x.txt", "a\n-")],
)
def test_the_files_ending_decides_where_nothing_else_does(tmp_path, capsys, name, begins):
    emit([{"a": 1}], output=None, output_file=tmp_path / name)
    assert (tmp_path / name).read_text().startswith(begins)
    emit([{"a": 1}], output=Format.JSON, output_file=tmp_path / name)
    assert (tmp_path / name).read_text().startswith("[")
    assert capsys.readouterr().out == ""


def test_a_file_is_replaced_whole_with_the_usual_permissions(tmp_path):
    target = tmp_path / "plan.json"
    target.write_text("old")
    (tmp_path / "link.json").symlink_to(target)
    write_whole(tmp_path / "link.json", "new")
    assert (target.read_text(), (tmp_path / "link.json").is_symlink()) == ("new", True)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "plan.json"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "plan.json"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "new \ud800")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["missing/plan.json", ""])
def test_where_no_file_can_be_written(tmp_path, name):
    with pytest.raises(InputError, match=r"--output-file .*: expected a file to write, found "):
        write_whole(tmp_path / name, "new")
    assert list(tmp_path.iterdir()) == []


def test_devices_are_written_to_not_replaced():
    write_whole(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()
