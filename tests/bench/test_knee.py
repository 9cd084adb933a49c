"""The search for the knee, against a server that is a formula."""

import asyncio

import numpy as np
import pytest

from tests.bench.sending import table
from trilemma.api.bench_knee import find_knee, knee_dict
from trilemma.api.bench_load import Sending
from trilemma.bench.answer import Ending
from trilemma.bench.records import Measured, Record
from trilemma.errors import InputError
from trilemma.metrics.limits import parse_limit

S = 10**9


class Formula:
    """Answers in 10 ms up to `capacity` requests/s or clients, 10 s beyond; the client manages `client`."""

    def __init__(self, capacity, client=1e9, stops_at=1e9):
        self.capacity, self.client, self.stops_at, self.loads = capacity, client, stops_at, []

    async def send(self, load, *, stage):
        self.loads.append(load)
        at = load.clients or load.requests.rate_per_s
        ttft = 0.01 if at <= self.capacity else 10.0
        late = 0.0 if at <= self.client else 1.0
        records = []
        for i, arrival in enumerate(load.requests.arrival_s.tolist()):
            begun = round((arrival + late) * S)
            record = Record(index=i, intended_ns=round(arrival * S), begun_ns=begun, sent_ns=begun, ending=Ending.DONE)
            record.token_ns.extend([begun + round(ttft * S), begun + round((ttft + 0.01) * S)])
            record.ended_ns = record.token_ns[-1]
            records.append(record)
        return Measured(
            requests=load.requests, records=tuple(records), start_ns=0, ended_ns=10 * S, lag_ns=np.zeros(1, np.int64),
            cpu_share=0.1, connections=1, stopped="dead" if at > self.stops_at else "",
        )  # fmt: skip


def sending(*, clients=0, gap_s=1.0, limits=("ttft p99 <= 1 s",)):
    parsed = tuple(parse_limit(text, where="") for text in limits)
    requests = table(50, gap_s=0.0 if clients else gap_s)
    return Sending(label="x", requests=requests, clients=clients, duration_s=None, limits=parsed, notes=())


def search(server, what):
    return asyncio.run(find_knee(server, what, step_s=10.0, salt=lambda: 0))


@pytest.mark.parametrize("capacity", [0.4, 1.3, 37.0])
def test_the_knee_is_found_to_five_percent(capacity):
    server = Formula(capacity)
    knee = search(server, sending())
    assert capacity / 1.06 <= knee.at <= capacity
    assert not knee.is_client_bound
    assert knee.best.at == knee.at
    assert all(
        load.requests.duration_s == pytest.approx(10.0, rel=0.2) for load in server.loads if len(load.requests) > 20
    )


def test_by_clients_it_is_a_whole_number():
    knee = search(Formula(13), sending(clients=2))
    assert knee.at in {12.0, 13.0}
    tried = [step["concurrency"] for step in knee_dict(knee, sending(clients=2))["steps"]]
    assert len(tried) == len(set(tried)), "no load is sent twice"


def test_where_the_client_gives_up_first_the_knee_is_only_a_bound():
    knee = search(Formula(1000, client=30), sending())
    assert 30 / 1.06 <= knee.at <= 30
    assert knee.is_client_bound
    assert knee_dict(knee, sending())["client_bound"] is True


def test_a_server_that_holds_nothing_has_no_knee():
    knee = search(Formula(0), sending())
    assert knee.at == 0
    assert knee.best is knee.steps[-1]
    assert knee_dict(knee, sending())["requests_per_s"] is None


def test_a_dead_server_is_not_asked_again():
    server = Formula(1000, stops_at=5)
    knee = search(server, sending())
    assert knee.at <= 5
    assert sum((load.requests.rate_per_s > 5) for load in server.loads) == 1


def test_what_has_no_rate_has_no_knee():
    with pytest.raises(InputError, match="come over time"):
        search(Formula(1), sending(gap_s=0.0))
