"""Times of decoder windows."""

import pytest

from demon_live.bench.decode import decode_times
from demon_live.models.engine import open_engine


def test_real_time_counts_the_frames_without_their_margins():
    engine = open_engine("imp", backend="onnx")
    window = decode_times(engine, window=4, seconds=0.0)
    engine.close()
    assert window["calls"] == 5
    assert window["realtime"] == pytest.approx(160.0 / window["median_ms"], rel=0.05)
