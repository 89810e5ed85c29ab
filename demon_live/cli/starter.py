"""`demon new NAME`: a folder with a set to start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from demon_live.errors import FileError, UsageError
from demon_live.paths import shipped
from demon_live.ui import show

#: The shipped loop that a new set begins with, and its tempo; it finds the others by name.
LOOP, TEMPO = "techno_128.flac", 128

_SCORE = """\
# {name}: change a number and save; it is heard at the next bar.
tempo {tempo}
loop 4                            # bars in the loop that the model makes anew
source "loops/{loop}"  # what is transformed; `source none` starts from noise

prompt  = 'deep techno, pad'      # what it should sound like
denoise = "<.4 .55 .7 .55>/2"     # how far from the loop: 0 is the loop, 1 is all new
blend   = sine.slow(4).range(.4, 1)

# Words and scenes of your own. At the prompt: go peak, or go calm over 8
let swell(n) = sine.slow(n).range(.3, 1)

scene calm {{
  denoise = .45
  blend   = swell(8)
  lpf     = 3000
}}

scene peak {{
  denoise = "<.7 .9>"
  blend   = swell(2)
  lpf     = 20000
}}
"""

_README = """\
# {name}

    demon live {folder}           play every score in this folder; save one and it is heard
    demon live {folder} --stage   the same on a whole screen (F1 helps)
    demon check {folder}          what is wrong, and where
    demon render {score} -o {name}.wav --cycles 64

- `{file}` is the score. Further `*.demon` files in this folder play beside it, each for the deck
  that it names (`deck drums` in its first line). A file whose name begins with `_` is muted.
- `loops/` holds what is transformed: put your own WAV or FLAC there and name it with `source`.
  The tempo of the score is the tempo that it is brought to. These come with demon and are found
  by name from anywhere, as `source "loops/NAME"`: {others}.
- At the prompt: `record friday` writes a set, `stop` ends it; `demon replay friday` plays it again.
- `?` lists every word, `?blend` explains one, `tour` shows them at work.
"""


def new(path: Path) -> show.Pieces:
    """Make the folder `path` with a set in it; overwrite nothing. Raises UsageError, FileError."""
    if not path.name or path.name.startswith((".", "_", "-")):
        raise UsageError(f"{str(path)!r} is no name for a set", hint="demon new friday")
    if os.path.exists(path):
        hint = f"play it: demon live {path}" if path.is_dir() else "choose another name"
        raise FileError(f"{path} exists already", hint=hint)
    loops = shipped("patterns") / "loops"
    score = path / f"{path.name.replace(' ', '_')}.demon"
    words = {
        "name": path.name,
        "folder": _quoted(str(path)),
        "score": _quoted(str(score)),
        "file": score.name,
        "loop": LOOP,
        "tempo": str(TEMPO),
        "others": ", ".join(sorted(p.name for p in loops.glob("*.flac") if p.name != LOOP)),
    }
    try:
        (path / "loops").mkdir(parents=True)
        for name in (LOOP, "LICENCE.txt"):
            shutil.copy(loops / name, path / "loops" / name)
        score.write_text(_SCORE.format(**words), encoding="utf-8")
        (path / "README.md").write_text(_README.format(**words), encoding="utf-8")
    except OSError as error:
        raise FileError(f"{error.filename or path}: {error.strerror or error}") from None
    return [
        ("reply", f"{path}"),
        ("", f": {score.name}, README.md, loops/{LOOP}\n"),
        ("hint", f"play it: demon live {words['folder']}\n"),
    ]


def _quoted(word: str) -> str:
    """`word` as a shell takes it."""
    return f"'{word}'" if " " in word else word
