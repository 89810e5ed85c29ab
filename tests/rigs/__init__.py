"""Rigs: what must hold for minutes and hours, as commands with JSON reports.

stage   the instrument in a process of its own, told what to do and read over a pipe
jack    a JACK server without hardware, and a capture of what it is given
grid    the beat grid and the gaps of a recording, read as a stream
soak    `make soak`: plays an everything-moving score for an hour
chaos   `make chaos`: kills processes, stalls the engine, storms of reloads
fuzz    `make fuzz`: hostile scores, sets, manifests, packets and messages
"""
