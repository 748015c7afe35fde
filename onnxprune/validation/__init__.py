"""Proof on onnxruntime: drift, accuracy and latency of one model against another."""
