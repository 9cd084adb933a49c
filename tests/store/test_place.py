"""Where the store is, and who may have written it."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from trilemma.errors import InputError
from trilemma.store import Store
from trilemma.store.place import switched_off, usual_path
from trilemma.store.trials import most_bytes
from trilemma.units import MIB


def test_the_environment_names_the_place(monkeypatch, tmp_path):
    monkeypatch.setenv("TRILEMMA_STORE", str(tmp_path / "mine.sqlite"))
    assert usual_path() == tmp_path / "mine.sqlite"
    assert not switched_off()
    monkeypatch.setenv("TRILEMMA_STORE", "Off")
    assert switched_off()


def test_otherwise_it_is_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TRILEMMA_STORE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert usual_path() == tmp_path / ".local/share/trilemma/runs.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert usual_path() == tmp_path / "data/trilemma/runs.sqlite"


def test_every_file_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        with Store.open(tmp_path / "new" / "runs.sqlite") as store:
            store.trials.remember([("a", 1)])
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    assert modes == {"runs.sqlite": 0o600, "runs.sqlite-wal": 0o600, "runs.sqlite-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught, Store.open(path):
        pass
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path, ending, mode):
    path = tmp_path / "runs.sqlite"
    with Store.open(path):
        pass
    written = Path(f"{path}{ending}")
    written.touch()
    written.chmod(mode)
    assert f"expected a file that only you may write, found mode {mode:03o} (chmod go-rwx" in refused(path)


def test_a_folder_that_others_may_write_is_refused(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)  # as /tmp: others may put files beside ours
    assert "expected a folder that only you may write, found mode 1777" in refused(folder / "runs.sqlite")
    assert not list(folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_another_users_file_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store.open(path):
        pass
    os.chown(path, 12345, 12345)
    assert "expected a file of your own, found one that belongs to another user" in refused(path)


def test_what_is_no_store_is_left_alone(tmp_path):
    path = tmp_path / "runs.sqlite"
    path.write_text("some notes of mine, which are longer than the header of a database\n" * 10)
    path.chmod(0o600)
    before = path.read_bytes()
    assert "expected a database of trilemma that can be read and written, found file is not a database" in refused(path)
    assert path.read_bytes() == before
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    assert "found a database of another program (move it away, or go on with --no-store)" in refused(other)
    assert "expected a file, found a folder" in refused(tmp_path)


def test_a_damaged_store_says_so(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store.open(path) as store:
        store.trials.remember([(str(i), bytes(1000)) for i in range(1000)])
    content = bytearray(path.read_bytes())
    content[4096:] = b"x" * (len(content) - 4096)  # everything but the page that says what it is
    path.write_bytes(content)
    with pytest.raises(InputError, match="found database disk image is malformed"), Store.open(path) as store:
        store.runs.all()
    with Store.open(path) as store:
        assert not store.sound()
        with pytest.warns(UserWarning, match="results are not kept any longer"):
            assert store.trials.known(["1"]) == {}


def test_a_later_versions_store_is_left_alone(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store.open(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert "expected a database of trilemma, version 1, found version 2" in refused(path)


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a file that can be written, found file exists"):
        Store.open(tmp_path / "file" / "runs.sqlite").__enter__()


def test_the_bound_is_a_number_of_mebibytes(monkeypatch):
    assert most_bytes() == 512 * MIB
    monkeypatch.setenv("TRILEMMA_STORE_MIB", "1.5")
    assert most_bytes() == 1.5 * MIB
    for wrong in ("much", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("TRILEMMA_STORE_MIB", wrong)
        with pytest.raises(InputError, match="TRILEMMA_STORE_MIB: expected a number of MiB above 0"):
            most_bytes()
