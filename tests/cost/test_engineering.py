"""People's work by how far a replica spreads and by what its weight format asks."""

from dataclasses import replace

import pytest
from tests.cost.conftest import figure
from tests.cost.pricing import evaluate, lines_of, priced

from trilemma.catalogue.engine import Effort, Topology
from trilemma.cost.engineering import PrecisionWork, precision_work
from trilemma.deployment.spec import Parallelism


@pytest.mark.parametrize(
    ("published", "aliases", "wanted", "work"),
    [
        ("bf16", (), "bf16", PrecisionWork.NONE),
        ("fp8", (), "fp8", PrecisionWork.NONE),
        ("fp8", (), "bf16", PrecisionWork.NONE),
        ("mxfp4", (), "mxfp4", PrecisionWork.NONE),
        ("bf16", (), "fp8", PrecisionWork.CHECK),
        ("bf16", ("maker/Model-70B-AWQ",), "int4", PrecisionWork.CHECK),
        ("bf16", ("maker/Model-70B-NVFP4",), "nvfp4", PrecisionWork.CHECK),
        ("bf16", ("maker/Model-70B-FP8",), "nvfp4", PrecisionWork.OWN),
        ("bf16", (), "int4", PrecisionWork.OWN),
        ("bf16", (), "mxfp4", PrecisionWork.OWN),
        ("fp8", (), "int8", PrecisionWork.OWN),
    ],
)
def test_work_on_the_weight_format(fleet, published, aliases, wanted, work):
    fleet.economics = replace(fleet.economics, checkpoint_check_weeks=0.5, quantisation_weeks=3)
    others = {"int4": ("awq", "gptq"), "nvfp4": ("fp4",)}
    precision = replace(fleet.deployment.precision, name=wanted, aliases=others.get(wanted, ()))
    model = replace(fleet.deployment.model, precision=published, aliases=aliases)
    fleet.deployment = replace(fleet.deployment, precision=precision, model=model)
    assert precision_work(model, precision) is work
    line = lines_of(priced(fleet)).get("precision work")
    weeks = {PrecisionWork.NONE: None, PrecisionWork.CHECK: "0.5 weeks", PrecisionWork.OWN: "3 weeks"}[work]
    assert (line is None) if weeks is None else line.formula.startswith(weeks)


def test_engineers_do_more_the_further_a_replica_spreads(fleet):
    weeks, scales = (1, 2, 10, 12), (0.5, 1, 2, 3)
    fleet.engine = replace(
        fleet.engine,
        effort={
            t: Effort(weeks=figure(w), upkeep_scale=figure(s)) for t, w, s in zip(Topology, weeks, scales, strict=True)
        },
    )

    def work(tensor, **more):
        deployment = replace(fleet.deployment, parallelism=Parallelism(tensor=tensor))
        lines = lines_of(priced(fleet, deployment=deployment, **more))
        assert evaluate(lines["upkeep"].formula) == pytest.approx(lines["upkeep"].usd_per_h, rel=2e-5)
        usual = 0.2 * 300_000 / 8760
        return int(lines["tuning"].formula.split()[0]), lines["upkeep"].usd_per_h / usual

    assert work(1) == pytest.approx((1, 0.5))
    assert work(8) == pytest.approx((2, 1))
    assert work(16) == pytest.approx((10, 2))
    assert work(8, topology=Topology.DISAGGREGATED) == pytest.approx((12, 3))
