"""Rigs: what takes minutes, root or other programs, as commands with JSON reports.

    python -m tests.rigs.NAME [options]

What must hold for minutes and hours:
    soak        `make soak`: plays an everything-moving score for an hour
    chaos       `make chaos`: kills processes, stalls the engine, storms of reloads
    fuzz        `make fuzz`: hostile scores, sets, manifests, packets and messages
    two_hours   a scripted set, replayed bit for bit

Written against heard, and edits to the ear:
    jumps       scheduled jumps of each control on the virtual clock; --jack: in real time
    simulated   an instrument whose ticks take as long as an engine's; edits of each class
    remote      an engine behind a bad network (bad_link.py: network namespaces)

Engines and the ring:
    ace         ACE-Step on a GPU: ticks, precision, windows, LoRA
    multi_gpu   GPU workers as one ring
    gpu_hour    a full-size checkpoint on a card: start, restart, memory, power at rest
    policies    our admission beside that of earlier engines; how an edit converges

Parts: stage (the instrument in a process of its own), jack (a JACK server without hardware, and its
recording), grid (beat grid and gaps of a recording).
"""
