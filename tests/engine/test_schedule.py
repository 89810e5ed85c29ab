import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demon_live.engine import timesteps
from demon_live.errors import ScoreError
from tests.helpers.velocity_models import alone, request, same, source

unit = st.floats(0.0, 1.0)


@given(st.integers(1, 40), unit, st.floats(0.25, 8.0))
def test_ends_formula_and_falling(steps, denoise, shift):
    levels = timesteps(steps, denoise, shift)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == np.float64
    assert levels[-1] == 0.0
    start = denoise if denoise > 1e-6 else 0.0
    for k in range(steps + 1):
        u = start * (1 - k / steps)
        assert levels[k] == pytest.approx(shift * u / (1 + (shift - 1) * u), abs=1e-12)
    assert np.all(np.diff(levels) < 0) or start == 0.0


def test_levels_of_ace_step_turbo():
    """The hard-coded table of ACE-Step 1.5 turbo, shift 3."""
    expected = [1, 0.9545455, 0.9, 0.8333333, 0.75, 0.6428571, 0.5, 0.3, 0]
    assert timesteps(8, 1.0, 3.0) == pytest.approx(expected, abs=1e-7)


@given(unit, unit)
def test_continuous_in_denoise(a, b):
    """|d level / d denoise| <= max(s, 1/s): no staircase."""
    distance = np.abs(timesteps(8, a, 3.0) - timesteps(8, b, 3.0)).max()
    assert distance <= 3.0 * abs(a - b) + 4e-6


def test_parity_is_a_staircase():
    starts = {timesteps(8, d, 1.0, parity=True)[0] for d in np.linspace(0.5, 1.0, 501)}
    assert len(starts) == 9
    assert len({timesteps(8, d, 1.0)[0] for d in np.linspace(0.5, 1.0, 501)}) == 501


@pytest.mark.parametrize("denoise", [0.0, 1e-7])
def test_denoise_0_returns_the_source(denoise):
    assert same(alone(request(3, denoise=denoise)), source(1))


@pytest.mark.parametrize(
    "wrong", [(0, 1.0, 3.0), (8, 1.1, 3.0), (8, -0.1, 3.0), (8, float("nan"), 3.0), (8, 1.0, 0.0)]
)
def test_schedules_out_of_range_are_refused(wrong):
    with pytest.raises(ScoreError):
        timesteps(*wrong)
