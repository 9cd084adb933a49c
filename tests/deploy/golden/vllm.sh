# vLLM, 2 x 4 GPUs of NVIDIA H100 SXM 80 GB
# fp8 is made from the bf16 checkpoint while loading; a fp8 checkpoint starts faster
# a router in front hands requests to the replicas in turn, as simulated

# node 0
CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve meta-llama/Meta-Llama-3.1-70B \
  --tensor-parallel-size 4 \
  --quantization fp8_per_tensor \
  --kv-cache-dtype fp8 \
  --max-num-batched-tokens 8192 \
  --max-num-seqs 256 \
  --gpu-memory-utilization 0.92 \
  --no-enable-prefix-caching \
  --port 8000 &

# node 0
CUDA_VISIBLE_DEVICES=4,5,6,7 vllm serve meta-llama/Meta-Llama-3.1-70B \
  --tensor-parallel-size 4 \
  --quantization fp8_per_tensor \
  --kv-cache-dtype fp8 \
  --max-num-batched-tokens 8192 \
  --max-num-seqs 256 \
  --gpu-memory-utilization 0.92 \
  --no-enable-prefix-caching \
  --port 8001 &
