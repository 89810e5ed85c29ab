"""Words that begin statements, and what players of other languages call them.

Threads: constants and pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from demon_live.controls import SETTINGS

__all__ = ["ALIASES", "KEYWORDS", "PERFORMANCE", "closest"]

#: Performance words and one line of help.
PERFORMANCE: dict[str, str] = {
    "hush": "Silence on every deck at once (10 ms fade).",
    "panic": "hush, and the engine starts anew: transitions are forgotten.",
    "mute": "Silence one deck: mute drums.",
    "unmute": "Take back a mute.",
    "solo": "Only this deck sounds.",
    "unsolo": "All decks sound again.",
    "undo": "Back to the score before the last change.",
    "redo": "Forward again after an undo.",
    "record": "Record the set, its sound and the files that it names: record friday.",
    "stop": "End the recording.",
    "save": "Write what is playing now as a score: save NAME.",
    "load": "Play a score from a file: load FILE.",
    "snapshot": "Keep all that plays now under a name: snapshot calm.",
    "recall": "Back to a snapshot, also over cycles: recall calm over 4.",
    "crossfade": "Put two decks on the sides of the fader; alone, take them off: crossfade a b.",
    "learn": "Bind the next knob that moves to a control: learn blend.",
}
#: Words that begin a statement and are no control.
KEYWORDS = ("deck", "scene", "let", "go", "chain", "fader", *SETTINGS, *PERFORMANCE)
#: Words of other languages and trades -> ours.
ALIASES: dict[str, str] = {
    "bpm": "tempo",
    "setbpm": "tempo",
    "speed": "tempo",
    "setcps": "cps",
    "setcpm": "tempo",
    "volume": "gain",
    "vol": "gain",
    "amp": "gain",
    "level": "gain",
    "cutoff": "lpf",
    "lowpass": "lpf",
    "highpass": "hpf",
    "hcutoff": "hpf",
    "panning": "pan",
    "guidance": "guide",
    "cfg_scale": "guide",
    "strength": "denoise",
    "denoising": "denoise",
    "text": "prompt",
    "silence": "hush",
    "unmuteall": "unsolo",
    "length": "loop",
    "sample": "source",
    "input": "source",
    "scale": "key",
    "vocals": "lyrics",
    "voice": "lyrics",
    "words": "lyrics",
}


def closest(word: str, words: Iterable[str]) -> str | None:
    """The known word that was surely meant: an alias, or one that differs in a letter or two."""
    known = set(words)
    low = word.lower()
    if ALIASES.get(low) in known:
        return ALIASES[low]
    if low in known:
        return low
    # No word of ours is that long; comparing would take time for nothing.
    if len(low) > 64:
        return None
    ratios = ((SequenceMatcher(None, low, w.lower()).ratio(), w) for w in sorted(known))
    ratio, best = max(ratios, default=(0.0, ""))
    # Short words are near to everything: ask more of them.
    least = 0.62 if len(low) > 4 else 0.7
    return best if ratio >= least else None
