# TensorRT-LLM, 1 x 16 GPUs of NVIDIA H100 SXM 80 GB
# NODE_0, NODE_1, ...: the addresses of the replica's nodes; mpirun reaches each without a password
cat > trtllm.yaml <<'END_OF_CONFIG'
enable_attention_dp: false
enable_chunked_prefill: true
scheduler_config:
  capacity_scheduler_policy: GUARANTEED_NO_EVICT
kv_cache_config:
  dtype: auto
  enable_block_reuse: false
  free_gpu_memory_fraction: 0.9
cuda_graph_config:
  max_batch_size: 256
  enable_padding: true
return_perf_metrics: true
enable_iter_perf_stats: true
END_OF_CONFIG

# node 0
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 mpirun -np 16 -H NODE_0:8,NODE_1:8 trtllm-llmapi-launch trtllm-serve deepseek-ai/DeepSeek-V3 \
  --tp_size 16 \
  --ep_size 16 \
  --gpus_per_node 8 \
  --max_batch_size 256 \
  --max_num_tokens 8192 \
  --config trtllm.yaml \
  --host 0.0.0.0 \
  --port 8000
