"""The source loops in patterns/loops: `python -m engines.imp.loops DIR`. One full arrangement a
genre, four bars.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engines.imp.score import Song, compose

LOOPS = (
    ("techno", 128),
    ("house", 124),
    ("electro", 130),
    ("breaks", 134),
    ("dnb", 174),
    ("dub", 120),
)


def full_song(genre: str, bpm: int) -> Song:
    """The first seed whose loop has drums, bass and chords, and nothing missing, dull or broken."""
    unwanted = {"lofi", "mono", "riser", "dark", "sparse", "vinyl"}
    for seed in range(5000, 9000):
        song = compose(seed, genre, bars=4, bpm=bpm)
        tags = set(song.tags)
        chords = tags & {"stab", "pad", "keys", "organ", "dub-chord", "strings"}
        if chords and not tags & unwanted and not any(tag.startswith("no-") for tag in tags):
            return song
    raise ValueError(f"no full {genre} loop among the seeds")


def main() -> None:
    """Write them as 16-bit FLAC."""
    import soundfile

    from demon_live.notes.voices import SR
    from engines.imp.render import Renderer

    folder = Path(sys.argv[1])
    renderer = Renderer()
    for genre, bpm in LOOPS:
        song = full_song(genre, bpm)
        (loop,) = renderer([song])
        path = folder / f"{genre}_{bpm}.flac"
        soundfile.write(path, loop.T.numpy(), SR, subtype="PCM_16")
        sys.stdout.write(f"{path} {path.stat().st_size} bytes: {', '.join(song.tags)}\n")


if __name__ == "__main__":
    main()
