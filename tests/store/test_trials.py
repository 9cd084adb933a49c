"""What is kept comes back as it was, is bounded, and is never what somebody else wrote."""

import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from trilemma.metrics.limits import parse_limit
from trilemma.store import Store
from trilemma.store.content import UnreadableError, packed, unpacked
from trilemma.store.tables import TRIALS
from trilemma.units import MIB
from trilemma.workload.requests import Requests

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.frozensets(
        st.integers()
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "runs.sqlite") as store:
        yield store


@given(PLAIN)
def test_plain_values_come_back_equal(value):
    assert unpacked(packed(value)) == value


def test_arrays_come_back_bit_for_bit_and_dataclasses_as_themselves():
    requests = Requests(
        arrival_s=np.array([0.0, 0.1, 0.1 + 0.2]), prompt_tokens=np.array([1, 2, 3]), output_tokens=np.array([3, 2, 1])
    )
    back = unpacked(packed((requests, np.float64(0.1), parse_limit("ttft p99 <= 1 s", where="here"))))
    assert back[0].arrival_s.tobytes() == requests.arrival_s.tobytes()
    assert (back[1], back[2].text) == (0.1, "ttft p99 <= 1 s")
    odd = np.array([np.nan, -0.0, np.inf, 5e-324])
    assert unpacked(packed(odd)).tobytes() == odd.tobytes()


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@dataclass
class Stranger:
    """A class that is not the program's."""


@pytest.mark.parametrize(
    "value",
    [
        Calls(print, "you have been had"),
        Calls(eval, "1 + 1"),
        Calls(getattr, 1, "real"),
        Calls(parse_limit, "ttft p99 <= 1 s"),  # the program's own, but a function
        Stranger(),
        np.random.default_rng,
    ],
)
def test_nothing_but_data_is_read_back(value, capsys):
    with pytest.raises(UnreadableError):
        unpacked(zlib.compress(pickle.dumps(value)))
    assert capsys.readouterr().out == ""


def test_a_result_is_known_once_it_is_kept(store):
    assert store.trials.known(["a", "b"]) == {}
    store.trials.remember([("a", 1), ("b", (2, None))])
    store.trials.remember([("b", (3, None))])
    assert store.trials.known(["b", "c", "a", "b"]) == {"a": 1, "b": (3, None)}
    assert len(store.trials) == 2


def test_thousands_of_keys_are_asked_for_at_once(store):
    store.trials.remember([(f"{i:05}", i) for i in range(3000)])
    assert store.trials.known(f"{i:05}" for i in range(4000)) == {f"{i:05}": i for i in range(3000)}


def test_results_outlive_the_process_that_kept_them(tmp_path):
    with Store.open(tmp_path / "a" / "runs.sqlite") as store:
        store.trials.remember([("a", 1)])
    with Store.open(tmp_path / "a" / "runs.sqlite") as store:
        assert store.trials.known(["a"]) == {"a": 1}
        assert store.sound()


def test_what_cannot_be_read_back_is_unknown_and_replaced(store):
    store.trials.remember([("a", 1), ("b", 2), ("c", 3)])
    with store._engine.begin() as connection:
        connection.execute(TRIALS.update().where(TRIALS.c.key == "a").values(content=b"damaged"))
        connection.execute(TRIALS.update().where(TRIALS.c.key == "b").values(written_by="another numpy"))
    assert store.trials.known("abc") == {"c": 3}
    store.trials.remember([("a", 4), ("b", 5)])
    assert store.trials.known("abc") == {"a": 4, "b": 5, "c": 3}


def test_the_oldest_results_are_dropped_beyond_the_bound(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store.open(path, most=2 * MIB) as store:
        rng = np.random.default_rng(0)
        for i in range(900):
            store.trials.remember([(f"{i:05}", rng.bytes(4000))])
            assert store.trials.bytes_used() <= 2 * MIB + 65536
        known = sorted(store.trials.known(f"{i:05}" for i in range(900)))
        assert 200 < len(known) < 600
        assert known == [f"{i:05}" for i in range(900 - len(known), 900)]
        store.trials.forget_all()
        assert len(store.trials) == 0
    assert path.stat().st_size < MIB


def test_work_goes_on_where_the_disk_is_full(tmp_path):
    with Store.open(tmp_path / "runs.sqlite") as store:
        store.trials.remember([("a", 1)])
        with store._engine.connect() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        store._engine.dispose()
        event.listen(store._engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count = {pages}").close())
        with pytest.warns(UserWarning, match="results are not kept any longer: database or disk is full"):
            store.trials.remember([("b", np.random.default_rng(0).bytes(MIB))])
        store.trials.remember([("c", 3)])  # says nothing more
        assert store.trials.known("abc") == {"a": 1}


def test_threads_write_at_once(store):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: store.trials.remember([(str(i), i), ("last", i)]), range(200)))
    assert len(store.trials) == 201
    assert store.trials.known(map(str, range(200))) == {str(i): i for i in range(200)}


def test_two_stores_write_the_same_file(tmp_path):
    with Store.open(tmp_path / "runs.sqlite") as one, Store.open(tmp_path / "runs.sqlite") as other:
        for i in range(50):
            (one, other)[i % 2].trials.remember([(str(i), i)])
        assert one.trials.known(map(str, range(50))) == other.trials.known(map(str, range(50)))
        assert len(one.trials) == 50
