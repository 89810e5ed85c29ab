"""How far does the engine move a recording? Similarity of output and source against denoise.

    python tests/bench/transform.py SOURCE.wav [--prompt '...'] [--denoise .3 .6 .9] [--keep DIR]

For each value of denoise a score is rendered that does nothing but transform SOURCE. Printed per
row, against the source as it was fitted to the loop (denoise 0, the codec alone, stands first):
    mel      correlation of log-mel spectrograms (64 bands, 40 ms), 1 = the same
    mel L1   mean difference of log10 mel power
    onsets   F-measure of onsets within 50 ms of the source's, 1 = the same rhythm
    si-sdr   of the waveform, dB
"""

from __future__ import annotations

import argparse
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demon_live.audio.files import fit_loop, load_source
from demon_live.models.engine import open_engine
from demon_live.replay.render import render
from demon_live.session.tempo import samples_per_cycle

Array = NDArray[np.float64]
RATE = 48_000


def mel_bank(bands: int, size: int) -> Array:
    """Triangles on the mel scale, float64 [bands, size // 2 + 1], 40 Hz to 16 kHz."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([40.0, 16_000.0]) / 700)), bands + 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    freqs = np.fft.rfftfreq(size, 1 / RATE)
    up = (freqs - hz[:-2, None]) / np.diff(hz)[:-1, None]
    down = (hz[2:, None] - freqs) / np.diff(hz)[1:, None]
    return np.maximum(0, np.minimum(up, down))


def log_mel(audio: Array, hop: int = 1920, size: int = 4096) -> Array:
    """log10 mel power of mono audio, [frames, 64]."""
    padded = np.pad(audio, (0, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: len(audio) // hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    return np.log10(power @ mel_bank(64, size).T + 1e-4)


def onset_times(audio: Array) -> Array:
    """Seconds of onsets: peaks of the positive log-mel flux (10 ms) above the local mean."""
    flux = np.maximum(0, np.diff(log_mel(audio, 480, 1024), axis=0)).sum(1)
    local = np.convolve(flux, np.ones(41) / 41, "same")
    peak = (flux > np.roll(flux, 1)) & (flux >= np.roll(flux, -1)) & (flux > 1.5 * local + 0.5)
    return np.flatnonzero(peak) * 0.01


def f_measure(got: Array, wanted: Array, within: float = 0.05) -> float:
    """Harmonic mean of precision and recall of onsets, each matched at most once."""
    if not len(got) or not len(wanted):
        return 0.0
    left = list(got)
    hits = 0
    for t in wanted:
        near = min(left, key=lambda g: abs(g - t), default=None)
        if near is not None and abs(near - t) <= within:
            left.remove(near)
            hits += 1
    return 2 * hits / (len(got) + len(wanted))


def si_sdr(got: Array, wanted: Array) -> float:
    """Scale-invariant signal-to-distortion ratio, dB."""
    scale = float(got @ wanted) / float(wanted @ wanted)
    error = got - scale * wanted
    return float(10 * np.log10(scale**2 * (wanted @ wanted) / max(float(error @ error), 1e-12)))


def compare(got: Array, source: Array) -> dict[str, float]:
    a, b = log_mel(got), log_mel(source)
    return {
        "mel": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        "mel_l1": float(np.abs(a - b).mean()),
        "onsets": f_measure(onset_times(got), onset_times(source)),
        "si_sdr": si_sdr(got, source),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--prompt", default="acid techno, 303")
    parser.add_argument("--denoise", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    parser.add_argument("--tempo", default="120")
    parser.add_argument("--loop", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="folder for the renders")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    bpm = Fraction(args.tempo)
    lap = round(args.loop * samples_per_cycle(bpm, 4))
    audio, _ = load_source(args.source)
    fitted, info = fit_loop(
        audio, lap_samples=lap, cycles=args.loop, beats=4, bpm=bpm, name=args.source.name
    )
    source = fitted.mean(1).astype(np.float64)
    engine = open_engine("imp")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / args.source.name).write_bytes(args.source.read_bytes())
        for denoise in [0.0, *args.denoise]:
            score = Path(folder) / "x.demon"
            score.write_text(
                f'tempo {args.tempo}\nloop {args.loop}\nsource "{args.source.name}"\n'
                f"prompt = '{args.prompt}'\ndenoise = {denoise}\n"
            )
            out = args.keep / f"{args.source.stem}-{denoise:g}.wav" if args.keep else None
            # The second lap: by then every sample of the loop has been placed from the ring.
            done = render(score, out, cycles=2 * args.loop, engine=engine).audio
            rows.append({"denoise": denoise, **compare(done[lap : 2 * lap].mean(1), source)})
    if args.json:
        print(json.dumps({"source": args.source.name, "info": info, "rows": rows}))  # noqa: T201
        return
    print(f"{args.source.name}: {info}; prompt {args.prompt!r}")  # noqa: T201
    print("denoise   mel   mel L1  onsets  si-sdr")  # noqa: T201
    for r in rows:
        line = (r["denoise"], r["mel"], r["mel_l1"], r["onsets"], r["si_sdr"])
        print("{:7.2f} {:6.2f} {:7.3f} {:7.2f} {:7.1f}".format(*line))  # noqa: T201


if __name__ == "__main__":
    main()
