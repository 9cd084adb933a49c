# TensorRT-LLM, 1 x 4 GPUs of NVIDIA H100 SXM 80 GB
# ./Meta-Llama-3.1-70B-fp8 stands for a checkpoint in fp8: TensorRT-LLM cannot make it from the published bf16 one while loading; quantise it with LLM Compressor or ModelOpt, or name one already made
cat > trtllm.yaml <<'END_OF_CONFIG'
enable_attention_dp: false
enable_chunked_prefill: true
scheduler_config:
  capacity_scheduler_policy: GUARANTEED_NO_EVICT
kv_cache_config:
  dtype: fp8
  enable_block_reuse: false
  free_gpu_memory_fraction: 0.9
cuda_graph_config:
  max_batch_size: 256
  enable_padding: true
return_perf_metrics: true
enable_iter_perf_stats: true
END_OF_CONFIG

# node 0
CUDA_VISIBLE_DEVICES=0,1,2,3 trtllm-serve ./Meta-Llama-3.1-70B-fp8 \
  --tp_size 4 \
  --max_batch_size 256 \
  --max_num_tokens 8192 \
  --max_seq_len 8192 \
  --config trtllm.yaml \
  --host 0.0.0.0 \
  --port 8000
