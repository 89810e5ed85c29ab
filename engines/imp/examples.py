"""The examples: `python -m engines.imp.examples DIR [--weights CODEC,FLOW] [--seed 1]`.

Twelve prompts, two bars each, one seed for all and nothing chosen: spectrograms (30 Hz to 16 kHz,
log; 80 dB) in one picture, needs Pillow, and six of them as FLAC.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import condition, loop_frames
from engines.imp.evaluate import HERE, VOCABULARY, Ask, Imp
from engines.imp.training import say

PROMPTS = (
    ("techno", 132, "A minor", ("acid-line", "dark")),
    ("acid", 128, "F minor", ("acid-line",)),
    ("house", 124, "C minor", ("keys",)),
    ("deep-house", 120, "D minor", ("pad",)),
    ("electro", 128, "E minor", ()),
    ("breaks", 134, "G minor", ()),
    ("jungle", 168, "A minor", ("pad",)),
    ("dnb", 174, "F minor", ()),
    ("dub", 120, "C minor", ("dub-chord",)),
    ("ambient", 90, "D minor", ("pad",)),
    ("trance", 138, "A minor", ("bright",)),
    ("footwork", 160, "E minor", ()),
)
HEARD = ("techno", "house", "breaks", "dnb", "ambient", "trance")
BARS, WIDTH, HEIGHT = 2, 480, 240


def loop(model: Imp, latent: Tensor, bpm: float) -> Tensor:
    """The samples of the loop [2, n], its first 20 ms faded in from what lies past its end."""
    samples, fade = round(BARS * 240 / bpm * imp.SAMPLE_RATE), 960
    whole = model.decoder.decode_loop(latent[None])[0]
    y, past = whole[:, :samples].clone(), whole[:, samples : samples + fade]
    ramp = torch.linspace(0, 1, past.shape[1])
    y[:, : past.shape[1]] = y[:, : past.shape[1]] * ramp + past * (1 - ramp)
    return y


def picture(audio: Tensor) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH], low notes at the bottom."""
    mono = torch.nn.functional.pad(audio.mean(0), (4096, 4096))
    hop = audio.shape[1] // WIDTH
    s = torch.stft(
        mono, 8192, hop, window=torch.hann_window(8192), center=False, return_complex=True
    )
    f = 30 * (16_000 / 30) ** (torch.arange(HEIGHT) / (HEIGHT - 1))
    place = f / imp.SAMPLE_RATE * 8192
    low = place.long()
    level = s.abs()[:, :WIDTH]
    rows = torch.lerp(level[low], level[low + 1], (place - low)[:, None])
    db = 20 * torch.log10(rows + 1e-6)
    return ((db - db.max() + 80) / 80 * 255).clamp(0, 255).byte().flip(0).numpy()


def main() -> None:
    """Write them."""
    import soundfile
    from PIL import Image, ImageDraw

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default=f"{HERE},{HERE}", metavar="CODEC,FLOW")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    codec, flow = (Path(name) for name in options.weights.split(","))
    model = Imp(codec, flow, "cpu")
    options.folder.mkdir(parents=True, exist_ok=True)
    sheet = Image.new("L", (3 * (WIDTH + 8), 4 * (HEIGHT + 24)), 255)
    draw = ImageDraw.Draw(sheet)
    for i, (genre, bpm, key, tags) in enumerate(PROMPTS):
        cond = condition(
            VOCABULARY, {genre: 1.0, **dict.fromkeys(tags, 1.0)}, key=key, bpm=bpm, bars=BARS
        )
        (latent,) = model.sample([Ask(cond, BARS, bpm, options.seed)])
        assert len(latent) == loop_frames(BARS, bpm)
        audio = loop(model, latent, bpm)
        x, y = i % 3 * (WIDTH + 8), i // 3 * (HEIGHT + 24)
        draw.text((x + 4, y + 6), f"{', '.join((genre, *tags))} {key} {bpm} bpm", fill=0)
        sheet.paste(Image.fromarray(picture(audio)), (x, y + 22))
        if genre in HEARD:
            path = options.folder / f"{genre}.flac"
            soundfile.write(path, audio.T.numpy(), imp.SAMPLE_RATE, subtype="PCM_16")
    sheet.save(options.folder / "spectrograms.jpg", quality=80)
    say(f"{len(PROMPTS)} prompts in {options.folder}")


if __name__ == "__main__":
    main()
