"""A score and a status as the stage view shows them."""

from __future__ import annotations

import numpy as np

from demon_live.core import EngineStatus, SlotStatus
from demon_live.session.status import DeckView, LaneView, Status

RAMP = np.linspace(0, 1, 256, dtype=np.float32)
SCORE = """\
tempo 128
blend = "1 .2 [0 .9]"

deck drums {
  gain = "1(3,8)"

  noise = .3
}
"""
LANES = (
    LaneView("blend", '"1 .2 [0 .9]"', 0.2, RAMP),
    LaneView("prompt", "'dub'", "dub", next="'acid' in 2 bars", coming="'acid'"),
    LaneView("denoise", ".5", 0.5, np.full(256, 0.5, np.float32)),
)
STATUS = Status(
    5.5,
    1e-6,
    4,
    "imp (onnx)",
    "null",
    (
        DeckView("main", 4, 0.375, "loops/x.flac", False, False, LANES),
        DeckView("drums", 2, 0.75, None, True, False, (LaneView("gain", "1", 1.0, RAMP),)),
    ),
    slots=(SlotStatus("main", 6, 8, 0.5), SlotStatus("drums", 2, 8, 0.75)),
    lead_ms=180.0,
    peak_db=(-8.0, -9.0),
    telemetry=EngineStatus(ticks=9, period_ms=60),
)
