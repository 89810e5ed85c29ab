import numpy as np
import pytest
import torch

from demon_live.engine import noise as rng


def test_frames_do_not_depend_on_the_length():
    key = rng.key(7, rng.STEP, 3)
    assert np.array_equal(rng.normal(key, 400, 64)[:150], rng.normal(key, 150, 64))


def test_torch_and_numpy_give_the_same_bits():
    keys = [rng.key(seed, rng.BIRTH) for seed in (0, -5, 2**40)]
    signed = torch.tensor([k - (1 << 64) if k >> 63 else k for k in keys])
    device = rng.normal_on(signed, 33, 5).numpy()
    assert np.array_equal(device, np.stack([rng.normal(k, 33, 5) for k in keys]))


def test_noise_is_gaussian_white_and_uncorrelated():
    z = rng.normal(rng.key(1, rng.BIRTH), 4000, 64).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.std() - 1) < 4 / (2 * n) ** 0.5
    assert abs((z**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 4 * (96 / n) ** 0.5
    spectrum = np.abs(np.fft.rfft(z[:, 0])) ** 2 / len(z)
    assert spectrum.max() < 20
    assert np.abs(np.corrcoef(z.T) - np.eye(64)).max() < 5 / 4000**0.5


def test_keys_are_apart():
    fields = {}
    for seed in (0, 1, 2**31, -1):
        for purpose in (rng.BIRTH, rng.STEP, rng.MASK, rng.MIGRATE):
            for step in range(4):
                fields[seed, purpose, step] = rng.normal(
                    rng.key(seed, purpose, step), 64, 16
                ).ravel()
    stacked = np.corrcoef(np.stack(list(fields.values())))
    assert np.abs(stacked - np.eye(len(stacked))).max() < 6 / 1024**0.5


@pytest.mark.parametrize("channels", [4, 6])
def test_cache_is_bounded_and_harmless(channels):
    cache = rng.NoiseCache(torch.device("cpu"), limit=3 * 64 * channels * 4)
    for lap in range(3):
        for step in range(10):
            key = rng.key(5, rng.STEP, step)
            got = cache.fill(key, torch.empty(64, channels)).numpy()
            assert np.array_equal(got, rng.normal(key, 64, channels))
            # What is wanted once is not kept.
            assert (cache._bytes > 0) == (lap > 0)
            assert cache._bytes <= cache.limit
    for step in range(2000):
        cache.fill(rng.key(step, rng.STEP), torch.empty(1, channels))
    assert len(cache._seen) + len(cache._fields) < 600
