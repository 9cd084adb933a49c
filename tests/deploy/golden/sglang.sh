# SGLang, 1 x 8 GPUs of NVIDIA H100 SXM 80 GB

# node 0
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python3 -m sglang.launch_server \
  --model-path deepseek-ai/DeepSeek-V3 \
  --tp-size 8 \
  --attn-dp-size 8 \
  --ep-size 8 \
  --chunked-prefill-size 8192 \
  --max-running-requests 256 \
  --mem-fraction-static 0.85 \
  --disable-radix-cache \
  --speculative-algorithm NEXTN \
  --speculative-num-steps 1 \
  --speculative-eagle-topk 1 \
  --speculative-num-draft-tokens 2 \
  --enable-metrics \
  --host 0.0.0.0 \
  --port 8000
