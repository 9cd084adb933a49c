"""Surfaces of collectives: all-reduce by engine, NCCL's others, and the exchange of tokens with experts.

Rows: custom_allreduce.parquet (milliseconds; messages in elements of 2 bytes; those replayed in CUDA graphs, 2.4 us for
the smallest over two H100, not the eager ones, 30), nccl.parquet (16-bit rows; message_size is the whole gathered or
scattered message, and what a GPU sends in all in an all-to-all), wideep_deepep_*.parquet (DeepEP on one node: 8 GPUs, 4
of GB200 and GB300; microseconds) and trtllm_alltoall.parquet (GB200). Single rows of tens of microseconds among
neighbours of three are left to the robust fit.

DeepEP's normal mode has rows for several numbers of SMs: its default of 20 is taken. TensorRT-LLM's one-sided exchange
is the default inside an NVLink domain; it serves prompts and decoding alike.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.surfaces.attention import (
    SYSTEMS,
    Columns,
    Key,
    Rows,
    by_engine,
    fit,
    only,
    read,
    renamed,
    rows_of,
    split,
    unique,
)

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface
from trilemma.latency import links

ELEMENT_BYTES = 2
DEFAULT_SMS = 20
NODE_GPUS = {"gb200": 4, "gb300": 4}
OTHER_NODE_GPUS = 8
GPU_KNOTS = (1, 2, 3)
MESSAGE_KNOTS = (8, 12, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 30)
NCCL_OPERATIONS = {
    "all_gather": ("all_gather", links.all_gather),
    "reduce_scatter": ("reduce_scatter", links.reduce_scatter),
    "alltoall": ("all_to_all", links.all_to_all),
}
TOKEN_KNOTS = (0, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17)
WIDTH_KNOTS = (12, 13, 14, 15, 16, 17)  # hidden x experts per token
SPAN_KNOTS = (1, 2, 3, 4, 5, 6)


def message_rows(part: Columns, key: Key, collective) -> Rows:
    rows = unique(part, "gpus", "message")
    base_at = partial(collective, accelerator=load_catalogue().accelerators[key[1]])
    call = base_at(rows["message"] * ELEMENT_BYTES, rows["gpus"])
    weight = np.ones(rows["gpus"].size)
    return rows_of(key, call, rows["seconds"], weight, (MESSAGE_KNOTS, GPU_KNOTS), base_at=base_at, rising=(0,))


def all_reduce_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "custom_allreduce.parquet", system="system", engine="engine", source="kernel_source", gpus="num_gpus",
        message="message_size", seconds="latency",
    )  # fmt: skip
    table["seconds"] = table["seconds"] / 1e3
    table = only(table, ~np.char.endswith(table["source"], "eager") & (table["gpus"] > 1))
    found: dict[str, list[Rows]] = {}
    for (system, engine), part in split(table, "system", "engine"):
        key = "all_reduce", SYSTEMS[system], engine, "bf16"
        found.setdefault(system, []).append(message_rows(part, key, links.all_reduce))
    for engines in found.values():
        yield from by_engine(engines)


def nccl_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "nccl.parquet", system="system", kind="op_name", form="nccl_dtype", gpus="num_gpus",
        message="message_size", seconds="latency",
    )  # fmt: skip
    table["seconds"] = table["seconds"] / 1e3
    table = only(table, (table["form"] == "half") & np.isin(table["kind"], list(NCCL_OPERATIONS)))
    for (system, kind), part in split(table, "system", "kind"):
        operation, collective = NCCL_OPERATIONS[kind]
        yield message_rows(part, (operation, SYSTEMS[system], "any", "bf16"), collective)


def deepep_tables(folder: Path) -> Iterator[Rows]:
    names = {"system": "system", "tokens": "num_token", "hidden": "hidden_size", "top_k": "num_topk"}
    low = read(folder / "wideep_deepep_ll.parquet", **names, dispatch="dispatch_avg_t_us", combine="combine_avg_t_us")
    normal = read(
        folder / "wideep_deepep_normal.parquet", **names, dispatch="dispatch_transmit_us",
        combine="combine_transmit_us", sms="dispatch_sms",
    )  # fmt: skip
    normal = only(normal, normal["sms"] == DEFAULT_SMS)
    for form, table in (("low_latency", low), ("normal", normal)):
        for (system,), part in split(table, "system"):
            part["seconds"] = (part["dispatch"] + part["combine"]) / 1e6
            rows = unique(part, "tokens", "hidden", "top_k")
            name = SYSTEMS[system]
            gpus = np.full(rows["tokens"].size, NODE_GPUS.get(name, OTHER_NODE_GPUS))
            exchanged = exchange_rows(rows, gpus, ("dispatch_combine", name, "sglang", form), dispatch_bytes=1.0)
            yield exchanged
            yield renamed(exchanged, ("dispatch_combine", name, "any", form))


def exchange_rows(rows: Columns, gpus: np.ndarray, key: Key, *, dispatch_bytes: float) -> Rows:
    exchange = partial(
        links.dispatch_combine,
        accelerator=load_catalogue().accelerators[key[1]],
        low_latency=key[3] == "low_latency",
        dispatch_bytes_per_element=dispatch_bytes,
    )
    return rows_of(
        key,
        exchange(rows["tokens"], hidden=rows["hidden"], top_k=rows["top_k"], gpus=gpus),
        rows["seconds"],
        np.ones(gpus.size),
        (TOKEN_KNOTS, WIDTH_KNOTS, SPAN_KNOTS),
        base_at=lambda tokens, width, gpus: exchange(tokens, hidden=width / 8, top_k=8, gpus=gpus),
    )


def one_sided_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "trtllm_alltoall.parquet", system="system", source="kernel_source", kind="op_name",
        tokens="num_tokens", hidden="hidden_size", top_k="topk", gpus="moe_ep_size", seconds="latency",
    )  # fmt: skip
    table["seconds"] = table["seconds"] / 1e3
    table = only(table, table["source"] == "NVLinkOneSided")
    shape = ("tokens", "gpus", "hidden", "top_k")
    for (system,), part in split(table, "system"):
        there, back = (
            unique(only(part, part["kind"] == kind), *shape) for kind in ("alltoall_dispatch", "alltoall_combine")
        )
        if any(not np.array_equal(there[s], back[s]) for s in shape):
            raise ValueError(f"{system}: dispatch and combine were measured on different shapes")
        both = there | {"seconds": there["seconds"] + back["seconds"]}
        for form in ("low_latency", "normal"):
            key = "dispatch_combine", SYSTEMS[system], "trtllm", form
            yield exchange_rows(both, there["gpus"], key, dispatch_bytes=0.5625)


def tables(folder: Path) -> Iterator[Rows]:
    yield from all_reduce_tables(folder)
    yield from nccl_tables(folder)
    yield from deepep_tables(folder)
    yield from one_sided_tables(folder)


def surfaces(folder: Path) -> Iterator[tuple[Key, Surface]]:
    """Every surface of collectives that the tables in `folder` hold."""
    for rows in tables(folder):
        yield rows.key, fit(rows)
