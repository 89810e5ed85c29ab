"""The ring engine: generations in flight, one batched solver step of all of them a tick.

    schedule.py   levels of a generation             solver.py     one step as coefficient curves
    rng.py        counter-based noise                guidance.py   APG; dcw.py: wavelet correction
    shared.py     versioned shared state             lanes.py      stacked per slot
    admission.py  mailboxes, even stagger, turns     slots.py      Slot, Row, the model's protocol
    forward.py    slots -> one batched call -> slots bucket.py     tensors of the slots of one shape
    ring.py       all of it                          decode.py     exact windows of a latent
    weights.py    adapters, changed between ticks
    telemetry.py  onset and convergence from stamps  baseline.py, measure.py   for `demon bench`

Threads: everything belongs to the engine thread, unless a module says otherwise.
"""

from demon_live.core import Generation, Request
from demon_live.engine.dcw import Dcw
from demon_live.engine.ring import Ring
from demon_live.engine.schedule import timesteps
from demon_live.engine.slots import Row, VelocityModel

__all__ = ["Dcw", "Generation", "Request", "Ring", "Row", "VelocityModel", "timesteps"]
