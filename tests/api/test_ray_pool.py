"""The same answers over a Ray cluster, even when a machine of it is lost; runs where Ray is installed."""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.planner.questions import SMALL
from trilemma import api
from trilemma.errors import InputError, UnsupportedError

ONE = {"space.accelerators": ["h100_sxm"], "space.precisions": ["bf16"], "space.max_num_seqs": [64, 128, 256]}


def test_ray_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"--engine ray needs Ray: install trilemma\[ray\]"):
        api.plan(SMALL, overrides=ONE, engine="ray", keep=False)


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work, and two workers of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Workers find this program, and these tests, where this process found them.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def holds_on(folder, item):
    """A tenth of the item, from the first two only after a sign; each try says on which machine it is."""
    import ray

    (folder / f"{item} on {ray.get_runtime_context().get_node_id()}").touch()
    until(lambda: item >= 2 or (folder / "go on").exists())
    return item * 0.1


def until(true, patience_s=60):
    """Waits for what must come true."""
    end_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def fails(item):
    if item == 2:
        raise InputError("here", expected="another item", found="2")
    return item


def test_a_plan_over_a_cluster_that_loses_a_machine_half_way_is_the_plan_of_one_process(cluster, tmp_path):
    lost = []

    def progress(done, total, what):
        if what == "simulating" and done < total and not lost:
            lost.append(done)
            cluster.remove_node(cluster.workers.pop(), allow_graceful=False)

    here = api.plan(SMALL, overrides=ONE, processes=1, keep=False)
    spread = api.plan(SMALL, overrides=ONE, engine="ray", progress=progress, store=tmp_path / "runs.sqlite")
    assert lost
    assert spread.to_dict() == here.to_dict()
    assert spread.answer.chosen.trial.summary == here.answer.chosen.trial.summary


@pytest.mark.slow
def test_work_in_flight_on_a_lost_machine_is_done_again_elsewhere(cluster, tmp_path):
    from trilemma.api.pool import workers

    cluster.workers += [cluster.add_node(num_cpus=1) for _ in range(2 - len(cluster.workers))]
    cluster.wait_for_nodes()
    with workers(engine="ray") as executor:
        arriving = executor.arrivals(partial(holds_on, tmp_path), range(12))
        first = threading.Thread(target=lambda: batches.append(next(arriving)))
        batches = []
        first.start()
        until(lambda: len(list(tmp_path.iterdir())) == 2)  # both machines are busy
        lost = cluster.workers.pop()
        cluster.remove_node(lost, allow_graceful=False)
        (tmp_path / "go on").touch()
        first.join()
        arrived = [pair for batch in [*batches, *arriving] for pair in batch]
    assert sorted(arrived) == [(i, i * 0.1) for i in range(12)]
    tries = [path.name for path in tmp_path.iterdir() if path.name != "go on"]
    assert lost.node_id in {name.split()[-1] for name in tries}
    assert len(tries) == 13  # one twice


def test_results_come_in_the_order_of_the_items(cluster):
    from trilemma.api.pool import workers

    with workers(engine="ray") as executor:
        assert list(executor.map(str, range(40))) == list(map(str, range(40)))


def test_what_a_piece_of_work_raises_is_raised_here(cluster):
    from trilemma.api.pool import workers

    with workers(engine="ray") as executor, pytest.raises(InputError, match="expected another item"):
        list(executor.map(fails, range(4)))
