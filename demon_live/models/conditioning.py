"""Free text -> tags with weights, a key, and unknown words: what imp understands of a prompt.

    read("acid techno, 303:1.5, in A minor", lexicon) -> PromptReading
    prepare(...)                                      -> Condition: arrays of two prompts at a tempo

A prompt is cut into words; the longest run of words that the lexicon knows wins ("dub techno"
before "techno"). Case, hyphens, plurals and apostrophes do not matter. `word:1.5` weighs, `no word`
takes away. An unknown word that is spelled nearly like a known one is taken for it, with a
note; any other is named with its near ones (nearness: cosine of character n-grams). Tempo words are
left to `tempo`.

Needs numpy only, no torch. All classes are immutable.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from demon_live.core import Floats
from demon_live.errors import EngineError
from demon_live.models.imp import labels as imp_labels
from demon_live.models.imp.labels import Vocabulary
from demon_live.models.manifest import load_manifest

#: A misspelt word is taken for a known one from this likeness on; under it, it is only mentioned.
SURE, MENTION = 0.6, 0.25
#: Short words are like too many others to be guessed.
GUESSABLE = 5
MAX_WEIGHT = 2.0
_IDLE = frozenset(
    """a an the and or of with in at on to for by from into over under is it its this that my be
    very some more just only quite kind like style styled music track song tune mix sound
    sounds sounding vibe vibes feel feeling loop loops beat beats tempo key bpm please make playing
    featuring plus""".split()  # noqa: SIM905 (forty quoted words are harder to read)
)
_WITHOUT = frozenset(("no", "without", "not", "minus"))
_WORD = re.compile(r"[^\s,;:+|()\[\]\"“”]+(?::[0-9]*\.?[0-9]+)?|[,;+|]")
_WEIGHT = re.compile(r"^(.+):([0-9]*\.?[0-9]+)$")
_BPM = re.compile(r"^[0-9]{2,3}(\.[0-9]+)?(bpm)?$", re.IGNORECASE)
_SHORT_KEY = re.compile(r"^([A-G])([#♯b♭]?)(m|min|maj|M)$|^([A-G][#♯b♭])$")
_NOTE = re.compile(r"^[A-Ga-g]([#♯b♭]|-?sharp|-?flat)?$")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A word that no tag stands for. near: known words that are spelled like it."""

    word: str
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptReading:
    """What a prompt says. tags: weight of each. key: 'A minor', or '' when none is named.

    known: words as understood, in order. guessed: (word, the known word it was taken for).
    """

    tags: Mapping[str, float] = field(default_factory=dict)
    key: str = ""
    known: tuple[str, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    guessed: tuple[tuple[str, str], ...] = ()


def squash(text: str) -> str:
    """The form in which words are compared: 'Hi-Hats' -> 'hihats', 'd&b' -> 'dandb'."""
    return re.sub(r"[\s\-_'’`./]+", "", text.lower().replace("&", "and"))


def _singulars(word: str) -> Iterable[str]:
    if len(word) > 4 and word.endswith("ies"):
        yield word[:-3] + "y"
    if len(word) > 4 and word.endswith("es"):
        yield word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]


def _grams(word: str) -> dict[str, float]:
    """Character n-grams (2 and 3) of a squashed word with its ends marked, of unit length."""
    text = f"^{word}$"
    counts: dict[str, float] = {}
    for size in (2, 3):
        for start in range(len(text) - size + 1):
            gram = text[start : start + size]
            counts[gram] = counts.get(gram, 0.0) + 1.0
    norm = sum(value * value for value in counts.values()) ** 0.5 or 1.0
    return {gram: value / norm for gram, value in counts.items()}


class Lexicon:
    """A vocabulary, made ready for look-up. Immutable once built."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.by_form: dict[str, str] = {}
        for word in vocabulary.synonyms:
            self.by_form.setdefault(squash(word), word)
        self.longest = max((len(re.split(r"[\s-]+", w)) for w in vocabulary.synonyms), default=1)

    def find(self, phrase: str) -> str | None:
        """The known word that `phrase` is, or None."""
        form = squash(phrase)
        for candidate in (form, *_singulars(form), form + "s"):
            if candidate in self.by_form:
                return self.by_form[candidate]
        return None

    @functools.cached_property
    def _matrix(self) -> tuple[list[str], dict[str, int], Floats]:
        """Known words, n-gram -> column, unit rows float32 [words, columns]."""
        forms = list(self.by_form)
        rows = [_grams(form) for form in forms]
        columns = {gram: i for i, gram in enumerate(sorted(set().union(*rows)))}
        matrix = np.zeros((len(forms), len(columns)), np.float32)
        for i, row in enumerate(rows):
            for gram, value in row.items():
                matrix[i, columns[gram]] = value
        return [self.by_form[form] for form in forms], columns, matrix

    def near(self, word: str, n: int = 3) -> list[tuple[str, float]]:
        """The n known words spelled most like `word`, with their likeness 0..1, best first."""
        known, columns, matrix = self._matrix
        query = np.zeros(len(columns), np.float32)
        for gram, value in _grams(squash(word)).items():
            if gram in columns:
                query[columns[gram]] = value
        scores = matrix @ query
        best = np.argsort(-scores, kind="stable")[:n]
        return [(known[i], float(scores[i])) for i in best if scores[i] >= MENTION]


@functools.lru_cache(maxsize=8)
def load_lexicon(path: Path) -> Lexicon:
    """The lexicon of a tags.toml. Raises EngineError if it is damaged."""
    try:
        return Lexicon(imp_labels.load_vocabulary(path))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise EngineError(f"the lexicon cannot be read: {error}", name=str(path)) from None


def lexicon_of(engine: str) -> Lexicon | None:
    """The lexicon of an engine, without opening it: for checking and completion. None if it reads
    free text and has no list of words."""
    manifest = load_manifest(engine)
    if all(weight.file != "tags.toml" for weight in manifest.weights):
        return None
    return load_lexicon(manifest.file("tags.toml"))


def words(engine: str = "imp") -> list[str]:
    """All words and phrases that an engine's prompts know, sorted: for completion."""
    lexicon = lexicon_of(engine)
    return sorted(lexicon.vocabulary.synonyms) if lexicon is not None else []


# ------------------------------------------------------------------------------------------ reading


class _Reader:
    """Walks over the words of one prompt."""

    def __init__(self, text: str, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.words: list[str] = []
        self.weights: list[float | None] = []
        for token in _WORD.findall(text):
            found = _WEIGHT.match(token)
            # A full stop ends a sentence; inside a word or number it stays.
            self.words.append((found[1] if found else token).strip(".!?"))
            self.weights.append(min(float(found[2]), MAX_WEIGHT) if found else None)
        self.tags: dict[str, float] = {}
        self.dropped: set[str] = set()
        self.key = ""
        self.known: list[str] = []
        self.unknown: list[Unknown] = []
        self.guessed: list[tuple[str, str]] = []

    def reading(self) -> PromptReading:
        i = 0
        while i < len(self.words):
            i += self._tempo(i) or self._key(i) or self._phrase(i) or self._single(i)
        tags = {tag: weight for tag, weight in self.tags.items() if tag not in self.dropped}
        return PromptReading(
            tags, self.key, tuple(self.known), tuple(self.unknown), tuple(self.guessed)
        )

    def _tempo(self, i: int) -> int:
        """Words taken by a tempo ('128 bpm', '128bpm'): it is set by `tempo`, not by the prompt."""
        word = self.words[i].lower()
        if not _BPM.match(word):
            return 0
        if word.endswith("bpm"):
            return 1
        return 2 if self.words[i + 1 : i + 2] and self.words[i + 1].lower() == "bpm" else 0

    def _key(self, i: int) -> int:
        """Words taken by a key: 'A minor', 'F sharp minor', 'Am', 'F#'."""
        modes = self.lexicon.vocabulary.modes
        for length in (3, 2):
            *note, mode = self.words[i : i + length]
            if len(note) != length - 1 or not _NOTE.match("-".join(note)):
                continue
            name = "-".join(note).lower().replace("-sharp", "#").replace("-flat", "b")
            name = name.replace("sharp", "#").replace("flat", "b")
            try:
                if mode.lower() in (*modes, "min", "maj", "aeolian", "ionian"):
                    return self._take_key(f"{name} {mode.lower()}", length)
            except ValueError:
                continue
        found = _SHORT_KEY.match(self.words[i])
        if not found:
            return 0
        mode = "major" if found[3] in ("maj", "M") else "minor"
        return self._take_key(f"{found[4] or found[1] + found[2]} {mode}", 1)

    def _take_key(self, text: str, length: int) -> int:
        imp_labels.parse_key(text, self.lexicon.vocabulary.modes)
        self.key = text[0].upper() + text[1:]
        self.known.append(self.key)
        return length

    def _phrase(self, i: int) -> int:
        """Words taken by the longest known phrase that begins here."""
        for length in range(min(self.lexicon.longest, len(self.words) - i), 0, -1):
            piece, weights = self.words[i : i + length], self.weights[i : i + length]
            # A phrase ends at a comma, and at a word that has a weight of its own.
            if any(word in ",;+|" for word in piece) or any(w is not None for w in weights[:-1]):
                continue
            known = self.lexicon.find(" ".join(piece))
            if known and not (length == 1 and piece[0].lower() in _IDLE):
                self._hear(known, weights[-1], i)
                return length
        return 0

    def _hear(self, known: str, given: float | None, i: int) -> None:
        weight = 1.0 if given is None else given
        negated = i > 0 and self.words[i - 1].lower() in _WITHOUT
        synonyms = self.lexicon.vocabulary.synonyms[known]
        if negated:
            self.dropped.update(synonyms)
            self.known.append(f"no {known}")
            return
        for tag, share in synonyms.items():
            self.tags[tag] = max(self.tags.get(tag, 0.0), weight * share)
        self.known.append(known if weight == 1.0 else f"{known}:{weight:g}")

    def _single(self, i: int) -> int:
        """A word that is no part of a known phrase: idle, misspelt or unknown."""
        word = self.words[i]
        if not squash(word) or word in ",;+|" or word.lower() in _IDLE | _WITHOUT:
            return 1
        parts = [part for part in re.split(r"[-/_]", word) if part]
        known = [self.lexicon.find(part) for part in parts]
        if len(parts) > 1 and any(known):
            for part, hit in zip(parts, known, strict=True):
                if hit:
                    self._hear(hit, self.weights[i], i)
                elif part.lower() not in _IDLE:
                    self._guess(part, i)
            return 1
        self._guess(word, i)
        return 1

    def _guess(self, word: str, i: int) -> None:
        near = self.lexicon.near(word)
        if near and near[0][1] >= SURE and len(word) >= GUESSABLE and not word.isdigit():
            self.guessed.append((word, near[0][0]))
            self._hear(near[0][0], self.weights[i], i)
        else:
            self.unknown.append(Unknown(word, tuple(known for known, _ in near)))


@functools.lru_cache(maxsize=512)
def read(text: str, lexicon: Lexicon) -> PromptReading:
    """What `text` says in the words of `lexicon`. Never raises: the unknown is listed."""
    return _Reader(text, lexicon).reading()


def check_prompt(text: str, lexicon: Lexicon | None) -> list[str]:
    """How a prompt is understood, then one line for each word that was guessed or is unknown.

    The first line is the good news, all others are warnings. Empty for an empty prompt, and
    without a lexicon: then every word counts.
    """
    if not text.strip() or lexicon is None:
        return []
    reading = read(text, lexicon)
    lines = ["heard: " + (", ".join(reading.known) or "nothing")]
    lines += [f"{word!r} was taken for {known!r}" for word, known in reading.guessed]
    for unknown in reading.unknown:
        near = f" (near: {', '.join(unknown.near)})" if unknown.near else ""
        lines.append(f"unknown: {unknown.word!r}{near}")
    return lines


# ------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """The model's input for two prompts at a place in time. Compared by identity; read-only.

    cond, cond2: float32 [D] for `prompt` and `prompt2`. phase: float32 [T, 2], in bars and loops.
    """

    prompt: str
    prompt2: str
    cond: Floats
    cond2: Floats
    phase: Floats

    def silent(self) -> Condition:
        """The same place in time without words: for the negative pass of guidance."""
        null = _frozen(imp_labels.null_condition())
        return Condition("", "", null, null, self.phase)


def _frozen(array: Floats) -> Floats:
    array.setflags(write=False)
    return array


def _vector(
    text: str, key: str, bpm: float, cycles: int, lexicon: Lexicon, timbre: Floats | None
) -> Floats:
    reading = read(text, lexicon)
    wanted = key or reading.key or None
    vocabulary = lexicon.vocabulary
    vector = imp_labels.condition(vocabulary, reading.tags, key=wanted, bpm=bpm, bars=float(cycles))
    if timbre is not None:
        vector[imp_labels.LABELS :] = timbre
    return _frozen(vector)


def prepare(
    prompt: str,
    prompt2: str,
    key: str,
    bpm: float,
    cycles: int,
    beats: int,
    frames: int,
    lexicon: Lexicon,
    timbre: Floats | None = None,
) -> Condition:
    """The arrays for a loop of `cycles` bars of `beats` beats in `frames` frames.

    key: wins over one in the prompt. prompt2: empty is the same as prompt. timbre: float32 [128]
    that both end in, or none. Raises ValueError for a key that is none.
    """
    cond = _vector(prompt, key, bpm, cycles, lexicon, timbre)
    cond2 = _vector(prompt2, key, bpm, cycles, lexicon, timbre) if prompt2 else cond
    phase = _frozen(imp_labels.loop_phase(float(cycles), bpm, frames, beats=beats))
    return Condition(prompt, prompt2, cond, cond2, phase)


def mixed(condition: Condition, mix: Sequence[float] | Floats | float | None) -> Floats:
    """cond float32 [D] at a prompt_mix 0..1.

    The model has one condition vector a row, so a curve counts by its mean.
    """
    if mix is None or condition.cond2 is condition.cond:
        return condition.cond
    share = np.float32(np.mean(np.asarray(mix, dtype=np.float64)))
    return condition.cond + share * (condition.cond2 - condition.cond)
