"""How alike two stretches of sound are: what a cross-fade between them has to make up for.

Equal sounds add their amplitudes, unlike ones their powers: a fade that ignores which it has makes
a bump or a dip. Both cross-fades (stages in the mixer, windows in placement) ask here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def likeness(a: NDArray[np.floating], b: NDArray[np.floating], silent: float) -> float:
    """The correlation of two float [n, 2], held within 0..1; `silent` where one is silence or not
    finite. Summed in float64."""
    power = float(np.sqrt(np.sum(a * a, dtype=np.float64) * np.sum(b * b, dtype=np.float64)))
    if not 1e-12 < power < np.inf:
        return silent
    alike = float(np.sum(a * b, dtype=np.float64)) / power
    return min(1.0, max(0.0, alike))
