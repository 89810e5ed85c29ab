"""The ring engine: generations in flight, one batched solver step of all of them a tick.

    ring.py         Ring: requests and shared values in, generations out
    admission.py    mailboxes, even stagger, decks in turn; checks of requests
    shared.py       versioned shared values        lanes.py        stacked per slot
    solver.py       schedules; one step as coefficient curves (its head defines a generation)
    noise.py        counter-based noise            guidance.py     APG and rescale; DCW
    rows.py         slots, and the rows of a velocity call
    state.py        tensors of the slots of one shape; batch.py: one step of them
    staging.py      copies to and from the device, scratch memory
    cuda_graphs.py  device work, captured          weights.py      adapters, changed between ticks
    decode.py       exact windows of a latent      store.py        what was made already
    multi_gpu.py    several rings as one           gpu_workers.py  where they run

Threads: everything belongs to the engine thread, unless a module says otherwise.
"""

from demon_live.core import Generation, Request
from demon_live.engine.guidance import Dcw
from demon_live.engine.ring import Ring
from demon_live.engine.rows import BatchRow, VelocityModel
from demon_live.engine.solver import timesteps

__all__ = ["BatchRow", "Dcw", "Generation", "Request", "Ring", "VelocityModel", "timesteps"]
