"""Whether a model can be cut the way a parallelism asks: heads, experts, layers."""

from collections.abc import Iterator
from functools import lru_cache

from trilemma.catalogue.model import Attention, AttentionKind, Mlp, Model
from trilemma.deployment.spec import Parallelism


@lru_cache(maxsize=2048)
def problems(model: Model, parallelism: Parallelism) -> tuple[str, ...]:
    """Every reason why engines refuse to cut `model` so; empty where they do not.

    Query (and linear, and state-space) heads must divide by `tensor`; KV heads either divide by it or divide it, and
    are then copied; the stage's GPUs divide into `expert` equal groups and the experts over them; every pipeline
    stage needs a layer. Attention data parallelism is for mixtures of experts: a dense model gets replicas instead.
    """
    return tuple(dict.fromkeys(_found(model, parallelism)))


def _found(model: Model, p: Parallelism) -> Iterator[str]:
    for name in ("tensor", "pipeline", "data", "expert"):
        if getattr(p, name) < 1:
            yield f"{name} parallelism must be at least 1, found {getattr(p, name)}"
            return
    if p.pipeline > model.layers:
        yield f"{p.pipeline} pipeline stages are more than the model's {model.layers} layers"
    if p.data > 1 and not model.is_moe:
        yield f"attention data parallelism {p.data} needs a mixture of experts; use replicas for a dense model"
    if p.expert > 1 and not model.is_moe:
        yield f"expert parallelism {p.expert} on a model without experts"
    if p.stage_gpus % p.expert:
        yield f"{p.stage_gpus} GPUs of a stage do not divide into {p.expert} expert groups"
    for block in model.blocks:
        if block.attention is not None:
            yield from _heads(block.attention, p.tensor)
        if block.mlp is not None:
            yield from _experts(block.mlp, p.expert)


def _heads(a: Attention, tensor: int) -> Iterator[str]:
    if a.heads % tensor:
        yield f"{a.heads} {_HEADS[a.kind]} do not divide by tensor parallelism {tensor}"
    if a.kind is AttentionKind.LINEAR and a.kv_heads % tensor:
        yield f"{a.kv_heads} linear-attention key heads do not divide by tensor parallelism {tensor}"
    if a.kind is AttentionKind.GQA and a.kv_heads % tensor and tensor % a.kv_heads:
        yield f"{a.kv_heads} KV heads neither divide by tensor parallelism {tensor} nor divide it"


_HEADS = {
    AttentionKind.GQA: "attention heads",
    AttentionKind.MLA: "attention heads",
    AttentionKind.LINEAR: "linear-attention value heads",
    AttentionKind.SSM: "state-space heads",
}


def _experts(mlp: Mlp, groups: int) -> Iterator[str]:
    if mlp.experts and mlp.experts % groups:
        yield f"{mlp.experts} experts do not divide over {groups} expert groups"
