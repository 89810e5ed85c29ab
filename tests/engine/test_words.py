"""Words of a score that reach the ring: what is masked stays, and is heard to stay."""

import numpy as np

from tests.helpers.mock_engine import MockEngine, offline, run, write_tone

BAR = 96_000  # samples at 120 bpm


def test_masked_frames_keep_the_source_and_the_rest_is_made_anew(tmp_path):
    write_tone(tmp_path / "low.wav", 0.2, 8.0)
    instrument = offline(MockEngine(lambda request: 0.8), tmp_path)
    instrument.session.apply('tempo 120\nloop 1\nsource "low.wav"\nmask = "1 0"')
    last = run(instrument, 4 * BAR)[-BAR:]
    first, second = last[4800 : BAR // 2 - 4800], last[BAR // 2 + 4800 : -4800]
    assert np.abs(first - 0.8).max() < 1e-3
    assert np.abs(second - 0.2).max() < 1e-3
