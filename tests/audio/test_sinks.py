"""Rings, bus, callback, null clock, recorder: no device, no waiting."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from demon_live.audio.devices import Converted
from demon_live.audio.mix_thread import AudioEvent, MixThread
from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.pcmring import Bus, LoopBuffer, PcmRing
from demon_live.audio.sinks import (
    DRY_FADE,
    AudioCallback,
    NullClock,
    SoundWriter,
    parse_sink,
)
from demon_live.core import Floats, Loop, MixDeck, MixPoints, MixState
from demon_live.errors import FileError, UsageError


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    return Bus.create(tmp_path / "bus")


def counter(start: int, n: int) -> Floats:
    ramp = np.arange(start, start + n, dtype=np.float32) % 65536
    return np.stack((ramp, -ramp), 1)


def test_loop_ring_is_cyclic_and_shared(tmp_path: Path) -> None:
    mine = LoopBuffer.create(tmp_path / "a", 1000)
    theirs = LoopBuffer.open(tmp_path / "a")
    assert theirs.samples == 1000
    assert not theirs.audio.any()
    mine.write(900, counter(1, 300))
    assert np.array_equal(theirs.read(900, 300), counter(1, 300))
    assert np.array_equal(theirs.audio[:200], counter(101, 200))
    mine.write(-5, counter(7, 10))
    assert np.array_equal(theirs.read(1995, 10), counter(7, 10))
    with pytest.raises(ValueError, match="do not fit"):
        mine.write(0, counter(0, 1001))


def test_loop_outlives_its_file_and_a_new_one_does_not_disturb(tmp_path: Path) -> None:
    old = LoopBuffer.create(tmp_path / "a", 100)
    old.write(0, counter(1, 100))
    new = LoopBuffer.create(tmp_path / "a", 50)
    assert np.array_equal(old.audio, counter(1, 100))
    new.unlink()
    assert np.array_equal(old.audio, counter(1, 100))
    with pytest.raises(FileError):
        LoopBuffer.open(tmp_path / "a")
    old.close()
    new.close()


def test_not_a_loop_not_a_bus(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(FileError, match="not a loop"):
        LoopBuffer.open(tmp_path / "x")
    with pytest.raises(FileError, match="not a bus"):
        Bus.open(tmp_path / "x")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(FileError, match="cannot map"):
        Bus.open(tmp_path / "empty")


def test_the_writers_death_leaves_the_loop(tmp_path: Path) -> None:
    LoopBuffer.create(tmp_path / "a", 100).close()
    code = (
        "import os, sys; from demon_live.audio.pcmring import LoopBuffer; import numpy as np\n"
        f"ring = LoopBuffer.open({str(tmp_path / 'a')!r})\n"
        "ring.write(0, np.ones((100, 2), np.float32))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert (LoopBuffer.open(tmp_path / "a").audio == 1.0).all()


def test_bus_fields_do_not_overlap(tmp_path: Path) -> None:
    bus = Bus.create(tmp_path / "bus")
    names = [n for n, f in vars(Bus).items() if type(f).__name__ in ("_Int", "_Float")]
    for i, name in enumerate(names, 1):
        setattr(bus, name, i)
    other = Bus.open(tmp_path / "bus")
    assert [getattr(other, name) for name in names] == list(range(1, len(names) + 1))
    other.close()
    bus.close()


def test_bus_words_are_never_torn(tmp_path: Path) -> None:
    """A second process stores two patterns whose halves differ; no mixture is ever read."""
    bus = Bus.create(tmp_path / "bus")
    code = (
        "from demon_live.audio.pcmring import Bus\n"
        f"b = Bus.open({str(tmp_path / 'bus')!r})\n"
        "for i in range(100000):\n"
        "    b.played = 0x1111111111111111 if i % 2 else 0x2222222222222222\n"
        "b.blocks = 1"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as child:
        seen = set()
        while bus.blocks == 0 and child.poll() is None:
            seen.add(bus.played)
    assert seen <= {0, 0x1111111111111111, 0x2222222222222222}


def test_heard(bus: Bus) -> None:
    assert bus.heard() == 0
    bus.t0, bus.latency_s, bus.played = 100.0, 0.5, 10 * 48000
    assert bus.heard(100.2) == 0
    assert bus.heard(101.5) == 48000
    assert bus.heard(500.0) == 10 * 48000


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=60))
def test_pcm_ring_is_a_queue(moves: list[tuple[bool, int]]) -> None:
    ring, model, sent = PcmRing(64), 0, 0
    out = np.zeros((70, 2), np.float32)
    for write, n in moves:
        if write:
            fits = n <= 64 - (sent - model)
            assert ring.write(counter(sent, n)) == fits
            sent += n if fits else 0
        else:
            got = ring.read_into(out, n)
            assert got == min(n, sent - model)
            assert np.array_equal(out[:got], counter(model, got))
            model += got
        assert ring.fill == sent - model


def test_pcm_ring_between_two_threads() -> None:
    ring, total = PcmRing(1000), 200_000
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def produce() -> None:
        sent = 0
        while sent < total:
            n = min(1 + sent % 333, total - sent)
            if ring.write(counter(sent, n)):
                sent += n

    thread = threading.Thread(target=produce)
    thread.start()
    got, out, wrong = 0, np.zeros((512, 2), np.float32), 0
    try:
        while got < total:
            n = ring.read_into(out, 1 + got % 511)
            wrong += int((out[:n] != counter(got, n)).sum())
            got += n
    finally:
        thread.join()
        sys.setswitchinterval(old)
    assert wrong == 0


def play(output: AudioCallback, frames: int) -> Floats:
    out = np.full((frames, 2), np.nan, np.float32)
    output(out, frames, None, None)
    return out


def test_output_passes_bits_after_the_first_rise(bus: Bus) -> None:
    ring = PcmRing(48000)
    output = AudioCallback(ring, bus)
    sound = np.random.default_rng(0).standard_normal((9600, 2)).astype(np.float32)
    ring.write(sound)
    out = np.concatenate([play(output, n) for n in (1000, 1, 3599, 5000)])
    assert np.array_equal(out[DRY_FADE:], sound[DRY_FADE:])
    assert np.abs(out[:DRY_FADE]).max() <= np.abs(sound).max()
    assert (bus.played, bus.dry, bus.failures) == (9600, 0, 0)


@pytest.mark.parametrize("frames", [64, 240, 480, 1024])
@pytest.mark.parametrize("left", [0, 1, 37, 63])
def test_dry_fades_waits_and_comes_back_without_a_click(bus: Bus, frames: int, left: int) -> None:
    ring = PcmRing(48000)
    output = AudioCallback(ring, bus)
    ring.write(np.full((frames * 20 + left, 2), 0.5, np.float32))
    out = [play(output, frames) for _ in range(30)]
    missing = 10 * frames - left
    assert bus.dry == 10
    assert bus.dry_samples == missing
    ring.write(np.full((frames * 20, 2), 0.5, np.float32))
    out += [play(output, frames) for _ in range(20)]
    sound = np.concatenate(out)[:, 0]
    assert np.abs(np.diff(np.concatenate(([0.0], sound)))).max() < 0.5 * 1.6 / DRY_FADE
    assert np.isfinite(sound).all()
    assert not sound[20 * frames + left + DRY_FADE : 30 * frames].any()
    assert (sound[30 * frames + DRY_FADE :] == 0.5).all()
    assert bus.played == frames * 40 + left  # nothing was lost: time waited


def test_crumbs_are_not_played_while_dry(bus: Bus) -> None:
    ring = PcmRing(48000)
    output = AudioCallback(ring, bus)
    ring.write(np.full((480, 2), 0.5, np.float32))
    play(output, 480)
    play(output, 480)
    ring.write(np.full((100, 2), 0.5, np.float32))
    assert not play(output, 480).any()
    assert ring.fill == 100


def test_silence_before_the_first_sound_is_not_dry(bus: Bus) -> None:
    output = AudioCallback(PcmRing(4800), bus)
    assert not play(output, 480).any()
    assert bus.dry == 0


def test_an_exception_becomes_silence_and_a_count(bus: Bus) -> None:
    class Broken(PcmRing):
        def read_into(self, out: Floats, frames: int) -> int:
            raise RuntimeError("boom")

    ring = Broken(4800)
    output = AudioCallback(ring, bus)
    ring.write(np.ones((4800, 2), np.float32))
    assert not play(output, 480).any()
    assert not play(output, 480).any()
    assert bus.failures == 2


def test_underflows_and_latency_are_taken_from_portaudio(bus: Bus) -> None:
    output = AudioCallback(PcmRing(4800), bus)
    when = SimpleNamespace(currentTime=10.0, outputBufferDacTime=10.025)
    output(np.zeros((480, 2), np.float32), 480, when, SimpleNamespace(output_underflow=True))
    assert bus.underruns == 1
    assert bus.latency_s == pytest.approx(0.025)
    when.outputBufferDacTime = 0.0  # some drivers do not know
    output(np.zeros((480, 2), np.float32), 480, when, None)
    assert bus.latency_s == pytest.approx(0.025)


ALLOWED = {
    "monotonic",
    "_clocks",
    "_fill",
    "_fade",
    "read_into",
    "fill",
    "__get__",
    "__set__",
    "__call__",
}


def test_the_callback_calls_only_what_is_allowed_and_keeps_no_memory(bus: Bus) -> None:
    ring = PcmRing(48000)
    output = AudioCallback(ring, bus)
    ring.write(np.ones((4800, 2), np.float32))
    out = np.zeros((960, 2), np.float32)
    for _ in range(3):
        output(out, 960, None, None)
    called: set[str] = set()

    def watch(frame: Any, event: str, what: Any) -> None:
        if event == "call":
            called.add(frame.f_code.co_name)
        elif event == "c_call":
            called.add(what.__name__)

    sys.setprofile(watch)
    try:
        for _ in range(4):  # flowing, the end, dry, still dry
            output(out, 960, None, None)
    finally:
        sys.setprofile(None)
    called -= {"setprofile"}
    assert called <= ALLOWED | {"_Int.__get__"}, called - ALLOWED
    ring.write(np.ones((9600, 2), np.float32))
    output(out, 960, None, None)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(8):
        output(out, 960, None, None)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 2000, peak - before
    assert now - before < 1000, now - before


class Clock:
    """Virtual time; sleeping is exact, unless a delay is planned."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.delays: dict[int, float] = {}
        self.sleeps = 0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds + self.delays.get(self.sleeps, 0.0)
        self.sleeps += 1


def test_null_clock_keeps_time_and_counts_lateness(bus: Bus) -> None:
    clock = Clock()
    ring = PcmRing(48000 * 3)
    ring.write(np.ones((48000 * 3, 2), np.float32))
    null = NullClock(AudioCallback(ring, bus), bus, clock.now, clock.sleep)
    for _ in range(101):
        null.turn()
    assert clock.time == pytest.approx(1001.0)
    assert (bus.late, bus.played) == (0, 101 * 480)
    clock.delays = {clock.sleeps: 0.012}
    for _ in range(20):
        null.turn()
    assert bus.late == 1
    assert clock.time == pytest.approx(1001.2)  # it has caught up
    clock.delays = {clock.sleeps: 3600.0}  # the lid was closed
    for _ in range(20):
        null.turn()
    assert bus.late == 2
    assert bus.played == 141 * 480


def mixing(bus: Bus, folder: Path = Path()) -> tuple[MixThread, list[AudioEvent]]:
    news: list[AudioEvent] = []
    bus.ahead = 2400
    return MixThread(Mixer(startup=0.0), PcmRing(48000), bus, news.append, folder), news


def test_the_mix_is_kept_ahead_and_reported(bus: Bus) -> None:
    mix, _ = mixing(bus)
    while mix.turn():
        pass
    assert mix.ring.fill == 2400
    assert (bus.blocks, bus.mixed) == (5, mix.mixer.decided)


def test_a_bad_state_is_an_event_and_nothing_stops(bus: Bus, tmp_path: Path) -> None:
    mix, news = mixing(bus, tmp_path)
    lost = Loop(1, "a", 0, Fraction(0), Fraction(24000), 1, Fraction(120), 1, 13)
    for state in (
        MixState({"a": MixDeck((lost,))}),
        MixState({"a": MixDeck((), 2, {"denoise": MixPoints(np.zeros(1, int), np.zeros(1))})}),
    ):
        mix.newest = state
        assert mix.turn()
    assert [e.kind for e in news] == ["error"] * 2
    assert bus.errors == 2


def test_decks_that_come_and_go_leave_no_descriptor(bus: Bus, tmp_path: Path) -> None:
    mix, news = mixing(bus, tmp_path)
    counts = []
    for n in range(30):
        loop = Loop(n, f"d{n}", 0, Fraction(0), Fraction(4800), 1, Fraction(120), 1, 13)
        LoopBuffer.create(tmp_path / loop.file, 4800).close()
        for decks in ({loop.deck: MixDeck((loop,))}, {}):
            mix.newest = MixState(decks)
            for _ in range(10):
                mix.turn()
                mix.ring.taken = mix.ring.written
        counts.append(psutil.Process().num_fds())
    assert news == []
    assert mix.mixer.decks == []
    assert max(counts[5:]) <= min(counts[:5]) + 1


def test_the_sink_and_a_recording_are_two_files(bus: Bus, tmp_path: Path) -> None:
    mix, news = mixing(bus)
    mix.sink = mix.start_recorder(str(tmp_path / "sink.wav"))
    mix.turn()
    mix.newest = MixState(recording=str(tmp_path / "take.wav"))
    mix.turn()
    take = mix.recorder
    mix.newest = MixState()
    mix.turn()
    for recorder in (mix.sink, take):
        assert recorder is not None
        recorder.close(timeout=60)
    lengths = {}
    for event in news:
        if event.kind == "recorded":
            lengths[Path(event.path).name] = event.sample
    assert lengths == {"sink.wav": 3 * BLOCK, "take.wav": BLOCK}


def test_tracks_begin_and_end_with_the_mix_and_sum_to_it(bus: Bus, tmp_path: Path) -> None:
    news: list[AudioEvent] = []
    bus.ahead = 1 << 20
    mixer = Mixer(startup=0.0, stems=True)
    mix = MixThread(mixer, PcmRing(1 << 21), bus, news.append, tmp_path)

    def play(deck: str, seed: int) -> None:
        draw = np.random.default_rng(seed).standard_normal((48000, 2)) * 0.05
        loop = Loop(1, deck, mixer.decided, Fraction(0), Fraction(48000), 1, Fraction(120), 4, 26)
        mixer.add_loop(loop, draw.astype(np.float32))

    play("drums", 1)
    mix.turn()
    mix.newest = MixState(recording=str(tmp_path / "take.flac"), tracks=True)
    # A new state knows no decks: they are the mixer's own here.
    for _ in range(5):
        mix.turn()
    play("pad", 2)
    for _ in range(150):
        mix.turn()
    writers = [mix.recorder, *mix.tracks.values()]
    mix.newest = MixState()
    mix.turn()
    for writer in writers:
        assert writer is not None
        writer.close(timeout=60)
    read = {p.stem: soundfile.read(p)[0] for p in tmp_path.glob("*.flac")}
    assert read.keys() == {"take", "take-drums", "take-pad"}
    assert {len(audio) for audio in read.values()} == {155 * BLOCK}
    assert np.abs(read["take-drums"] + read["take-pad"] - read["take"]).max() < 1e-6
    assert not read["take-pad"][: 5 * BLOCK].any()
    assert read["take-pad"].any()


def test_a_mixer_that_raises_is_silent_told_once_and_goes_on(bus: Bus, capfd: Any) -> None:
    mix, news = mixing(bus)
    render, broken = mix.mixer.render, {1, 2}
    calls = iter(range(100))

    def flaky(blocks: int = 1) -> Floats:
        if next(calls) in broken:
            raise RuntimeError("boom")
        return render(blocks)

    mix.mixer.render = flaky  # type: ignore[method-assign]
    while mix.turn():
        pass
    assert [e.kind for e in news] == ["error"]
    assert mix.mixer.position == 5 * BLOCK
    assert "boom" in capfd.readouterr().err


@pytest.mark.parametrize("ending", [".flac", ".wav", ".WAV"])
def test_recorder_writes_and_renames(tmp_path: Path, ending: str) -> None:
    told: list[tuple[str, int, str]] = []
    sound = (np.random.default_rng(0).standard_normal((4800, 2)) * 0.1).astype(np.float32)
    for want in ("take", "take-2", "take-3"):
        recorder = SoundWriter(tmp_path / f"take{ending}", lambda *a: told.append(a))
        for i in range(0, 4800, 480):
            recorder.write(sound[i : i + 480])
        recorder.close(timeout=10)
        assert told[-1] == (str(tmp_path / f"{want}{ending}"), 4800, "")
        back, rate = soundfile.read(told[-1][0], dtype="float32")
        assert rate == 48000
        assert np.abs(back - sound).max() < 2**-22
    assert not list(tmp_path.glob("*.part"))


def test_recorder_tells_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, str]] = []

    really = soundfile.SoundFile.write

    def full(self: Any, block: Floats) -> None:
        if block[0, 0]:
            raise OSError(28, "No space left on device")
        really(self, block)

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    for name, blocks in (("some", (0, 1, 1)), ("none", (1, 1))):
        recorder = SoundWriter(tmp_path / f"{name}.flac", lambda *a: told.append(a))
        for value in blocks:
            recorder.write(np.full((480, 2), value, np.float32))
        recorder.close(timeout=10)
    (_, samples, some), (_, nothing, none) = told
    assert (samples, nothing) == (480, 0)
    assert "No space left" in some
    assert "some.flac.part" in some
    assert none == "No space left on device"
    # What holds no sound is not left behind.
    assert [p.name for p in tmp_path.iterdir()] == ["some.flac.part"]


def test_a_recording_goes_on_in_the_next_file_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, failed, begun = threading.Event(), threading.Event(), threading.Event()
    told: list[tuple[str, float, str]] = []
    really = soundfile.SoundFile.write

    def write(self: Any, block: Floats) -> None:
        if full.is_set():
            # libsndfile keeps the system's reason for itself.
            raise soundfile.LibsndfileError(2)
        really(self, block)

    def ended(path: str, samples: int, problem: str) -> None:
        told.append((Path(path).name, samples, problem))
        failed.set()

    def goes_on(path: str, missing: float) -> None:
        told.append((Path(path).name, missing, "goes on"))
        begun.set()

    usage = shutil.disk_usage
    free = lambda path: usage(path)._replace(free=0 if full.is_set() else 1 << 30)  # noqa: E731
    monkeypatch.setattr(soundfile.SoundFile, "write", write)
    monkeypatch.setattr(shutil, "disk_usage", free)
    monkeypatch.setattr(SoundWriter, "RETRY", 0.01)
    sound = np.random.default_rng(0).integers(-9999, 9999, (4800, 2)).astype("f4") / 32768
    recorder = SoundWriter(tmp_path / "take.flac", ended, goes_on)
    recorder.write(sound[:480])
    while recorder._samples < 480:
        assert recorder._thread.is_alive()
    full.set()
    recorder.write(sound[480:960])
    assert failed.wait(20)
    for i in range(3):
        recorder.write(sound[480 * i : 480 * i + 480])
    while recorder._lost < 3 * 480:
        assert recorder._thread.is_alive()
    full.clear()
    assert begun.wait(20)
    recorder.write(sound)
    recorder.close(timeout=20)
    assert told[0][:2] == ("take.flac", 480)
    assert told[0][2].startswith("No space left on device (what was written is in")
    assert told[1:] == [("take-2.flac", 0.03, "goes on"), ("take-2.flac", 4800, "")]
    assert np.array_equal(soundfile.read(tmp_path / "take-2.flac", dtype="float32")[0], sound)


def test_a_wav_that_is_full_goes_on_in_the_next_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 6 * SoundWriter.MOST_WAV < 0xFFFFFFFF
    monkeypatch.setattr(SoundWriter, "MOST_WAV", 960)
    sound = np.random.default_rng(0).integers(-9999, 9999, (2400, 2)).astype("f4") / 32768
    told: list[tuple[str, float]] = []
    recorder = SoundWriter(
        tmp_path / "take.wav",
        lambda path, samples, problem: told.append((Path(path).name, samples)),
        lambda path, missing: told.append((Path(path).name, missing)),
    )
    for i in range(5):
        recorder.write(sound[480 * i : 480 * i + 480])
    recorder.close(timeout=20)
    assert told == [
        ("take.wav", 960),
        ("take-2.wav", 0.0),
        ("take-2.wav", 960),
        ("take-3.wav", 0.0),
        ("take-3.wav", 480),
    ]
    parts = [soundfile.read(tmp_path / f"{n}.wav", dtype="float32")[0] for n in ("take", "take-2")]
    assert np.array_equal(np.concatenate(parts), sound[:1920])


def test_the_mix_thread_never_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening and writing stand still: write returns, and a minute later says what it drops."""
    gate, told = threading.Event(), []
    really = soundfile.SoundFile.write

    def slow(self: Any, block: Floats) -> None:
        assert gate.wait(20)
        really(self, block)

    monkeypatch.setattr(soundfile.SoundFile, "write", slow)
    recorder = SoundWriter(tmp_path / "take.flac", lambda *a: told.append(a))
    for _ in range(SoundWriter.BACKLOG + 100):
        recorder.write(np.zeros((4, 2), np.float32))
    assert 98 <= recorder.dropped <= 100
    gate.set()
    recorder.close(timeout=20)
    assert "missing" in told[0][2]
    assert (tmp_path / "take.flac").exists()


def test_sinks_are_parsed(tmp_path: Path) -> None:
    assert parse_sink("null").kind == "null"
    assert parse_sink(f"file:{tmp_path}/a.wav").path == str(tmp_path / "a.wav")
    for wrong, error in (
        ("alsa", UsageError),
        ("file:a.mp3", FileError),
        (f"file:{tmp_path}/no/a.wav", FileError),
    ):
        with pytest.raises(error) as caught:
            parse_sink(wrong)
        assert caught.value.hint


def test_two_recordings_of_equal_sound_are_equal_files(tmp_path: Path) -> None:
    sums = set()
    for name in ("a.flac", "b.flac"):
        recorder = SoundWriter(tmp_path / name, lambda *a: None)
        recorder.write(counter(0, 480) / 65536)
        recorder.close(timeout=10)
        sums.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(sums) == 1


def test_a_full_runtime_folder_is_an_error_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(FileError, match="No space left") as caught:
        LoopBuffer.create(tmp_path / "a", 1000)
    assert "DEMON_RUNTIME" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_a_device_at_another_rate_hears_each_sample_at_its_time(bus: Bus) -> None:
    """A click in the mix comes out where the rates say, and `begin` knows what a buffer is."""
    ring = PcmRing(48000)
    sound = np.zeros((40000, 2), np.float32)
    sound[9600] = 0.5
    ring.write(sound)
    output = AudioCallback(ring, bus)
    device = Converted(output, 44100, 2, output.begin)
    when = SimpleNamespace(currentTime=1.0, outputBufferDacTime=1.02)
    out, begins = [], []
    for _ in range(40):
        block = np.zeros((512, 2), np.float32)
        device(block, 512, when, None)
        out.append(block)
        begins.append(output.first)
    (click,) = np.flatnonzero(np.abs(np.concatenate(out)[:, 0]) > 0.4)
    assert abs(click - 9600 * 44100 / 48000) < 1
    assert np.allclose(begins, np.arange(40) * 512 * 48000 / 44100, atol=1e-3)
    assert output.first_s == pytest.approx(0.02)
