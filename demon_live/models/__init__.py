"""Engines and their models: one folder a family, with its backends beside it.

    protocol.py      what an engine is
    engine.py        `open_engine` chooses a backend
    manifest.py      engines/*.toml -> Manifest; listing.py: what `demon engines` prints
    fetch.py         downloads of weights
    conditioning.py  free text -> tags, key, unknown words -> Condition; numpy only
    lora.py          adapters of a network, and their strengths
    imp/             our own model: torch modules, labels, timbre; backends onnx and eager
    acestep/         ACE-Step 1.5: its modules, texts; backends graphs, tensorrt and eager

torch loads when an engine opens, so `demon engines` and `demon check` start at once.
"""
