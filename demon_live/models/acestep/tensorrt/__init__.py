"""TensorRT: an engine's plans, built ahead of time for a card, and played from.

    library.py    which of `tensorrt` and `tensorrt-rtx` serves a card, or why none does
    parts.py      what plans an engine has: graphs, precisions, sizes
    store.py      where plans lie: keyed, written whole or not at all, checked before use, bounded
    build.py      ONNX -> plan, through the library
    worker.py     one export or one build, in a process of its own
    command.py    `demon engines build` and what `demon engines info` says of plans
    runtime.py    a plan on a card: device pointers of torch tensors in, one context a stream
    refit.py      weights of a plan exchanged by name, for LoRA
    kernels.py    ACE-Step's kernels (`models.acestep.engine`) on plans

Two libraries, one code path. `tensorrt-rtx` builds plans on any machine for compute capabilities
7.5, 8.6, 8.9 and 12.0, and specialises them on the card as they load; it refuses other cards (an
H100 is 9.0), which `graphs` serves. `tensorrt` serves the others, and builds on the card alone.

Importing this package loads neither library, nor torch.
"""
