# SGLang, 1 x 16 GPUs of NVIDIA H100 SXM 80 GB
# NODE_ADDRESS: the address of the replica's first node, reachable from its other nodes

# node 0
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python3 -m sglang.launch_server \
  --model-path deepseek-ai/DeepSeek-V3 \
  --tp-size 8 \
  --pp-size 2 \
  --chunked-prefill-size 8192 \
  --max-running-requests 256 \
  --mem-fraction-static 0.85 \
  --disable-radix-cache \
  --cuda-graph-backend-decode disabled \
  --cuda-graph-backend-prefill disabled \
  --enable-metrics \
  --nnodes 2 \
  --node-rank 0 \
  --dist-init-addr NODE_ADDRESS:20000 \
  --host 0.0.0.0 \
  --port 8000 &

# node 1
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python3 -m sglang.launch_server \
  --model-path deepseek-ai/DeepSeek-V3 \
  --tp-size 8 \
  --pp-size 2 \
  --chunked-prefill-size 8192 \
  --max-running-requests 256 \
  --mem-fraction-static 0.85 \
  --disable-radix-cache \
  --cuda-graph-backend-decode disabled \
  --cuda-graph-backend-prefill disabled \
  --enable-metrics \
  --nnodes 2 \
  --node-rank 1 \
  --dist-init-addr NODE_ADDRESS:20000 &
