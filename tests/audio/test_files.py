"""Sound files: every refusal has a remedy; loops are in tempo, circular and reproducible."""

from __future__ import annotations

import contextlib
import os
import shutil
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from demon_live.audio import files
from demon_live.audio.files import beats_in, fit_loop, load_source, tempo_in_name, write_audio
from demon_live.core import Floats
from demon_live.errors import FileError

SECOND = 48000


def clicks(bpm: float, beats: int, tail: int = 0) -> Floats:
    """A click on each beat, the first of each four louder."""
    n = round(beats * 60 * SECOND / bpm) + tail
    audio = np.zeros((n, 2), np.float32)
    for k in range(beats):
        at = round(k * 60 * SECOND / bpm)
        burst = np.exp(-np.arange(400) / 60.0) * np.sin(np.arange(400) * 0.4)
        audio[at : at + 400] += (burst * (0.9 if k % 4 == 0 else 0.5))[: n - at, None].astype(
            np.float32
        )
    return audio


def onsets(audio: Floats) -> list[int]:
    loud = np.abs(audio[:, 0])
    found, last = [], -9999
    for at in np.flatnonzero(loud > 0.2):
        if at - last > 4800:
            found.append(int(at))
        last = int(at)
    return found


# --- refusals --------------------------------------------------------------------------------


def refused(path: Path | str) -> FileError:
    with pytest.raises(FileError) as caught:
        load_source(path)
    assert caught.value.hint
    return caught.value


def test_missing_names_what_is_near(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "techno_128.flac", clicks(128, 4), SECOND)
    error = refused(tmp_path / "tecno_128.flac")
    assert "no file" in error.message
    assert "techno_128.flac" in (error.hint or "")
    assert "techno_128.flac" in (refused(tmp_path / "zzz.wav").hint or "")
    assert "no folder" in (refused(tmp_path / "no" / "a.wav").hint or "")


def test_a_folder(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path).message
    soundfile.write(tmp_path / "a.wav", clicks(120, 1), SECOND)
    assert "a.wav" in (refused(tmp_path).hint or "")


def test_not_audio_empty_silent_header(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("denoise = .5\n")
    assert "not a sound file" in refused(tmp_path / "text.wav").message
    (tmp_path / "empty.wav").write_bytes(b"")
    assert "empty" in refused(tmp_path / "empty.wav").message
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), SECOND)
    assert "0 samples" in refused(tmp_path / "none.wav").message


def test_truncated_file_is_read_or_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", clicks(120, 8), SECOND)
    data = (tmp_path / "a.flac").read_bytes()
    for cut in (1, 4, 40, 100, len(data) // 2):
        (tmp_path / "cut.flac").write_bytes(data[:cut])
        with contextlib.suppress(FileError):
            assert np.isfinite(load_source(tmp_path / "cut.flac")[0]).all()


def test_a_recording_that_was_cut_off_plays_as_far_as_it_goes(tmp_path: Path) -> None:
    """What a killed process leaves: no length in the header, no end."""
    file = soundfile.SoundFile(tmp_path / "take.part", "w", SECOND, 2, "PCM_24", format="FLAC")
    file.write(clicks(120, 16))
    file.flush()
    (tmp_path / "take.flac").write_bytes((tmp_path / "take.part").read_bytes()[:-100])
    file.close()
    audio, _ = load_source(tmp_path / "take.flac")
    assert 6 * SECOND < len(audio) <= 8 * SECOND


def test_a_file_cut_in_half_plays_to_the_cut(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).integers(-9999, 9999, (SECOND, 2), np.int16)
    soundfile.write(tmp_path / "a.flac", sound, SECOND)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    audio, info = load_source(tmp_path / "cut.flac")
    assert "damaged behind that" in info
    # What the block at the cut held, 85 ms, is all that is missing.
    assert SECOND // 2 - 2 * 4096 < len(audio) <= SECOND // 2
    assert np.array_equal(audio, (sound / 32768).astype("f4")[: len(audio)])


def test_three_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 3)), SECOND)
    error = refused(tmp_path / "a.wav")
    assert "3 channels" in error.message


def test_too_long(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000 * 601, np.int16), 8000, subtype="PCM_U8")
    assert "10 minutes" in refused(tmp_path / "a.wav").message


@pytest.mark.parametrize("rate", [1, 3999, 384_001, 655_350])
def test_rates_that_no_recorder_has_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((600, 1)), rate)
    error = refused(tmp_path / "a.wav")
    assert f"{rate} Hz" in error.message
    assert "rate 48000" in (error.hint or "")


def test_samples_are_bounded_beside_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST", 8000)
    soundfile.write(tmp_path / "a.wav", np.zeros((4000, 2)), 192_000)
    assert len(load_source(tmp_path / "a.wav")[0]) == 1000
    soundfile.write(tmp_path / "a.wav", np.zeros((4001, 2)), 192_000)
    assert "too long" in refused(tmp_path / "a.wav").message


def test_not_finite(tmp_path: Path) -> None:
    audio = clicks(120, 2)
    audio[7] = np.nan
    audio[9] = np.inf
    soundfile.write(tmp_path / "a.wav", audio, SECOND, subtype="FLOAT")
    assert "2 samples are not numbers" in refused(tmp_path / "a.wav").message


@pytest.mark.skipif(os.name != "posix", reason="needs fifos and modes")
def test_odd_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "ordinary" in refused(tmp_path / "pipe.wav").message
    for name in ("a\0b.wav", "x" * 5000 + ".wav"):
        with pytest.raises(FileError):
            load_source(tmp_path / name)
    soundfile.write(tmp_path / "secret.wav", clicks(120, 1), SECOND)
    (tmp_path / "secret.wav").chmod(0)
    if os.geteuid() != 0:
        assert "permission" in refused(tmp_path / "secret.wav").message


# --- reading ---------------------------------------------------------------------------------


def test_mono_8_khz_becomes_stereo_48(tmp_path: Path) -> None:
    wave = 0.5 * np.sin(np.arange(8000) * 2 * np.pi * 440 / 8000)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    audio, info = load_source(tmp_path / "a.wav")
    assert audio.shape == (48000, 2)
    assert audio.dtype == np.float32
    assert np.array_equal(audio[:, 0], audio[:, 1])
    assert "mono" in info
    assert "8000 Hz resampled" in info
    want = 0.5 * np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000)
    assert np.abs(audio[4800:-4800, 0] - want[4800:-4800]).max() < 1e-3


@pytest.mark.parametrize("rate", [4000, 44_100, 192_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_give_the_bits_of_the_whole(tmp_path: Path, rate: int, channels: int) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 2 + 7, channels)).astype("f4")
    soundfile.write(tmp_path / "a.wav", sound, rate, "FLOAT")
    want = soxr.resample(np.repeat(sound, 3 - channels, axis=1), rate, SECOND, "HQ")
    assert np.array_equal(load_source(tmp_path / "a.wav")[0], want)


def test_memory_is_bounded_by_the_result(tmp_path: Path) -> None:
    """60 s at 384 kHz are 184 MB as floats; at 48 kHz they are 23 MB."""
    soundfile.write(tmp_path / "a.flac", np.zeros((384_000 * 60, 2), np.int16), 384_000)
    tracemalloc.start()
    try:
        audio, _ = load_source(tmp_path / "a.flac")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert audio.shape == (SECOND * 60, 2)
    assert peak < 3 * audio.nbytes


def test_48_khz_stereo_is_bit_exact(tmp_path: Path) -> None:
    sound = clicks(120, 4)
    write_audio(tmp_path / "a.wav", sound)
    audio, info = load_source(tmp_path / "a.wav")
    assert np.array_equal(audio, sound)
    assert info == "2.00 s"


def test_a_full_disk_is_named_as_the_system_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise soundfile.LibsndfileError(2)  # "System error."

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(soundfile, "write", full)
    for free, words in ((0, "No space left on device"), (1 << 30, "System error")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, f=free: usage._replace(free=f))
        with pytest.raises(FileError, match=words):
            write_audio(tmp_path / "a.flac", clicks(120, 1))
    assert not list(tmp_path.iterdir())


# --- tempo -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tempo"),
    [
        ("techno_128.flac", 128),
        ("128bpm amen.wav", 128),
        ("pad-90.5bpm.wav", 90.5),
        ("loop_174_Am.wav", 174),
        ("amen.wav", None),
        ("808.wav", None),
        ("take_12.flac", None),
        ("kick_909.wav", None),
        ("Beat 140 BPM.wav", 140),
        ("v2_9999.wav", None),
    ],
)
def test_tempo_in_name(name: str, tempo: float | None) -> None:
    assert tempo_in_name(name) == tempo


def test_beats_in() -> None:
    assert beats_in(7 * SECOND + SECOND // 2, 4, 120, "techno_128.flac") == (16, 128.0)
    # A tail behind the last beat: the name is right, not the length.
    assert beats_in(8 * SECOND, 4, 120, "techno_128.flac") == (17, 128.0)
    assert beats_in(round(7.9 * SECOND), 4, 120, "a_128.wav")[0] == 16
    # Without a name: a power of two of bars near the stage's tempo.
    assert beats_in(8 * SECOND, 4, 120) == (16, 120.0)
    beats, tempo = beats_in(round(5.517 * SECOND), 4, 170)
    assert beats == 16
    assert tempo == pytest.approx(174, abs=0.1)
    assert beats_in(SECOND // 2, 4, 120) == (1, 120.0)


# --- loops -----------------------------------------------------------------------------------


def test_equal_tempo_is_bit_exact_and_tiled() -> None:
    source = clicks(120, 8)
    loop, info = fit_loop(source, 16 * SECOND, 8, 4, 120, name="beat_120.wav")
    assert loop.shape == (16 * SECOND, 2)
    assert loop.dtype == np.float32
    assert np.array_equal(loop, np.tile(source, (4, 1)))
    assert info == "beat_120.wav: 2 bars at 120 bpm, 4 times"


@pytest.mark.parametrize(("source", "bpm"), [(128, 120), (120, 133.7), (90, 120), (174, 140)])
def test_stretched_clicks_are_on_the_beat(source: float, bpm: float) -> None:
    lap = round(4 * 4 * 60 * SECOND / bpm)
    loop, info = fit_loop(clicks(source, 16), lap, 4, 4, Fraction(bpm), name=f"x_{source}.wav")
    assert len(loop) == lap
    assert f"stretched to {bpm:g}" in info
    found = onsets(np.concatenate((loop, loop[: 2 * SECOND])))
    beat = 60 * SECOND / bpm
    near = [round(at / beat) * beat - at for at in found]
    assert len(found) >= 16
    assert np.abs(near).max() < 0.012 * SECOND  # a stretched click rises before its peak


def test_pitch_is_kept() -> None:
    wave = np.sin(np.arange(8 * SECOND) * 2 * np.pi * 440 / SECOND).astype(np.float32) * 0.5
    loop, _ = fit_loop(np.stack((wave, wave), 1), 10 * SECOND, 5, 4, 120, name="a_96.wav")
    spectrum = np.abs(np.fft.rfft(loop[:, 0] * np.hanning(len(loop))))
    assert abs(np.argmax(spectrum) * SECOND / len(loop) - 440) < 1


def test_loops_are_circular() -> None:
    """A tone that does not fit the loop: no step at the seam above the tone's own slope."""
    wave = 0.5 * np.sin(np.arange(9 * SECOND) * 2 * np.pi * 441.3 / SECOND)
    tone = np.stack((wave, wave), 1).astype(np.float32)
    own = np.abs(np.diff(wave)).max()
    for name, cycles in (("a_120.wav", 4), ("a_120.wav", 3), ("a_128.wav", 4), ("b.wav", 7)):
        loop, _ = fit_loop(tone, 2 * SECOND * cycles, cycles, 4, 120, name=name)
        ring = np.concatenate((loop, loop[:SECOND]))
        assert np.abs(np.diff(ring, axis=0)).max() < 2 * own, name


def test_long_sources_are_cut_short_ones_repeated() -> None:
    loop, info = fit_loop(clicks(120, 64), 8 * SECOND, 4, 4, 120, name="a_120.wav")
    assert "16 bars" in info
    assert "the first 4 bars" in info
    assert len(onsets(loop)) == 16
    loop, info = fit_loop(clicks(120, 1), 2 * SECOND, 1, 4, 120, name="hit.wav")
    assert info == "hit.wav: 1 beat at 120 bpm, 4 times"
    assert onsets(loop) == [onsets(loop)[0] + k * 24000 for k in range(4)]


@pytest.mark.parametrize("n", [1, 2, 100, 481, 5000])
@pytest.mark.parametrize("name", ["", "x_128.wav"])
def test_tiny_sources_do_not_fail(n: int, name: str) -> None:
    loop, _ = fit_loop(np.full((n, 2), 0.1, np.float32), 2 * SECOND, 1, 4, 120, name=name)
    assert loop.shape == (2 * SECOND, 2)
    assert np.isfinite(loop).all()


def test_the_same_source_gives_the_same_loop() -> None:
    a, _ = fit_loop(clicks(128, 16), 8 * SECOND, 4, 4, 120, name="x_128.wav")
    b, _ = fit_loop(clicks(128, 16), 8 * SECOND, 4, 4, 120, name="x_128.wav")
    assert np.array_equal(a, b)


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_written_files_are_equal_and_right(tmp_path: Path, ending: str) -> None:
    sound = (np.random.default_rng(1).standard_normal((4801, 2)) * 0.2).astype(np.float32)
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    write_audio(first, sound)
    write_audio(second, sound)
    assert first.read_bytes() == second.read_bytes()
    back, rate = soundfile.read(first, dtype="float32", always_2d=True)
    assert rate == SECOND
    assert np.abs(back - sound).max() <= (0 if ending == "wav" else 2**-23)
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.name, second.name]


def test_writing_says_what_is_wrong(tmp_path: Path) -> None:
    for path, word in (
        (tmp_path / "a.mp3", "format"),
        (tmp_path / "no" / "a.wav", "cannot write"),
        (tmp_path / "no" / "a.flac", "cannot write"),
    ):
        with pytest.raises(FileError, match=word) as caught:
            write_audio(path, np.zeros((10, 2), np.float32))
        assert caught.value.hint
    assert not list(tmp_path.iterdir())
