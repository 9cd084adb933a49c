"""Collectives: laws of base times and surfaces, and measured examples."""

import numpy as np
import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import load_surfaces
from trilemma.latency import links

ACCELERATORS = load_catalogue().accelerators
MESSAGES = 2.0 ** np.arange(8, 31)
RINGS = {"all_reduce": links.all_reduce, "all_gather": links.all_gather, "reduce_scatter": links.reduce_scatter}
CALLS = {**RINGS, "all_to_all": links.all_to_all}


def surface_of(operation, accelerator, engine, form="bf16"):
    return load_surfaces()[operation, accelerator, engine, form]


@pytest.mark.parametrize("name", list(ACCELERATORS))
@pytest.mark.parametrize("operation", list(CALLS))
def test_base_times_grow_with_the_message_and_reach_the_link(name, operation):
    accelerator = ACCELERATORS[name]
    for gpus in (2, 4, 8):
        call = CALLS[operation](MESSAGES, gpus, accelerator=accelerator)
        assert call.operation == operation
        assert (np.diff(call.base.seconds) > 0).all()
        passes = 2 if operation == "all_reduce" else 1
        wire_s = passes * (gpus - 1) / gpus * MESSAGES[-1] / accelerator.link_bytes_per_s
        assert call.base.seconds[-1] == pytest.approx(wire_s, rel=0.01)


def test_one_gpu_has_nothing_to_reduce():
    h100 = ACCELERATORS["h100_sxm"]
    seconds = links.all_reduce_s(
        1e6, np.array([1, 2]), accelerator=h100, surface=surface_of("all_reduce", "h100_sxm", "any")
    )
    assert seconds[0] == 0
    assert seconds[1] > 0


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "rtx_pro_6000"])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "any"])
def test_measured_all_reduces_grow_with_the_message(name, engine):
    surface = surface_of("all_reduce", name, engine)
    for gpus in (2, 4, 8):
        seconds = links.all_reduce_s(MESSAGES, gpus, accelerator=ACCELERATORS[name], surface=surface)
        assert (seconds > 1e-6).all()
        assert (seconds >= 0.97 * np.maximum.accumulate(seconds)).all()
        assert seconds[-1] > 20 * seconds[0]


@pytest.mark.parametrize("operation", ["all_gather", "reduce_scatter", "all_to_all"])
def test_measured_collectives_grow_with_the_message(operation):
    for name in ("a100_sxm", "h100_sxm", "b200_sxm"):
        call = CALLS[operation](MESSAGES, 8, accelerator=ACCELERATORS[name])
        seconds = call.seconds(surface_of(operation, name, "any"))
        assert (seconds >= 0.97 * np.maximum.accumulate(seconds)).all()


@pytest.mark.parametrize("operation", list(CALLS))
def test_leaving_a_domain_costs_the_network(operation):
    h100, rack = ACCELERATORS["h100_sxm"], ACCELERATORS["gb200"]
    assert not links.crosses_domains(8, h100)
    assert links.crosses_domains(16, h100)
    assert not links.crosses_domains(72, rack)
    inside, outside = (CALLS[operation](MESSAGES, g, accelerator=h100) for g in (8, 16))
    assert (outside.base.seconds > inside.base.seconds + links.NETWORK_S / 2).all()
    assert np.array_equal(outside.features[1], inside.features[1])  # what is measured is the domain
    in_rack = CALLS[operation](MESSAGES, 16, accelerator=rack)
    assert (in_rack.base.seconds < outside.base.seconds).all()


@pytest.mark.parametrize("low_latency", [True, False])
def test_an_exchange_grows_with_tokens_experts_and_width(low_latency):
    form = "low_latency" if low_latency else "normal"
    for name in ("h100_sxm", "h200_sxm", "b200_sxm", "gb200"):
        surface = surface_of("dispatch_combine", name, "any", form)

        def seconds(tokens, hidden=7168, top_k=8, gpus=8, surface=surface, name=name):
            call = links.dispatch_combine(
                tokens, hidden=hidden, top_k=top_k, gpus=gpus, accelerator=ACCELERATORS[name], low_latency=low_latency
            )
            return call.seconds(surface)

        times = seconds(2.0 ** np.arange(0, 14))
        assert (times > 1e-5).all()
        assert (times >= 0.97 * np.maximum.accumulate(times)).all()
        assert seconds(512, hidden=7168) > seconds(512, hidden=4096)
        assert seconds(512, top_k=8) > seconds(512, top_k=4)
    across = seconds(512, gpus=144, surface=None, name="gb200")
    assert across > seconds(512, gpus=72, surface=None, name="gb200")


# Medians of AIConfigurator's tables (Apache-2.0), inside CUDA graphs: accelerator, engine and version, GPUs, bytes,
# microseconds
MEASURED = [
    ("h100_sxm", "vllm 0.24.0", 8, 2**20, 15.0),
    ("h100_sxm", "sglang 0.5.14", 4, 2**17, 4.1),
    ("h100_sxm", "trtllm 1.3.0rc20", 8, 2**24, 122.3),
    ("b200_sxm", "trtllm 1.3.0rc20", 8, 2**23, 55.4),
    ("b200_sxm", "vllm 0.24.0", 2, 2**27, 280.4),
    ("h200_sxm", "sglang 0.5.14", 4, 2**22, 24.6),
    ("a100_sxm", "vllm 0.14.0", 4, 2**26, 540.0),
    ("rtx_pro_6000", "sglang 0.5.14", 4, 2**23, 461.8),
]


@pytest.mark.parametrize("row", MEASURED)
def test_all_reduce_as_measured(row):
    name, engine, gpus, message_bytes, measured_us = row
    surface = surface_of("all_reduce", name, engine.split()[0])
    seconds = links.all_reduce_s(message_bytes, gpus, accelerator=ACCELERATORS[name], surface=surface)
    assert float(seconds) * 1e6 == pytest.approx(measured_us, rel=0.15)


def test_other_collectives_as_measured():
    h100 = ACCELERATORS["h100_sxm"]
    # NCCL 2.29.2, 8 GPUs, 2**24 bytes
    for operation, measured_us in (("all_gather", 68.9), ("reduce_scatter", 69.7), ("all_to_all", 75.7)):
        call = CALLS[operation](2**24, 8, accelerator=h100)
        assert float(call.seconds(surface_of(operation, "h100_sxm", "any"))) * 1e6 == pytest.approx(
            measured_us, rel=0.15
        )
    # DeepEP on 8 GPUs, hidden 7168, 8 of 256 experts: 128 tokens low latency (36.7 and 67.0), 8,192 normal
    for form, tokens, measured_us in (("low_latency", 128, 103.7), ("normal", 8192, 968 + 1845)):
        call = links.dispatch_combine(
            tokens, hidden=7168, top_k=8, gpus=8, accelerator=h100, low_latency=form == "low_latency"
        )
        surface = surface_of("dispatch_combine", "h100_sxm", "sglang", form)
        assert float(call.seconds(surface)) * 1e6 == pytest.approx(measured_us, rel=0.15)
