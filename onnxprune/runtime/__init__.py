"""Running models on onnxruntime: providers, sessions, data, latency."""
