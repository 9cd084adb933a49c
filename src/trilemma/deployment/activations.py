"""Peak activation bytes of one step: the part of memory an engine measures before it sizes the KV pool."""

from trilemma.catalogue.model import Attention, AttentionKind, Mlp, Model
from trilemma.deployment.spec import Parallelism, SchedulerKnobs

# Bytes alive per logit while vLLM samples: bf16 logits 2, float32 copy 4, sorted values 4 with their int64 order 8,
# softmax 4, its running sum 4, mask and scatter 4, probabilities 4, exponential noise 4.
SAMPLER_BYTES_PER_LOGIT = 38
_BYTES = 2  # activations are 16 bits wide
_MOE_CHUNK_TOKENS = 16_384  # vLLM works experts off in chunks (VLLM_FUSED_MOE_CHUNK_SIZE)


def activation_bytes(model: Model, parallelism: Parallelism, knobs: SchedulerKnobs) -> float:
    """Peak bytes of activations on one GPU in a step of `max_num_batched_tokens` tokens and `max_num_seqs` samples.

    The larger of two moments of vLLM's profiling run: the widest layer (residual and hidden stream, its attention's or
    MLP's intermediates), and sampling (the logits of every sequence over the whole vocabulary, gathered on each rank,
    beside the hidden states). At today's vocabularies sampling wins: max_num_seqs x vocabulary x 38 B.

    Held against peaks that vLLM logged, in GiB (logged / this formula): Qwen2.5-Math-1.5B, 256 sequences, A6000,
    v0.7: 1.40 / 1.39; DeepSeek-R1-0528-Qwen3-8B, TP 4, 256 sequences, 8,192 tokens, v0.8.5: 1.45 / 1.44;
    Llama-3-8B, 256 sequences, v0.6: 1.19 / 1.18; Llama-3.1-8B, A100, v0.31: 1.44 / 1.18; Qwen3-Next-80B, TP 2,
    1,024 sequences, H200, v0.11: 5.58 / 5.54; GLM-5.2-NVFP4, TP 4, 1,024 sequences, B200, v0.26: 6.31 / 5.70.
    DeepEP's buffers for wide expert parallelism (tens of GiB in some logs) are not in it. Source of the two moments:
    vLLM, v1/worker/gpu_model_runner.py, profile_run and _dummy_sampler_run.
    """
    tokens = knobs.max_num_batched_tokens
    stream = tokens * model.hidden * _BYTES
    widest = 0.0
    for block in model.blocks:
        if block.attention is not None:
            widest = max(widest, tokens * _attention_width(block.attention, parallelism.tensor) * _BYTES)
        if block.mlp is not None:
            widest = max(widest, _mlp_bytes(block.mlp, model.hidden, tokens, parallelism))
    sampled = min(knobs.max_num_seqs, tokens)
    sampling = stream + sampled * model.vocab * SAMPLER_BYTES_PER_LOGIT
    return max(2 * stream + widest, sampling)


def _attention_width(a: Attention, tensor: int) -> float:
    """Elements per token alive inside a mixer on one GPU: projections in, mixed heads out."""
    if a.kind is AttentionKind.MLA:
        heads = a.heads * (2 * (a.nope_head_dim + a.rope_head_dim) + a.nope_head_dim + 2 * a.v_head_dim)
        return heads / tensor + a.q_lora_rank + a.kv_lora_rank + a.rope_head_dim
    if a.kind is AttentionKind.LINEAR:
        return (2 * a.kv_heads * a.head_dim + 3 * a.heads * a.v_head_dim) / tensor
    if a.kind is AttentionKind.SSM:
        return 3 * a.heads * a.head_dim / tensor + 2 * a.groups * a.state_dim
    queries = a.heads * a.head_dim * (2 if a.output_gate else 1)
    return (queries + a.kv_heads * (a.head_dim + a.v_head_dim) + a.heads * a.v_head_dim) / tensor


def _mlp_bytes(mlp: Mlp, hidden: int, tokens: int, parallelism: Parallelism) -> float:
    ways = parallelism.stage_gpus
    sides = 3 if mlp.gated else 2
    dense = tokens * sides * max(mlp.width, mlp.shared_width) / ways * _BYTES
    if not mlp.experts:
        return dense
    # Every token of every attention-DP rank meets the experts; each copy is permuted in, widened, and put back.
    rows = min(tokens * parallelism.data, _MOE_CHUNK_TOKENS) * mlp.experts_per_token
    inside, width = mlp.latent_dim or hidden, mlp.expert_width / max(1, ways // parallelism.expert)
    return dense + rows * (max((sides - 1) * width, inside) + width + inside) * _BYTES
