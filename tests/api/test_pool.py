"""Work over processes: in order, as it comes, and what goes wrong in a worker goes wrong here."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from trilemma.api.pool import workers
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.errors import InputError
from trilemma.units import parse_time_s


@pytest.fixture(scope="module")
def two():
    with workers(2) as executor:
        yield executor


def test_results_are_in_order_or_as_they_come_each_once(two):
    wanted = [pow(2, i, 1009) for i in range(200)]
    assert list(two.map(partial(pow, 2, mod=1009), range(200))) == wanted
    batches = list(two.arrivals(partial(pow, 2, mod=1009), range(200)))
    assert all(batches)
    assert sorted(pair for batch in batches for pair in batch) == list(enumerate(wanted))
    assert list(two.map(abs, [])) == list(two.arrivals(abs, [])) == []


def test_what_a_worker_raises_is_raised_here_after_what_was_done(two):
    parse = partial(parse_time_s, where="here")
    with pytest.raises(InputError, match="here: expected a time with a unit such as '500 ms', found 'x'"):
        list(two.map(parse, ["1 s", "x", "2 s"]))
    done = []
    with pytest.raises(InputError):
        done.extend(pair for batch in two.arrivals(parse, ["1 s", "2 s", "3 s", "x"]) for pair in batch)
    assert set(done) <= {(0, 1.0), (1, 2.0), (2, 3.0)}
    assert list(two.map(parse, ["3 s"])) == [3.0]


def test_rows_of_the_catalogue_travel_once_and_come_back_as_themselves(two):
    catalogue = load_catalogue()
    rows = [(i, catalogue.accelerator(name)) for i, name in enumerate(["h100_sxm", "h200_sxm", "h100_sxm"] * 20)]
    back = list(two.map(tuple, rows))
    assert back == rows
    assert all(one is other for (_, one), (_, other) in zip(back, rows, strict=True))
    first, second = pickle.loads(pickle.dumps(rows[0][1])), rows[0][1]
    assert first is not second
    assert list(two.map(tuple, [(first, second)])) == [(second, second)]  # equal rows count as one


def test_several_threads_may_map_at_once(two):
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda mod: list(two.map(partial(pow, 3, mod=mod), range(60))), range(1001, 1009)))
    assert found == [[pow(3, i, mod) for i in range(60)] for mod in range(1001, 1009)]


def test_one_process_is_this_one():
    with workers(1) as executor:
        made = []
        results = executor.map(made.append, [1, 2])
        next(iter(results))
        assert made == [1]  # a piece at a time, when it is asked for
