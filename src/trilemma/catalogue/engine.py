"""A serving engine: its scheduler's defaults, its memory habits, and the weeks it takes to tune."""

from dataclasses import dataclass

from trilemma.catalogue.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerDefaults:
    """Defaults on GPUs whose memory is at least `min_hbm_bytes` (rows are tried largest first)."""

    min_hbm_bytes: float
    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine at one version.

    `gpu_memory_utilization` is the share of total (vLLM) or free memory the engine claims, as the engine defines it.
    `framework_bytes` is context, workspaces and CUDA graphs outside weights, activations and KV, per GPU.
    `tuning_weeks` are engineer-weeks for a single-node deployment; multi-node and disaggregated ones use
    `tuning_weeks_multi_node`.
    """

    name: str
    title: str
    version: str
    block_tokens: int
    gpu_memory_utilization: float
    framework_bytes: float
    scheduler_defaults: tuple[SchedulerDefaults, ...]
    tuning_weeks: Figure
    tuning_weeks_multi_node: Figure
    reference: str
    aliases: tuple[str, ...] = ()

    def scheduler_for(self, hbm_bytes: float) -> SchedulerDefaults:
        """The defaults on a GPU with `hbm_bytes` of memory."""
        rows = sorted(self.scheduler_defaults, key=lambda row: -row.min_hbm_bytes)
        return next((row for row in rows if hbm_bytes >= row.min_hbm_bytes), rows[-1])
