"""Inputs that are files, what `--input` says, and the input in the mix."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.audio.devices import parse_input
from demon_live.audio.files import write_audio
from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.sound_input import ALWAYS, FileInput, InputRing, sound_input
from demon_live.core import Floats, Loop, MixDeck, MixPoints, MixState
from demon_live.errors import FileError, UsageError

LAP = 9600


def noise(seed: int, samples: int = LAP) -> Floats:
    return np.asarray(np.random.default_rng(seed).uniform(-0.25, 0.25, (samples, 2)), np.float32)


def test_sample_i_of_a_file_is_sample_i_of_the_mix(tmp_path: Path) -> None:
    sound = noise(1)
    write_audio(tmp_path / "in.wav", sound)
    heard = FileInput(tmp_path / "in.wav")
    assert heard.end() == ALWAYS
    assert (heard.read(100, 700) == sound[100:700]).all()
    behind = heard.read(LAP - 10, LAP + 10)
    assert (behind[:10] == sound[-10:]).all()
    assert not behind[10:].any()
    assert not heard.read(-20, 0).any()
    assert heard.holes(0, 10 * LAP) == []
    heard.nudge = 10.0
    assert (heard.read(580, 1180) == sound[100:700]).all()


def test_mono_is_doubled_and_the_level_is_that_of_the_ear(tmp_path: Path) -> None:
    write_audio(tmp_path / "in.wav", np.full(LAP, 0.5, np.float32))
    heard = FileInput(tmp_path / "in.wav")
    assert heard.status(4800).state == "closed"
    heard.want(True)
    status = heard.status(4800)
    assert (status.state, status.peak, status.rms) == ("open", 0.5, 0.5)
    assert status.peak_db == pytest.approx(-6.02, abs=0.01)
    assert heard.status(2 * LAP).peak_db == pytest.approx(-120)


def test_what_input_names(tmp_path: Path) -> None:
    write_audio(tmp_path / "in.wav", noise(1))
    assert sound_input(None, tmp_path) is None
    assert sound_input("none", tmp_path) is None
    assert isinstance(sound_input(f"file:{tmp_path / 'in.wav'}", tmp_path), FileInput)
    assert isinstance(sound_input("scarlett#3", tmp_path), InputRing)
    assert (tmp_path / "input").stat().st_size == 4096
    assert not (tmp_path / "input.pcm").exists()  # nothing is kept until it is wanted
    with pytest.raises(FileError, match="there is no file"):
        sound_input("file:nothing.wav", tmp_path)
    assert parse_input("hw:0,0") == ("hw:0,0", ())
    assert parse_input("desk #3,4") == ("desk", (3, 4))
    for wrong in ("desk#", "desk#0", "desk#a", "desk#1,2,3"):
        with pytest.raises(UsageError, match="one or two channels"):
            parse_input(wrong)


def state(out: int = 1, **points: MixPoints) -> MixState:
    decks = {}
    for n, name in enumerate(("a", "b")):
        loop = Loop(1, name, 0, Fraction(0), Fraction(LAP), 4, Fraction(120), 4, 5)
        decks[name] = MixDeck((loop,), 1, points if n == 0 else {}, out=out if n else 1)
    return MixState(decks)


def mixer(state: MixState, stems: bool = False) -> Mixer:
    mixer = Mixer(startup=0.0, stems=stems)
    mixer.apply(state, lambda loop: noise(2 if loop.deck == "a" else 3) * np.float32(0.5))
    return mixer


def test_thru_adds_the_input_to_its_deck_on_the_sample() -> None:
    played = noise(4, 4 * LAP)
    at = 4800 + 7
    steps = MixPoints(np.array([0, at, at + 1]), np.array([0.0, 0.0, 0.5], np.float32))
    dry, wet = mixer(state(), stems=True), mixer(state(thru=steps), stems=True)
    wet.input = lambda a, n: played[a : a + n]
    (_, without), (_, heard) = dry.render_stems(20), wet.render_stems(20)
    added = heard["a"] - without["a"]
    assert not added[: at + 1].any()
    assert added[at + 1].any()
    settled = slice(at + 1000, 9600)
    assert np.allclose(added[settled], played[settled] * 0.5, atol=1e-6)
    assert (heard["b"] == without["b"]).all()


def test_without_thru_the_input_is_not_even_read() -> None:
    one, other = mixer(state()), mixer(state())
    one.input = lambda a, n: pytest.fail("it was read")
    assert (one.render(4) == other.render(4)).all()


def test_decks_go_to_their_channels_and_the_mix_stays_that_of_all() -> None:
    whole, apart = mixer(state(), stems=True), mixer(state(out=3), stems=True)
    apart.open_outs(4)
    for _ in range(10):
        (mix, _), (same, stems) = whole.render_stems(), apart.render_stems()
        assert (mix == same).all()
        assert apart.out is not None
        assert apart.out.shape == (BLOCK, 4)
        assert np.allclose(apart.out[:, :2], stems["a"], atol=1e-6)
        assert np.allclose(apart.out[:, 2:], stems["b"], atol=1e-6)
        assert np.allclose(apart.out[:, :2] + apart.out[:, 2:], mix, atol=1e-6)


def test_a_pair_that_the_device_lacks_is_the_first() -> None:
    whole, apart = mixer(state()), mixer(state(out=7))
    apart.open_outs(4)
    mix = whole.render()
    apart.render()
    assert apart.out is not None
    assert (apart.out[:, :2] == mix).all()
    assert not apart.out[:, 2:].any()
    apart.open_outs(2)
    apart.render()
    assert apart.out is None
