"""The exact texts that ACE-Step 1.5 was trained on. Line breaks and order are load-bearing.

    caption(...) -> what the text encoder reads     lyrics(...) -> what the lyric encoder reads

Source: ACE-Step 1.5's prompt templates and metadata string; diffusers' pipeline writes the same.
"""

from __future__ import annotations

from typing import Literal

Task = Literal["text2music", "cover", "repaint"]

INSTRUCTIONS: dict[Task, str] = {
    "text2music": "Fill the audio semantic mask based on the given conditions:",
    "cover": "Generate audio semantic tokens based on the given conditions:",
    "repaint": "Repaint the mask area based on the given conditions:",
}
TEXT_TOKENS, LYRIC_TOKENS = 256, 2048
#: Tempi and metres that the model knows; others are left out.
_BPM = range(30, 301)
_METRES = (2, 3, 4, 6)


def metas(bpm: float | None, beats: int | None, key: str, seconds: float) -> str:
    """Tempo, metre, key and length as the model reads them; what it does not know is N/A."""
    tempo = round(bpm) if bpm else 0
    rows = (
        ("bpm", str(tempo) if tempo in _BPM else "N/A"),
        ("timesignature", str(beats) if beats in _METRES else "N/A"),
        ("keyscale", key.strip() or "N/A"),
        # The text says whole seconds, whatever the latent's true length.
        ("duration", f"{int(seconds) if seconds > 0 else 30} seconds"),
    )
    return "".join(f"- {name}: {value}\n" for name, value in rows)


def caption(
    prompt: str,
    *,
    bpm: float | None = None,
    beats: int | None = None,
    key: str = "",
    seconds: float = 30.0,
    task: Task = "text2music",
) -> str:
    """The text branch: instruction, caption, metas."""
    metadata = metas(bpm, beats, key, seconds)
    head = f"# Instruction\n{INSTRUCTIONS[task]}\n\n# Caption\n{prompt}\n\n"
    return f"{head}# Metas\n{metadata}<|endoftext|>\n"


def lyrics(words: str, language: str = "unknown") -> str:
    """The lyric branch. Empty words: an instrumental."""
    return f"# Languages\n{language}\n\n# Lyric\n{words or '[Instrumental]'}<|endoftext|>"
