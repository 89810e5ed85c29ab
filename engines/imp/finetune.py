"""Teach imp your loops: `python -m engines.imp.finetune FOLDER --out DIR [--name mine]
[--tags "techno, dark"] [--bpm 128] [--key "A minor"] [--steps 1500]`.

FOLDER holds loops of whole bars (WAV, FLAC, OGG, AIFF). The tempo is read from the file's name
(`bass_128.wav`, `pad 92 bpm.flac`) or given for all; tags and key come from the options, and every
known word in a file's name counts as a tag. Each loop is heard from many starting points. The flow
model alone learns, at a small rate, from these loops; the codec stays. DIR gets an engine of its
own (`mine.toml` and `mine/`): play it with `demon live SET --engine DIR/mine.toml`.

A GPU is used if there is one (a minute or two); on a CPU a step takes some seconds.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demon_live.models import conditioning
from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import condition, loop_frames
from engines.imp import bank as banks
from engines.imp.bank import FRAMES, Bank
from engines.imp.train_flow import Training
from engines.imp.training import say

HERE = Path(__file__).parent
KINDS = (".wav", ".flac", ".ogg", ".aif", ".aiff")
SUFFIX = re.compile(r"(?<![0-9])([0-9]{2,3}(?:\.[0-9]+)?)(?![0-9])")
STARTS = 8
"""Starting points that each loop is heard from."""
TIMBRE = 0.3
"""Share of the rows that get a timbre reference, if the shipped weights know one."""


class Refused(Exception):
    """A file or folder that cannot be learnt from, and why."""


def tempo(path: Path, given: float | None) -> float:
    """Beats a minute of a loop: as given, or the last number from 50 to 220 in its name."""
    if given:
        return given
    found = [float(text) for text in SUFFIX.findall(path.stem) if 50 <= float(text) <= 220]
    if not found:
        raise Refused(f"{path.name}: no tempo in its name; write it there (x_128.wav) or --bpm 128")
    return found[-1]


def read(path: Path) -> Tensor:
    """A loop as float32 [2, n] at 48 kHz."""
    import soundfile
    import soxr

    x, rate = soundfile.read(path, dtype="float32", always_2d=True)
    x = soxr.resample(x, rate, imp.SAMPLE_RATE) if rate != imp.SAMPLE_RATE else x
    x = np.repeat(x, 2, 1)[:, :2] if x.shape[1] == 1 else x[:, :2]
    return torch.from_numpy(np.ascontiguousarray(x.T))


def bars_of(path: Path, audio: Tensor, bpm: float) -> int:
    """Whole bars of four beats that a loop lasts. Refused: it does not, or is over 16 s."""
    bars = audio.shape[1] / imp.SAMPLE_RATE * bpm / 240
    if round(bars) < 1 or abs(bars - round(bars)) > 0.02 * bars:
        raise Refused(f"{path.name}: {bars:.2f} bars at {bpm:g} bpm; cut it to whole bars")
    if imp.loop_frames(round(bars), bpm) > FRAMES:
        raise Refused(f"{path.name}: {audio.shape[1] / imp.SAMPLE_RATE:.1f} s; at most 16 s")
    return round(bars)


@torch.no_grad()
def gather(options: argparse.Namespace) -> Bank:
    """All loops of the folder as a bank; what is refused is said and left out."""
    lexicon = conditioning.load_lexicon(HERE / "tags.toml")
    encoder, _ = imp.load_codec(HERE / "codec.safetensors")
    asked = conditioning.read(options.tags, lexicon)
    for unknown in asked.unknown:
        say(f"--tags: {unknown.word!r} is not known; near: {', '.join(unknown.near) or 'nothing'}")
    rows: list[tuple[Tensor, Tensor, float, int, float, Tensor]] = []
    draw = np.random.RandomState(0)
    for path in sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in KINDS):
        try:
            bpm, audio = tempo(path, options.bpm), read(path)
            bars = bars_of(path, audio, bpm)
        except (Refused, RuntimeError) as problem:
            say("left out:", problem)
            continue
        named = conditioning.read(re.sub(r"[_\-.0-9]+", " ", path.stem), lexicon)
        tags = {**named.tags, **asked.tags}
        key = options.key or asked.key or named.key or None
        cond = condition(lexicon.vocabulary, tags, key=key, bpm=bpm, bars=bars)
        sound = banks.sounds(audio, random.Random(path.name)).half()
        for turn in range(STARTS):
            start = 0 if turn == 0 else int(draw.randint(audio.shape[1]))
            latent = banks.encode(encoder, [audio], [start])
            offset = start / imp.SAMPLE_RATE * bpm / 240
            rows.append((latent[0].half(), torch.from_numpy(cond), bpm, bars, offset, sound))
        say(f"{path.name}: {bars} bars at {bpm:g} bpm, {', '.join(tags) or 'no tags'}")
    if not rows:
        raise Refused(f"{options.folder}: no loop to learn from")
    latent = torch.stack([row[0] for row in rows])
    both = latent[:, None, None].expand(-1, banks.TURNS, 2, -1, -1).contiguous()
    bpm_, bars_ = (torch.tensor([float(row[i]) for row in rows]) for i in (2, 3))
    offset_ = torch.tensor([[row[4]] * banks.TURNS for row in rows])
    frames = torch.tensor([min(FRAMES, loop_frames(row[3], row[2])) for row in rows])
    crossed = torch.zeros(len(rows), dtype=torch.bool)
    cond_ = torch.stack([row[1] for row in rows])
    alone = torch.zeros(len(rows), dtype=torch.long)
    sound = torch.stack([row[5] for row in rows])
    timbre = sound[:, None].expand(-1, 2, -1, -1).contiguous()
    # Nobody knows the notes of a recording: the flow model goes on untold.
    untold = torch.zeros(len(rows), banks.TURNS, FRAMES, imp.LANES).half()
    return Bank(both, cond_, cond_, bpm_, bars_, frames, crossed, offset_, alone, timbre, untold)


def learn(bank: Bank, options: argparse.Namespace) -> imp.ImpFlow:
    """The shipped flow model after `options.steps` updates."""
    shipped = imp.load_flow(HERE / "flow.safetensors")
    # With what the shipped weights know: their graph is copied.
    options.timbre = TIMBRE if shipped.timbre is not None else 0.0
    options.lanes = shipped.lanes is not None
    options.channels, options.depth = shipped.channels, len(shipped.blocks)
    options.linear, options.detail = shipped.linear is not None, 1.0
    training = Training(bank.to(options.device), options)
    training.flow.load_state_dict(shipped.state_dict())
    for count in range(options.steps):
        share = count / options.steps
        training.optimiser.rate(options.rate * min(1.0, (count + 1) / 20) * min(1.0, 2 - 2 * share))
        training.step()
        if count in (0, 9) or count % 100 == 99 or count == options.steps - 1:
            say(f"step {count + 1} of {options.steps}")
    return training.flow.cpu()


def install(flow: imp.ImpFlow, options: argparse.Namespace) -> Path:
    """DIR/NAME.toml and DIR/NAME/: an engine like imp with another flow model, sealed."""
    from demon_live.models.manifest import seal

    folder = options.out / options.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("codec.safetensors", "decoder.onnx", "flow.onnx", "tags.toml"):
        shutil.copy(HERE / name, folder / name)
    imp.save_half(folder / "flow.safetensors", flow=flow)
    text = (HERE.parent / "imp.toml").read_text()
    text = text.replace('name = "imp"', f'name = "{options.name}"', 1)
    text = text.replace('folder = "imp"', f'folder = "{options.name}"', 1)
    path: Path = options.out / f"{options.name}.toml"
    path.write_text(text)
    seal(path)
    return path


def main() -> int:
    """Learn and write the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="mine")
    parser.add_argument("--tags", default="")
    parser.add_argument("--bpm", type=float)
    parser.add_argument("--key", default="")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.init, options.guidance = None, 0.0
    torch.manual_seed(0)
    try:
        path = install(learn(gather(options), options), options)
    except Refused as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    say(f"play it: demon live SET --engine {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
