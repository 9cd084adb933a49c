"""Launch facts: all conditions are met or the row is silent, later rows win, nothing is set where nothing is known."""

import tomllib
from dataclasses import replace
from importlib import resources

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.launches import CONDITIONS, FILE, Launch, Load, launch_of

FACTS = {
    "kv_precision", "max_num_batched_tokens", "prompts_per_step", "receive_interval", "batch_wait_iters",
    "balance_wait_iters",
}  # fmt: skip
ROWS = tomllib.loads((resources.files("trilemma.catalogue") / "data" / FILE).read_text(encoding="utf-8"))["launch"]
LLAMA = Load(
    engine="trtllm", engine_version="", model="meta-llama/Meta-Llama-3.1-70B", accelerator="h200_sxm", family="hopper",
    precision="fp8", tp=4, dp=1, isl=1024, osl=1024, fixed_lengths=False, concurrency=32,
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["reference"][:40])
def test_every_row_names_conditions_facts_and_its_source(row):
    assert row["reference"]
    assert set(row) - {"reference"} <= FACTS | set(CONDITIONS)
    assert set(row) & FACTS
    assert set(row) & set(CONDITIONS)
    assert row.get("kv_precision", "bf16") in {"bf16", "fp8"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["reference"][:40])
def test_names_are_the_catalogues(row):
    catalogue = load_catalogue()
    catalogue.engine(row["engine"], where="launches.toml")
    for name in row.get("accelerators", ()):
        catalogue.accelerator(name, where="launches.toml")
    for name in row.get("models", ()):
        catalogue.model(name, where="launches.toml")


def test_nothing_is_set_where_nothing_is_known():
    assert launch_of(replace(LLAMA, engine="own engine")) == Launch()


def test_prompts_are_held_back_where_the_script_says_so():
    assert launch_of(LLAMA) == Launch(max_num_batched_tokens=16384, held_steps=20)
    for unlike in ({"tp": 8}, {"isl": 8192}, {"osl": 8192}):
        assert launch_of(replace(LLAMA, **unlike)).held_steps == 0


def test_of_two_rows_the_later_one_wins():
    deepseek = replace(
        LLAMA, engine="sglang", model="deepseek-ai/DeepSeek-R1", family="blackwell", accelerator="b200_sxm"
    )
    assert launch_of(replace(deepseek, concurrency=15)).held_steps == 5
    assert launch_of(replace(deepseek, concurrency=16)).held_steps == 15


def test_a_step_takes_at_least_so_many_prompts():
    vendor = replace(LLAMA, model="Qwen/Qwen3-32B", engine_version="1.0.0rc3", fixed_lengths=True)
    assert launch_of(replace(vendor, isl=512)).max_num_batched_tokens == 4096
    assert launch_of(replace(vendor, isl=4096)).max_num_batched_tokens == 16384
    assert launch_of(replace(vendor, fixed_lengths=False)) == Launch()
