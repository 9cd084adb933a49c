"""Any config.json: the architectures we know read as the shipped rows say, the rest is a note or a named error."""

import json
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.config_json import model_from_config, read_config_json
from trilemma.catalogue.model import AttentionKind
from trilemma.catalogue.models import read_model_rows
from trilemma.errors import InputError, UnsupportedError

SHIPPED = files("trilemma.catalogue").joinpath("data/models.toml").read_text(encoding="utf-8")
MODELS = read_model_rows(tomllib.loads(SHIPPED)["models"], where="models.toml")


def shape(hidden, width, layers, heads, kv_heads, vocab, **more):
    return {
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        **more,
    }


LLAMA_70B = shape(8192, 28672, 80, 64, 8, 128256, model_type="llama", max_position_embeddings=131072)
DEEPSEEK = shape(
    7168,
    18432,
    61,
    128,
    128,
    129280,
    model_type="deepseek_v3",
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    qk_nope_head_dim=128,
    v_head_dim=128,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    moe_intermediate_size=2048,
    first_k_dense_replace=3,
    moe_layer_freq=1,
    num_nextn_predict_layers=1,
)
V4 = shape(
    4096,
    1,
    43,
    64,
    1,
    129280,
    model_type="deepseek_v4",
    head_dim=512,
    q_lora_rank=1024,
    o_lora_rank=1024,
    o_groups=8,
    index_head_dim=128,
    index_n_heads=64,
    index_topk=512,
    sliding_window=128,
    hc_mult=4,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=6,
    num_nextn_predict_layers=1,
    compress_ratios=[0, 0, *([4, 128] * 20), 4, 0],
    expert_dtype="fp4",
    quantization_config={"quant_method": "fp8"},
)
QWEN35 = shape(
    4096,
    None,
    60,
    32,
    2,
    248320,
    model_type="qwen3_5_moe_text",
    head_dim=256,
    full_attention_interval=4,
    linear_num_value_heads=64,
    linear_num_key_heads=16,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    linear_conv_kernel_dim=4,
    mamba_ssm_dtype="float32",
    num_experts=512,
    num_experts_per_tok=10,
    moe_intermediate_size=1024,
    shared_expert_intermediate_size=1024,
    mtp_num_hidden_layers=1,
)
QWEN_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "in_channels": 3,
    "intermediate_size": 4304,
    "num_position_embeddings": 2304,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "deepstack_visual_indexes": [],
}
GPT_OSS = shape(
    2880,
    2880,
    36,
    64,
    8,
    201088,
    model_type="gpt_oss",
    head_dim=64,
    attention_bias=True,
    num_local_experts=128,
    num_experts_per_tok=4,
    sliding_window=128,
    layer_types=["sliding_attention", "full_attention"] * 18,
    quantization_config={"quant_method": "mxfp4"},
)
MAVERICK = shape(
    5120,
    8192,
    48,
    40,
    8,
    202048,
    model_type="llama4_text",
    head_dim=128,
    intermediate_size_mlp=16384,
    attention_chunk_size=8192,
    interleave_moe_layer_step=2,
    num_local_experts=128,
    num_experts_per_tok=1,
)
GEMMA4 = shape(
    2816,
    2112,
    30,
    16,
    8,
    262144,
    model_type="gemma4_text",
    head_dim=256,
    global_head_dim=512,
    num_global_key_value_heads=2,
    attention_k_eq_v=True,
    enable_moe_block=True,
    num_experts=128,
    top_k_experts=8,
    moe_intermediate_size=704,
    sliding_window=1024,
    layer_types=([*["sliding_attention"] * 5, "full_attention"] * 5),
    tie_word_embeddings=True,
)
NANO = shape(
    2688,
    1856,
    52,
    32,
    2,
    131072,
    model_type="nemotron_h",
    head_dim=128,
    hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    mamba_num_heads=64,
    mamba_head_dim=64,
    ssm_state_size=128,
    n_groups=8,
    conv_kernel=4,
    mamba_ssm_cache_dtype="float32",
    n_routed_experts=128,
    num_experts_per_tok=6,
    moe_intermediate_size=1856,
    moe_shared_expert_intermediate_size=3712,
    n_shared_experts=1,
)
K3 = shape(
    7168,
    33792,
    93,
    96,
    96,
    163840,
    model_type="kimi_linear",
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    qk_nope_head_dim=128,
    v_head_dim=128,
    mla_use_output_gate=True,
    linear_attn_config={
        "num_heads": 96,
        "head_dim": 128,
        "short_conv_kernel_size": 4,
        "use_full_rank_gate": True,
        "kda_layers": [i for i in range(1, 93) if i % 4],
    },
    num_experts=896,
    num_experts_per_token=16,
    num_shared_experts=2,
    moe_intermediate_size=3072,
    routed_expert_hidden_size=3584,
    first_k_dense_replace=1,
    attn_res_block_size=12,
)
MIMO = shape(
    4096,
    16384,
    48,
    64,
    4,
    152576,
    model_type="mimo_v2_flash",
    head_dim=192,
    v_head_dim=128,
    swa_num_key_value_heads=8,
    sliding_window=128,
    hybrid_layer_pattern=[0, 1, 1, 1, 1, *([0, *[1] * 5] * 7), 0],
    moe_layer_freq=[0, *[1] * 47],
    n_routed_experts=256,
    num_experts_per_tok=8,
    moe_intermediate_size=2048,
)
M3 = shape(
    6144,
    3072,
    60,
    64,
    4,
    200064,
    model_type="minimax_m3",
    head_dim=128,
    dense_intermediate_size=12288,
    moe_intermediate_size=3072,
    shared_intermediate_size=3072,
    n_shared_experts=1,
    num_local_experts=128,
    num_experts_per_tok=4,
    moe_layer_freq=[0] * 3 + [1] * 57,
    num_nextn_predict_layers=1,
    sparse_attention_config={
        "use_sparse_attention": True,
        "sparse_attention_freq": [0] * 3 + [1] * 57,
        "sparse_num_index_heads": 4,
        "sparse_index_dim": 128,
        "sparse_topk_blocks": 16,
        "sparse_block_size": 128,
    },
)
GLM52 = DEEPSEEK | {
    "model_type": "glm_moe_dsa",
    "hidden_size": 6144,
    "intermediate_size": 12288,
    "num_hidden_layers": 78,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "vocab_size": 154880,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "index_topk": 2048,
    "indexer_types": ["full", "full", "full", *["shared", "shared", "shared", "full"] * 18, *["shared"] * 3],
}

KNOWN = {
    "meta-llama/Meta-Llama-3.1-70B": LLAMA_70B,
    "deepseek-ai/DeepSeek-V3": DEEPSEEK,
    "deepseek-ai/DeepSeek-V4-Flash": V4,
    "Qwen/Qwen3.5-397B-A17B": {"text_config": QWEN35, "vision_config": QWEN_TOWER, "model_type": "qwen3_5_moe"},
    "openai/gpt-oss-120b": GPT_OSS,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": {"text_config": MAVERICK},
    "google/gemma-4-26B-A4B": {"text_config": GEMMA4},
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": NANO,
    "moonshotai/Kimi-K3": {"text_config": K3},
    "XiaomiMiMo/MiMo-V2-Flash": MIMO,
    "MiniMaxAI/MiniMax-M3": M3,
    "zai-org/GLM-5.2": GLM52,
    "Qwen/Qwen2-7B": shape(3584, 18944, 28, 28, 4, 152064, model_type="qwen2"),
    "mistralai/Mistral-7B-v0.1": shape(4096, 14336, 32, 32, 8, 32000, model_type="mistral", sliding_window=4096),
    "google/gemma-3-27b-it": shape(
        5376, 21504, 62, 32, 16, 262208, model_type="gemma3_text", head_dim=128, sliding_window=1024
    ),
    "Qwen/Qwen3-235B-A22B": shape(
        4096,
        12288,
        94,
        64,
        4,
        151936,
        model_type="qwen3_moe",
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1536,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_architecture_reads_as_its_shipped_row(name):
    model, row = model_from_config(KNOWN[name], where="config.json", name=name), MODELS[name]
    assert model.blocks == row.blocks
    assert (model.hidden, model.vocab, model.tied_embeddings) == (row.hidden, row.vocab, row.tied_embeddings)
    assert (model.mtp_layers, model.extra_params, model.note) == (row.mtp_layers, row.extra_params, "")


def test_the_vision_tower_is_counted_beside_the_decoder():
    model = model_from_config(KNOWN["Qwen/Qwen3.5-397B-A17B"], where="c", name="m")
    assert model.vision_params == MODELS["Qwen/Qwen3.5-397B-A17B"].vision_params
    odd = model_from_config({"text_config": LLAMA_70B, "vision_config": {"layers": 3}}, where="c", name="m")
    assert odd.vision_params == 0
    assert "not counted" in odd.note


def test_searched_stacks_may_lack_attention_or_have_a_scaled_mlp():
    blocks = [
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 0.5}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"no_op": True}},
    ]
    config = LLAMA_70B | {"model_type": "nemotron-nas", "num_hidden_layers": 3, "block_configs": blocks}
    model = model_from_config(config | {"intermediate_size": None, "num_key_value_heads": None}, where="c")
    assert [b.mlp.width if b.mlp else 0 for b in model.blocks] == [28672, 2816, 0]
    assert [b.attention.kv_heads if b.attention else 0 for b in model.blocks] == [8, 0, 8]


GROUP = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}


@pytest.mark.parametrize(
    ("quantization_config", "quant", "precision"),
    [
        (None, None, "bf16"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, None, "fp8"),
        ({"quant_method": "fbgemm_fp8"}, None, "fp8"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, None, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, None, "int4"),
        ({"quant_method": "gptq", "bits": 4}, None, "int4"),
        ({"quant_method": "gptq", "bits": 8}, None, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, None, "int4"),
        ({"quant_method": "compressed-tensors", **GROUP}, None, "int4"),
        ({"config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}}}, None, "int8"),
        ({"config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}}}, None, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized", **GROUP}, None, "mxfp4"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, None, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, None, "nvfp4"),
        ({"quant_method": "fp8", "quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4"}, None, "nvfp4"),
        (
            {
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    "layers.0.linear_attn.out_proj": {"quant_algo": "FP8"},
                    "layers.0.mlp.experts": {"quant_algo": "W4A16_NVFP4"},
                },
            },
            None,
            "nvfp4",
        ),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, None, "fp8"),
        (None, {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}, "fp8"),
        (None, {"quantization": {"quant_algo": "NVFP4"}}, "nvfp4"),
        (None, {"quantization": {"quant_algo": "W4A16_AWQ"}}, "int4"),
        (None, {"quantization": {"quant_algo": "NO_QUANT"}}, "bf16"),
    ],
)
def test_every_spelling_of_a_weight_format_has_one_name(quantization_config, quant, precision):
    config = LLAMA_70B | {"quantization_config": quantization_config}
    assert model_from_config(config, where="c", quant=quant).precision == precision
    nested = {"text_config": LLAMA_70B, "quantization_config": quantization_config}
    assert model_from_config(nested, where="c", quant=quant).precision == precision


def test_an_unknown_llama_like_architecture_is_read_with_a_note():
    model = model_from_config(LLAMA_70B | {"model_type": "brand_new"}, where="c")
    assert "brand_new" in model.note
    assert model.blocks == MODELS["meta-llama/Meta-Llama-3.1-70B"].blocks
    latent = model_from_config(DEEPSEEK | {"model_type": "brand_new"}, where="c")
    assert latent.blocks[0].attention.kind is AttentionKind.MLA


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba2"}, "hidden_size"),
        (LLAMA_70B | {"model_type": "new", "linear_attn_config": {"kda_layers": [1]}}, "linear_attn_config"),
        (LLAMA_70B | {"model_type": "new", "intermediate_size": None}, "intermediate_size"),
        (LLAMA_70B | {"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder"),
        (LLAMA_70B | {"layer_types": ["spiral_attention"] * 80}, "layer_types"),
        (LLAMA_70B | {"quantization_config": {"quant_method": "exl9"}}, "quant_method"),
        (LLAMA_70B | {"quantization_config": {"quant_method": "gptq", "bits": 3}}, "bits"),
        (LLAMA_70B | {"quantization_config": {"quant_algo": "INT3"}}, "quant_algo"),
        (LLAMA_70B | {"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups"),
        (V4 | {"compress_ratios": [7] * 43}, "compress_ratios"),
        (NANO | {"hybrid_override_pattern": "MX"}, "layers_block_type"),
    ],
)
def test_what_cannot_be_understood_is_unsupported_and_named(config, says):
    with pytest.raises(UnsupportedError, match=says) as error:
        model_from_config(config, where="some/config.json")
    assert str(error.value).startswith("some/config.json")
    assert error.value.exit_code == 5


@pytest.mark.parametrize(
    ("change", "key", "found"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers", "no such key"),
        ({"num_hidden_layers": 0}, "num_hidden_layers", "0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers", "-1"),
        ({"hidden_size": "8192"}, "hidden_size", "'8192'"),
        ({"hidden_size": 8192.5}, "hidden_size", "8192.5"),
        ({"hidden_size": float("inf")}, "hidden_size", "inf"),
        ({"hidden_size": True}, "hidden_size", "True"),
        ({"vocab_size": []}, "vocab_size", r"\[\]"),
        ({"num_key_value_heads": 7}, "num_key_value_heads", "7"),
        ({"attention_bias": "no"}, "attention_bias", "'no'"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types", "3"),
        ({"num_local_experts": 4, "model_type": "mixtral"}, "num_experts_per_tok", "no such key"),
        ({"num_local_experts": 4, "num_experts_per_tok": 9, "model_type": "mixtral"}, "num_experts_per_tok", "9"),
        ({"quantization_config": "fp8"}, "quantization_config", "'fp8'"),
    ],
)
def test_a_wrong_value_is_named_by_file_and_key(change, key, found):
    with pytest.raises(InputError, match=found) as error:
        model_from_config(LLAMA_70B | change, where="some/config.json")
    assert error.value.where == f"some/config.json: {key}"


def write(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder / name


def test_a_folder_is_read_with_the_quantisation_beside_it(tmp_path):
    folder = tmp_path / "Llama-3.1-70B-Instruct-FP8"
    folder.mkdir()
    write(folder, "config.json", LLAMA_70B)
    assert read_config_json(folder).precision == "bf16"
    write(folder, "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    model = read_config_json(folder)
    assert (model.name, model.precision) == ("Llama-3.1-70B-Instruct-FP8", "fp8")
    assert read_config_json(folder / "config.json") == model


def test_a_file_named_after_owner_and_model_is_named_so(tmp_path):
    write(tmp_path, "meta-llama--Toy_config.json", LLAMA_70B)
    write(tmp_path, "meta-llama--Toy_hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}})
    model = read_config_json(tmp_path / "meta-llama--Toy_config.json")
    assert (model.name, model.precision) == ("meta-llama/Toy", "nvfp4")


@pytest.mark.parametrize("keep", [1, 20, 150])
def test_a_truncated_file_is_named_with_its_position(tmp_path, keep):
    path = write(tmp_path, "config.json", json.dumps(LLAMA_70B)[:keep])
    with pytest.raises(InputError, match="truncated") as error:
        read_config_json(path)
    assert error.value.where.startswith(f"{path}: line 1 column ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{'a': 1}", "line 1 column 2"),
        ('{"a": 1,\n "b" 2}', "line 2 column 6"),
        ("[1, 2]", "list"),
        ("", "line 1 column 1"),
        ("[" * 100_000, "line|nested"),
        ('{"model_type": "llama"}', "hidden_size"),
    ],
)
def test_a_malformed_file_is_an_input_error(tmp_path, text, says):
    path = write(tmp_path, "config.json", text)
    with pytest.raises(InputError, match=says) as error:
        read_config_json(path)
    assert str(path) in str(error.value)


def test_a_missing_or_binary_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_config_json(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="readable JSON"):
        read_config_json(tmp_path)
    write(tmp_path, "config.json", LLAMA_70B)
    write(tmp_path, "hf_quant_config.json", '{"quantization": ')
    with pytest.raises(InputError, match=r"hf_quant_config\.json"):
        read_config_json(tmp_path)


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.integers(-1, 5), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_a_file_holds_the_answer_is_a_model_or_a_named_error(data):
    config = dict(data.draw(st.sampled_from(list(KNOWN.values()))))
    inner = config["text_config"] = dict(config["text_config"]) if "text_config" in config else config
    if inner is config:
        del config["text_config"]
    for key in data.draw(st.lists(st.sampled_from(sorted(inner)), max_size=3)):
        inner[key] = data.draw(junk)
    if data.draw(st.booleans()):
        inner["quantization_config"] = data.draw(junk)
    model = refusal = None
    try:
        model = model_from_config(config, where="c", name="m")
    except (InputError, UnsupportedError) as error:
        refusal = str(error)
    if model is None:
        assert refusal.startswith("c: ")
    else:
        assert model.layers == sum(b.count for b in model.blocks) > 0
