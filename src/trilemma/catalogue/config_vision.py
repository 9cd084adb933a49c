"""Parameters of a vision tower and its projector, from vision_config where its shape is known."""

import math

from trilemma.catalogue.config_keys import Keys


def vision_params(config: Keys, hidden: int) -> tuple[int, str]:
    """(parameters, note) of the tower beside a decoder of width `hidden`; (0, "") without a vision_config.

    The note says where the count is an estimate or absent. Biases and norms of the tower are left out of the
    estimates: under 1% of it.
    """
    vision = config.inner("vision_config")
    if vision is None:
        return 0, ""
    if vision.has("spatial_merge_size") and vision.has("depth"):
        return _qwen(vision, hidden), ""
    if vision.has("vt_hidden_size"):
        return _moonvit(vision, hidden), ""
    if vision.has("hidden_size") and vision.has("num_hidden_layers") and vision.has("intermediate_size"):
        return _siglip(vision, hidden)
    return 0, "vision_config has a shape that is not known: its weights are not counted"


def _qwen(v: Keys, hidden: int) -> int:
    """Qwen3-VL's tower: patch embedding, learned positions, blocks, a merger and one more per deepstack tap."""
    width, inner, depth = v.count("hidden_size"), v.count("intermediate_size"), v.count("depth")
    out = v.count("out_hidden_size", default=hidden)
    patch = v.count("in_channels", default=3) * v.count("temporal_patch_size", default=2) * v.count("patch_size") ** 2
    block = 4 * width * width + 4 * width + 2 * width * inner + width + inner + 4 * width
    merged = width * v.count("spatial_merge_size") ** 2
    merger = merged * merged + merged + merged * out + out
    taps = len(v.items("deepstack_visual_indexes") or [])
    embedding = patch * width + width + v.whole("num_position_embeddings") * width
    return embedding + depth * block + merger * (1 + taps)


def _moonvit(v: Keys, hidden: int) -> int:
    """MoonViT (Kimi): blocks with an ungated MLP, positions, and a patch merger into the text width."""
    width, inner = v.count("vt_hidden_size"), v.count("vt_intermediate_size")
    heads_width = v.count("qkv_hidden_size", default=width)
    blocks = v.count("vt_num_hidden_layers") * (4 * width * heads_width + 2 * width * inner)
    positions = v.count("init_pos_emb_height") * v.count("init_pos_emb_width") * width
    merge = v.items("merge_kernel_size") or []
    merged = width * math.prod(Keys({"side": side}, v.where).count("side") for side in merge)
    return blocks + positions + 3 * v.count("patch_size") ** 2 * width + merged * merged + merged * hidden


def _siglip(v: Keys, hidden: int) -> tuple[int, str]:
    """SigLIP-like towers; Gemma 4's has a gated MLP and two learned position tables."""
    width, inner, depth = v.count("hidden_size"), v.count("intermediate_size"), v.count("num_hidden_layers")
    gemma4 = v.text("model_type") == "gemma4_vision"
    blocks = depth * (4 * width * width + (3 if gemma4 else 2) * width * inner)
    positions = 2 * v.whole("position_embedding_size") * width
    patch = 3 * v.whole("patch_size", default=14) ** 2 * width
    note = "" if gemma4 else "vision weights are estimated from the tower's widths"
    return blocks + positions + patch + width * hidden, note
