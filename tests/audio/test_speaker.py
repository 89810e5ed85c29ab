"""The audio process itself, on the null clock: starts, obeys, comes back, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from demon_live.audio.mix_thread import AudioEvent
from demon_live.audio.mixer import Mixer
from demon_live.audio.pcmring import Bus, LoopBuffer
from demon_live.audio.process import Settings
from demon_live.audio.sinks import Sink
from demon_live.audio.speaker import Speaker
from demon_live.core import Gate, Loop, MixDeck, MixPoints, MixState
from demon_live.errors import DeviceError, FileError, UsageError

ROOT = Path(__file__).parents[2]
LAP = 24000
PAUSE = threading.Event()  # never set: a polite poll


def until(what: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        PAUSE.wait(0.003)


def loop(deck: str = "main", begin: int = 0, epoch: int = 1) -> Loop:
    return Loop(epoch, deck, begin, 0, Fraction(LAP), 1, Fraction(120), 1, 13)


def write(folder: Path, what: Loop, sound: object) -> None:
    """The PCM of a loop, where the audio process looks for it."""
    LoopBuffer.create(folder / what.file, LAP).audio[:] = sound


def deck(*loops: Loop, gain: float = 1.0, version: int = 1) -> MixDeck:
    curve = MixPoints(np.array([0], np.int64), np.array([gain], np.float32))
    return MixDeck(loops, version, {"gain": curve})


@pytest.fixture
def playing(tmp_path: Path) -> MixState:
    write(tmp_path, loop(), 0.25)
    return MixState({"main": deck(loop())})


@pytest.fixture
def speaker(tmp_path: Path, playing: MixState) -> Iterator[Speaker]:
    speaker = Speaker.start("null", tmp_path, state=playing)
    yield speaker
    speaker.close()


class Heard:
    """Collects events until one of a kind comes."""

    def __init__(self, speaker: Speaker) -> None:
        self.all: list[AudioEvent] = []
        self._speaker = speaker

    def until(self, kind: str) -> AudioEvent:
        def found() -> bool:
            self.all += self._speaker.events()
            return any(e.kind == kind for e in self.all)

        until(found)
        return next(e for e in self.all if e.kind == kind)


def test_plays_records_and_closes(tmp_path: Path, playing: MixState) -> None:
    speaker = Speaker.start("null", tmp_path, state=playing, startup=0.0)
    heard = Heard(speaker)
    assert "null" in speaker.first.text
    assert speaker.alive
    speaker.publish(replace(playing, recording=str(tmp_path / "take.wav")))
    heard.until("recording")
    position = speaker.bus.played
    until(lambda: speaker.bus.played > position + 4800)
    assert speaker.bus.peak_l == pytest.approx(0.25)
    assert speaker.bus.mixed > speaker.bus.played
    speaker.publish(playing)
    end = heard.until("recorded")
    speaker.close()
    speaker.close()
    assert not speaker.alive
    assert heard.until("closed")
    sound, _ = soundfile.read(tmp_path / "take.wav", dtype="float32")
    assert len(sound) == end.sample >= 4800
    assert np.abs(sound - 0.25).max() < 1e-6
    assert (speaker.bus.running, speaker.bus.failures, speaker.bus.errors) == (0, 0, 0)
    assert not list(tmp_path.glob("*.log"))


def test_file_sink_has_the_first_sample_and_the_fade(tmp_path: Path, playing: MixState) -> None:
    target = f"file:{tmp_path}/out.flac"
    speaker = Speaker.start(target, tmp_path, state=playing, startup=0.0)
    until(lambda: speaker.bus.played > 4800)
    speaker.close()
    sound, _ = soundfile.read(tmp_path / "out.flac", dtype="float32")
    assert np.abs(sound[:4800] - 0.25).max() < 1e-6
    assert not sound[-1].any()
    assert np.abs(np.diff(sound, axis=0)).max() < 0.25 * 1.1 / 480


def test_what_is_played_is_what_is_rendered(tmp_path: Path) -> None:
    """The same loops through the audio process and through the mixer here: equal samples."""
    rng = np.random.default_rng(3)
    one, two, three = loop("a"), loop("a", 9001, 2), loop("b", 5003)
    for what in (one, two, three):
        write(tmp_path, what, rng.standard_normal((LAP, 2)) * 0.4)
    state = MixState({"a": deck(one, two), "b": deck(three)})
    target = f"file:{tmp_path}/out.flac"
    speaker = Speaker.start(target, tmp_path, state=state, startup=0.0)
    until(lambda: speaker.bus.played > 24000)
    speaker.close()
    sound, _ = soundfile.read(tmp_path / "out.flac", dtype="float32")
    mixer = Mixer(startup=0.0)
    mixer.apply(state, lambda what: LoopBuffer.open(tmp_path / what.file))
    assert np.abs(sound[:24000] - mixer.render(50)).max() < 2**-22  # 24 bits


def test_what_is_published_is_heard(speaker: Speaker, playing: MixState) -> None:
    bus = speaker.bus
    main = frozenset({"main"})
    for version, silence in enumerate(
        (
            replace(playing, gates=(Gate(0, muted=main),)),
            replace(playing, gates=(Gate(0, soloed=frozenset({"other"})),)),
            replace(playing, gates=(Gate(0, hushed=True),)),
            replace(playing, decks={"main": deck(loop(), gain=0.0, version=2)}),
            MixState(),
        )
    ):
        until(lambda: bus.rms == pytest.approx(0.25))
        speaker.publish(silence)
        until(lambda: bus.rms == 0.0)
        speaker.publish(replace(playing, decks={"main": deck(loop(), version=10 + version)}))
    until(lambda: bus.rms == pytest.approx(0.25))
    assert bus.errors == 0


def test_of_a_storm_of_states_the_last_wins(speaker: Speaker, playing: MixState) -> None:
    for k in range(3000):
        gain = 0.5 if k == 2999 else 1.0
        speaker.publish(replace(playing, decks={"main": deck(loop(), gain=gain, version=k + 2)}))
    until(lambda: speaker.bus.rms == pytest.approx(0.125))
    assert speaker.bus.dry == 0 or speaker.bus.dry < 5


def test_a_missing_loop_is_told_and_nothing_stops(speaker: Speaker, playing: MixState) -> None:
    nowhere = loop("nowhere")
    speaker.publish(replace(playing, decks={"nowhere": deck(nowhere), **playing.decks}))
    event = Heard(speaker).until("error")
    assert "nowhere" in event.text
    until(lambda: speaker.bus.rms == pytest.approx(0.25))
    assert speaker.alive


def test_killed_it_comes_back_on_the_beat_with_all_it_knew(
    tmp_path: Path, playing: MixState
) -> None:
    speaker = Speaker.start("null", tmp_path, state=playing)
    write(tmp_path, loop("b"), 0.25)
    decks = {"main": deck(loop(), gain=0.5, version=2), "b": deck(loop("b"))}
    speaker.publish(MixState(decks, (Gate(0, muted=frozenset({"b"})),)))
    bus, heard = speaker.bus, Heard(speaker)
    until(lambda: bus.rms == pytest.approx(0.125))
    first, t0 = bus.pid, bus.t0
    os.kill(first, signal.SIGKILL)
    heard.until("restarted")
    until(lambda: bus.pid != first and bus.alive > 0 and bus.rms == pytest.approx(0.125))
    callbacks = bus.callbacks
    until(lambda: bus.callbacks > callbacks + 20)
    # Where the music would have been: within 30 ms of the old pace.
    assert abs(bus.t0 - t0) < 0.03
    speaker.close()


def test_a_spare_takes_over_and_is_replaced(tmp_path: Path, playing: MixState) -> None:
    speaker = Speaker.start("null", tmp_path, state=playing, spare=True)
    bus = speaker.bus

    def spare() -> int | None:
        speaker.check()
        return speaker.spare_pid

    until(spare)
    dead = speaker.spare_pid
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    until(lambda: spare() not in (None, dead))
    waiting, t0 = speaker.spare_pid, bus.t0
    os.kill(bus.pid, signal.SIGKILL)
    until(lambda: bus.pid == waiting and bus.rms == pytest.approx(0.25))
    callbacks = bus.callbacks
    until(lambda: bus.callbacks > callbacks + 20)
    assert abs(bus.t0 - t0) < 0.03
    until(lambda: spare() not in (None, waiting))
    last = speaker.spare_pid
    speaker.close()
    assert last is not None
    assert not psutil.pid_exists(last)


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from demon_live.audio.speaker import Speaker\n"
        "s = Speaker.start('null', sys.argv[2])\n"
        "print(s.bus.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), str(tmp_path)],
        capture_output=True,
        check=False,
    )
    pid = int(done.stdout)
    bus = Bus.open(tmp_path / "bus")
    until(lambda: bus.running == 0)

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # In a container nobody may collect it.
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"

    until(gone)


def test_ctrl_c_is_not_for_the_sound(speaker: Speaker) -> None:
    os.kill(speaker.bus.pid, signal.SIGINT)
    position = speaker.bus.played
    until(lambda: speaker.bus.played > position + 4800)
    assert speaker.alive


def test_refusals_come_from_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Speaker.start("loudspeaker", tmp_path)
    with pytest.raises(FileError):
        Speaker.start("file:x.mp3", tmp_path)
    with pytest.raises(DeviceError) as caught:
        Speaker.start("device", tmp_path, device="no such device anywhere")
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_the_audio_process_is_light() -> None:
    """Neither torch nor scipy: it has to play within a fraction of a second."""
    code = (
        "import sys, demon_live.audio.process, demon_live.audio.speaker\n"
        "print([m for m in ('torch', 'scipy', 'soundfile', 'sounddevice') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"


def test_settings_are_plain() -> None:
    settings = Settings("bus", Sink("null"))
    assert settings.ahead == 2400


def test_one_that_hangs_is_replaced_and_said_so(speaker: Speaker) -> None:
    bus, heard = speaker.bus, Heard(speaker)
    until(lambda: bus.rms == pytest.approx(0.25))
    first = bus.pid
    os.kill(first, signal.SIGSTOP)

    def replaced() -> bool:
        speaker.check()
        return bus.pid != first and bus.alive > 0

    until(replaced)
    assert "does not answer" in heard.until("lost").text
    heard.until("restarted")
    until(lambda: bus.rms == pytest.approx(0.25))
