"""imp, our own small model: modules, labels, timbre, and its backends (torch, onnxruntime)."""
