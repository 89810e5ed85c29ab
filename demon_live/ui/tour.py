"""The tour: the first ten minutes. Each step plays, explains the sound, and suggests a line.

`tour` goes on, `tour back` goes back, `tour 3` goes there. The empty prompt shows the line of the
step: Enter plays it, Tab takes it for editing. After the next statement, whatever it is, the tour
explains what to hear and suggests `tour`: Enter alone walks through it, and it can be left at any
time. Other scores wait meanwhile: `tour end` brings them back.

Threads: a `Tour` belongs to the thread that evaluates; `take` may be called from another.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demon_live.errors import FileError, UsageError
from demon_live.paths import shipped
from demon_live.session.scores import score_name
from demon_live.session.session_api import SessionApi
from demon_live.session.status import Outcome
from demon_live.ui import show

#: The snapshot of what played before the tour.
_BEFORE = "before_tour"

Own = Callable[[str, str, Callable[[], Outcome]], Outcome]


@dataclass(frozen=True, slots=True)
class Step:
    """title, words: its subject. line: suggested in the prompt. then: what to hear after it. score:
    number of the score that it plays, "" = the last one plays on."""

    title: str
    words: str
    line: str
    then: str
    score: str = ""


STEPS: tuple[Step, ...] = (
    Step(
        "a loop, made anew",
        "The model makes four bars of sound again and again, always a little ahead of the "
        "playhead. Its score is above; two of its lines move, and their curves are on the panel. "
        "The grey line in the prompt gives one of them another shape.",
        'blend = "1 .2 1 .2"',
        "Four steps a bar. At 1 the model is free, at .2 it stays close to the loop. The reply "
        "says from which bar on: nothing ever changes in the middle of one.",
        score="00",
    ),
    Step(
        "how far from the loop",
        "denoise is the great lever: 0 is the loop itself, 1 is all new. The score climbs it "
        "step by step. The line takes it over, and takes four bars for the way.",
        "denoise = .9 over 4",
        "over 4: a straight line, four bars long. A bare number jumps at the next bar.",
        score="01",
    ),
    Step(
        "curves",
        "blend does the same frame by frame, 25 values a second: curves with names, made faster "
        "or slower, brought into a range. perlin wanders.",
        "blend = perlin.slow(2).range(.3, 1)",
        "Watch the playhead run through the curve. Others: sine saw isaw tri square rand.",
        score="02",
    ),
    Step(
        "words",
        "A prompt is a pattern too: here four of them take turns, four bars each. The line asks "
        "for one of its own, at the next bar that 8 divides.",
        "prompt = 'electro, cowbell, 808' at 8",
        "The panel counts the bars until then. The reply names words that this engine does "
        "not know; Tab inside the quotes shows those that it knows.",
        score="03",
    ),
    Step(
        "rhythm",
        'In "double quotes" a bar is divided: [ ] groups, < > takes turns, * repeats, (5,8) '
        "spreads five over eight, ~ rests. If you know Tidal or Strudel, you know these.",
        'gain = "1*8"',
        "That was the gate. Try also 1(3,8) or 1 ~ 1 [1 1] between the quotes.",
        score="04",
    ),
    Step(
        "mistakes cost nothing",
        "The grey line is wrong. Play it.",
        "denois = .5",
        "Place, cause, remedy, and what plays on. Nothing stopped: nothing that is wrong is ever "
        "played. The same holds for files that you save.",
    ),
    Step(
        "and can be taken back",
        "Every change can be undone, and redone: lines, scenes, whole files.",
        "undo",
        "There is also hush (Alt-.), and panic. Any statement brings the sound back.",
    ),
    Step(
        "scenes",
        "A scene is a group of lines with a name, let defines a word of your own, and a chain "
        "plays scenes in turn. The line goes to one at once.",
        "go peak now",
        "Undo brings the chain back. over and xfade work here as well: go calm over 8.",
        score="05",
    ),
    Step(
        "chance that stays",
        "rand, irand and perlin, and ? in rhythms, are the same at each hearing and in each "
        "replay: a function of the bar, not of luck.",
        "seed = irand(100).slow(4)",
        "seed says which idea the model has: a new one each fourth bar now, always the same ones.",
        score="06",
    ),
    Step(
        "decks",
        "Two loops, each with a source and a strip of its own; their generations share the ring. "
        "A line for a deck begins with its name.",
        "air.gain = .9 over 2",
        "mute air, solo air, unsolo; Alt-1 and Alt-2 mute and unmute.",
        score="07",
    ),
    Step(
        "notes",
        "source notes: nothing is read from a file. Drums, bass and chords are patterns, and the "
        "model plays them in the sound that the prompt asks for. The line changes the kick.",
        'kick = "1(5,8)"',
        "From the next bar, on its steps. bass takes note names, chord the names of chords: "
        'chord = "<Dm7 G7 C^7>".voicing. hint says how closely the model follows.',
        score="09",
    ),
    Step(
        "songs of notes",
        "Notes belong to scenes like everything else, and a chord line may be longer than the "
        "loop. .scale turns degrees into a melody.",
        "lead = \"<0 7 4 2>*4\".scale('A4 minor')",
        "The panel shows hits as a grid of steps and notes as a piano roll.",
        score="10",
    ),
    Step(
        "sound in",
        "What you play becomes the source. It needs an input: `demon live --input` with the name "
        "of one, or with loop:patterns/loops/house_124.flac. The line takes the next whole loop.",
        "source in",
        "With an input the panel counts its bars, and the bar after them the deck is made from "
        "it. Without one nothing has changed. Also: source in every 4, overdub on, hold.",
        score="11",
    ),
    Step(
        "a score of your own",
        "In a shell, `demon new mine` makes a folder with a score to start from, and `demon live "
        "mine` plays it. Save the file in any editor: it is heard at the next bar. `record "
        "friday` writes a set that replays bit for bit. The line shows the stage view; there the "
        "score itself is edited, F1 helps, and Alt-s leads back.",
        "stage",
        "That was the tour. ? lists all words, ?blend explains one.",
    ),
)


class Tour:
    """folder: where the scores of the tour are; None = those shipped. own: evaluates as what was
    typed here (door, text, work), so that no event of it is shown here."""

    def __init__(self, folder: Path | None = None, own: Own = lambda door, text, work: work()):
        self._folder, self._own = folder, own
        self._at = -1
        self._explained = True
        self._offer = ""
        self._waiting = False

    @property
    def folder(self) -> Path:
        """Where the scores of the tour are."""
        return self._folder or shipped("patterns")

    def go(self, session: SessionApi, word: str = "", columns: int = 80) -> show.Pieces:
        """Go to the next step, to `back`, to a number, or `end`, and play it. Raises DemonError."""
        if word == "end":
            return self._end(session, columns)
        step = STEPS[self._find(word)]
        pieces: show.Pieces = [("heading", f"tour {self._at} of {len(STEPS) - 1}: {step.title}\n")]
        if not self._waiting:
            self._make_room(session)
            pieces.append(("hint", "       `tour end` brings back what played\n"))
        if step.score:
            pieces += self._play(session, step.score, columns)
        pieces.append(("", _wrapped(step.words, columns)))
        self._explained = False
        self._offer = step.line
        pieces.append(("hint", "       Enter plays the grey line, Tab takes it for editing\n"))
        return pieces

    def follow_up(self) -> show.Pieces:
        """The text after the first statement of a step, accepted or refused."""
        if self._explained:
            return []
        self._explained = True
        step = STEPS[self._at]
        more = self._at + 1 < len(STEPS)
        self._offer = "tour" if more else "tour end"
        hint = "Enter: the next step" if more else "Enter: back to what played before"
        return [("", _wrapped(step.then, 79)), ("hint", f"       {hint}\n")]

    def take(self) -> str:
        """The line to suggest in the prompt, once; "" for none."""
        line, self._offer = self._offer, ""
        return line

    def _others(self, session: SessionApi) -> list[str]:
        """The scores that play and do not belong to the tour."""
        return [name for name in session.scores() if name not in self._ours()]

    def _ours(self) -> set[str]:
        return {score_name(p) for p in self.folder.glob("[0-9]*.demon")}

    def _make_room(self, session: SessionApi) -> None:
        """Let only the tour play, after a snapshot of all that plays."""
        self._apply(session, f"snapshot {_BEFORE}")
        self._waiting = True
        for name in self._others(session):
            session.remove(name)
        decks = session.status().decks
        rows = [f"unmute {deck.name}" for deck in decks if deck.muted]
        rows += ["unsolo"] if any(deck.soloed for deck in decks) else []
        for deck in decks:
            if deck.name == "main":
                # A score of the tour that plays says them again.
                rows += [f"{_named(lane.control)} = default" for lane in deck.lanes]
            else:
                rows.append(f"deck {deck.name} off")
        if rows:
            self._apply(session, "\n".join(rows))

    def _apply(self, session: SessionApi, text: str) -> Outcome:
        return self._own("<prompt>", text, lambda: session.apply(text))

    def _end(self, session: SessionApi, columns: int) -> show.Pieces:
        """Bring back what played before the tour."""
        self._at, self._explained, self._offer = -1, True, ""
        if not self._waiting:
            return [("hint", "       there is no tour\n")]
        self._waiting = False
        outcome = self._apply(session, f"recall {_BEFORE}")
        return show.outcome(outcome.messages, outcome.warnings, columns)

    def _find(self, word: str) -> int:
        last = len(STEPS) - 1
        if word and not word.isdigit() and word != "back":
            hint = "tour, tour back, tour 3, or tour end"
            raise UsageError(f"tour {word}: which step?", hint=hint)
        at = int(word) if word.isdigit() else self._at + (-1 if word == "back" else 1)
        if not 0 <= at <= last:
            raise UsageError(f"the tour has steps 0 to {last}", hint="tour 0 begins again")
        self._at = at
        return at

    def _play(self, session: SessionApi, number: str, columns: int) -> show.Pieces:
        """Play the score of a step instead of the one before."""
        found = sorted(self.folder.glob(f"{number}*.demon"))
        if not found:
            raise FileError("there is no tour here", hint=f"{self.folder} has no numbered scores")
        path = found[0]
        text = path.read_text(encoding="utf-8")
        ours = self._ours() - {score_name(path)}
        # The scores of the tour do not add up: the one before is unloaded first.
        for name in session.scores():
            if name in ours:
                session.remove(name)
        outcome = self._own("<send>", score_name(path), lambda: session.load(path))
        reply = show.outcome(outcome.messages, outcome.warnings, columns)
        return [("hint", f"{path.name}\n"), *show.coloured(text), *reply]


def _named(control: str) -> str:
    return control if control.startswith("lora.") else f"main.{control}"


def _wrapped(words: str, columns: int) -> str:
    indent = " " * 7
    width = max(30, min(columns - 1, 88))
    return textwrap.fill(words, width, initial_indent=indent, subsequent_indent=indent) + "\n"
