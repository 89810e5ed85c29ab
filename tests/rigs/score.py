"""The set that the rigs play: a metronome left, a drone and a deck where everything moves right.

125 bpm, so that a beat is a whole number of samples (23,040) and of latent frames (12).

Threads: pure functions.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile

__all__ = ["PERIOD", "moving", "write"]

PERIOD = 23_040
_LOOPS = Path(__file__).resolve().parents[2] / "patterns" / "loops"

METRONOME = """\
tempo 125
deck metronome {
  loop 2
  source "click.wav"
  prompt = 'minimal techno'
  denoise = .1
  gain = .4
  pan = -1
}
deck drone {
  loop 2
  source "drone.wav"
  prompt = 'ambient, pad, no-drums'
  denoise = .1
  gain = .5
  pan = 1
}
"""
#: Each line moves at another pace, so that no two laps are alike.
MOVING = """\
deck moving {{
  loop 4
  source "house.flac"
  prompt = "<'deep house, organ' 'acid, 303' 'dub chord, delay'>/{fast}"
  prompt2 = "<'ambient, pad' 'breaks, fill'>/8"
  prompt_mix = tri.slow({slow}).range(0, .7)
  denoise = "<.4 .6 .8 1>/{fast}"
  seed = irand(8).slow({fast})
  shift = "<2 3 4>/4"
  blend = perlin.slow(2).range(.2, 1)
  velocity = saw.fast({fast}).range(.8, 1.2)
  noise = "0 .2 [0 .4]*2".smooth(.1)
  morph = tri.slow(8) * .5
  momentum = sine.slow(3) * .3
  energy = square.range(.8, 1.2)
  hint = sine.slow(5) * .5
  init = square.range(.6, 1)
  feedback = "<0 .3>/2"
  key = "<'A minor' 'C major'>/{slow}"
  gain = "{gain} .3 .4 .35"
  pan = 1
  lpf = saw.slow(4).rangex(400, 12000)
  hpf = "<20 20 20 300>"
}}
"""


def moving(turn: int) -> str:
    """The deck where everything moves, another version each turn."""
    return MOVING.format(fast=2 + turn % 3, slow=4 + turn % 5, gain=(".4", ".45", ".35")[turn % 3])


def write(folder: Path) -> list[Path]:
    """Sources and two scores in `folder`: the metronome's, and the one that will be edited."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "click.wav", _clicks(), 48_000, subtype="PCM_24")
    soundfile.write(folder / "drone.wav", _drone(), 48_000, subtype="PCM_24")
    shutil.copyfile(_LOOPS / "house_124.flac", folder / "house.flac")
    steady, edited = folder / "steady.demon", folder / "moving.demon"
    steady.write_text(METRONOME)
    edited.write_text(moving(0))
    return [steady, edited]


def _clicks() -> np.ndarray:
    """Eight beats, each a sweep that falls from 900 to 120 Hz in 60 ms: one place fits only."""
    t = np.arange(4800) / 48_000
    hz = 120 + 780 * np.exp(-t / 0.02)
    pulse = np.sin(2 * np.pi * np.cumsum(hz) / 48_000) * np.exp(-t / 0.035)
    pulse[:24] *= np.linspace(0, 1, 24)
    loop = np.zeros(8 * PERIOD)
    for beat in range(8):
        loop[beat * PERIOD : beat * PERIOD + len(pulse)] = 0.5 * pulse
    return np.stack((loop, loop), 1)


def _drone() -> np.ndarray:
    """A chord whose parts all close after eight beats."""
    n = 8 * PERIOD
    t = np.arange(n) / n
    parts = [np.sin(2 * np.pi * round(hz * n / 48_000) * t) for hz in (110, 165, 220, 277)]
    chord = 0.12 * np.sum(parts, 0)
    return np.stack((chord, chord), 1)
