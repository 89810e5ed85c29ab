"""THE table of controls. Checking, completion, help, journal, engine and views derive from it.

A control is an input of the instrument with a name and a range. Its propagation class says how
soon a change is heard (DEMON paper, section on propagation, plus two more classes):

    mix    next audio block          gain, pan, filters, echo, room ...
    step   next tick of the ring     read by every solver step of every slot
    slot   next admission            baked into a generation when it is born
    model  one tick after a refit    weights of the network
    notes  next generation           what a deck with `source notes` is made from
    prepared  first, then switched at a cycle          loop, tempo, source, engine, depth, steps
    out    ahead of the sound, elsewhere   any name, in a deck that says `to` (lang.destinations)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PropagationClass = Literal["mix", "step", "slot", "model", "notes", "prepared", "out"]
Shape = Literal["curve", "number", "integer", "text", "choice", "file", "hits", "notes", "chords"]


@dataclass(frozen=True, slots=True)
class Control:
    """One row of the table.

    shape: curve = 25 values a second along the loop; number and integer = one value a generation
    (or an automation, for class mix); text and choice = words; file = names of sound files, which
    are read when the binding is evaluated; hits = an event is a hit, its value the velocity; notes,
    chords = an event is a note, or a chord, by name or number, moved by octaves to between low and
    high. low and high bound numbers, in `unit`. rest: the value
    of a rest (`~`); None = the default. slew: seconds that a jump takes in the mix strip, so that
    it does not click.
    """

    name: str
    shape: Shape
    cls: PropagationClass
    default: float | str | None
    help: str
    example: str
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    choices: tuple[str, ...] = ()
    rest: float | None = None
    slew: float = 0.0

    @property
    def numeric(self) -> bool:
        return self.shape in ("curve", "number", "integer", "hits")

    @property
    def pitched(self) -> bool:
        return self.shape in ("notes", "chords")

    @property
    def range_text(self) -> str:
        """The range as it is shown: `0..1`, `20..20000 Hz`, `one of a, b`, `text`."""
        if self.shape == "text":
            return "text"
        if self.cls == "out":
            return "any number"
        if self.shape == "file":
            return "a sound file"
        if self.shape == "chords":
            return "chord names, or numbers"
        if self.shape == "choice":
            return "one of " + ", ".join(self.choices)
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.low:g}..{self.high:g}{unit}"


_KEYS = tuple(
    f"{note} {mode}"
    for mode in ("minor", "major")
    for note in ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
)

_DRUMS = {
    "kick": 'kick = "1*4"',
    "snare": 'snare = "~ 1 ~ 1"',
    "clap": 'clap = "~ .8 ~ .8"',
    "hat": 'hat = ".5*8"',
    "open": 'open = "[~ .6]*4"',
    "perc": 'perc = ".7(3,8,2)"',
}
_PITCHED = (
    Control(
        "bass",
        "notes",
        "notes",
        "",
        "The bass line: note names, numbers (c4 is 60), or degrees through .scale.",
        'bass = "a1 ~ [~ a1] e2"',
        low=28.0,
        high=55.0,
    ),
    Control(
        "lead",
        "notes",
        "notes",
        "",
        "The melody, as bass; a comma plays notes together.",
        "lead = \"0 2 [4 <5 7>]\".scale('A4 minor')",
        low=48.0,
        high=96.0,
    ),
    Control(
        "chord",
        "chords",
        "notes",
        "",
        "Chords by name, or notes; .voicing lets them move by small steps.",
        'chord = "<Am F C^7 G/B>".voicing',
        low=36.0,
        high=88.0,
    ),
)
#: The source that the score plays itself; what stands behind a file that it is played over.
NOTES, PLUS_NOTES = "notes", "+ notes"
#: The source, and the timbre, that is played in; between two takes of it lie so many cycles.
IN, EVERY = "in", "every"
#: How much of the input is heard itself.
THRU = "thru"
#: Settings of a deck; all others are of all decks.
DECK_SETTINGS = ("loop", "source", "hold", "overdub", "out", "to")
#: `hint` of a deck with notes whose score says none: without it a model hears little of them.
NOTES_HINT = 0.6
#: What `source notes` plays.
VOICES = (*_DRUMS, *(row.name for row in _PITCHED))

_ROWS = (
    # notes: what is played for the model
    *(
        Control(
            name,
            "hits",
            "notes",
            0.0,
            f"Hits of the {name if name != 'open' else 'open hat'}: each event is one, its value "
            "how hard; a rest is none.",
            example,
        )
        for name, example in _DRUMS.items()
    ),
    *_PITCHED,
    *(
        Control(
            f"{name}_level",
            "number",
            "notes",
            1.0,
            f"Loudness of the {name} among the notes, where each begins.",
            f"{name}_level = .8",
            high=2.0,
        )
        for name in VOICES
    ),
    # step: curves that every solver step reads
    Control(
        "blend",
        "curve",
        "step",
        1.0,
        "How much of each frame is new: 0 keeps the source exactly, 1 lets the model go.",
        "blend = sine.slow(4).range(.2, 1)",
    ),
    Control(
        "velocity",
        "curve",
        "step",
        1.0,
        "How far each solver step goes: under 1 stays near where it started, over 1 overshoots.",
        "velocity = saw.fast(2).range(.8, 1.2)",
        high=2.0,
    ),
    Control(
        "noise",
        "curve",
        "step",
        0.0,
        "Fresh noise added at each solver step: grain and variation.",
        'noise = "0 .2 [0 .4]*2".smooth(.1)',
    ),
    Control(
        "morph",
        "curve",
        "step",
        0.0,
        "Pull of the second half of the steps towards the source as a target.",
        "morph = tri.slow(8)",
    ),
    Control(
        "guide",
        "curve",
        "step",
        1.0,
        "Guidance: over 1 exaggerates what the prompt asks for. How it is computed: see cfg.",
        "guide = 2.5",
        high=8.0,
    ),
    Control(
        "rescale",
        "curve",
        "step",
        0.0,
        "How much of the guided signal's extra energy is taken back.",
        "rescale = .5",
    ),
    Control(
        "momentum",
        "curve",
        "step",
        0.0,
        "Memory of the guidance from step to step; negative values calm it.",
        "momentum = -.5",
        low=-1.0,
    ),
    Control(
        "energy",
        "curve",
        "step",
        1.0,
        "Gain of the latent as the model sees it, not of the sound: density and drive.",
        "energy = square.range(.8, 1.3)",
        high=3.0,
    ),
    Control(
        "hint",
        "curve",
        "step",
        0.0,
        "How strongly the model is shown the source as a plan to follow (cover mode). With source "
        f"notes and nothing said: {NOTES_HINT:g}.",
        "hint = .7",
    ),
    Control(
        "prompt_mix",
        "curve",
        "step",
        0.0,
        "Mix from `prompt` (0) to `prompt2` (1), frame by frame.",
        "prompt_mix = saw.slow(8)",
    ),
    Control(
        "detail",
        "curve",
        "step",
        1.0,
        "How much of the source's own detail, which the codec loses, comes back where it is kept.",
        "detail = .5",
    ),
    # slot: baked into a generation at its birth
    Control(
        "denoise",
        "number",
        "slot",
        1.0,
        "How far from the source a generation starts: 0 is the source, 1 is pure noise.",
        'denoise = "<.4 .6 .8 1>/2"',
    ),
    Control(
        "seed",
        "integer",
        "slot",
        0.0,
        "Which noise a generation starts from: the same seed is the same sound.",
        'seed = "<1 2 3 4>/2"',
        high=2147483647.0,
    ),
    Control(
        "drift",
        "number",
        "slot",
        0.0,
        "How far the noise of each lap turns away from that of the seed: 0 stands still, .3 lives.",
        "drift = .3",
    ),
    Control(
        "shift",
        "number",
        "slot",
        3.0,
        "Where the solver spends its steps: over 1 on structure, under 1 on detail.",
        "shift = 3",
        low=0.25,
        high=8.0,
    ),
    Control(
        "init",
        "curve",
        "slot",
        1.0,
        "How much noise each frame starts with, apart from denoise: 0 starts from the source.",
        "init = square.range(.4, 1)",
    ),
    Control(
        "mask",
        "curve",
        "slot",
        1.0,
        "Which frames are made anew: 0 keeps the source there, and the model plays around it.",
        'mask = "1 0 1 1"',
    ),
    Control(
        "feedback",
        "number",
        "slot",
        0.0,
        "How much of an earlier generation is mixed into the source of the next.",
        "feedback = .3",
    ),
    Control(
        "feedback_depth",
        "integer",
        "slot",
        1.0,
        "Which earlier generation feeds back: 1 is the last.",
        "feedback_depth = 2",
        low=1.0,
        high=8.0,
    ),
    Control(
        "prompt",
        "text",
        "slot",
        "",
        "What it should sound like, in words; texts may be summed, each with a weight.",
        "prompt = \"<'acid techno, 303' 'dub techno, tape hiss'>/8\"",
    ),
    Control(
        "prompt2",
        "text",
        "slot",
        "",
        "The second prompt, for prompt_mix.",
        "prompt2 = 'ambient, warm pad'",
    ),
    Control(
        "key",
        "choice",
        "slot",
        "",
        "The key that the model is asked for; default: the model chooses.",
        "key = \"<'A minor' 'C major'>/8\"",
        choices=_KEYS,
    ),
    Control(
        "lyrics",
        "text",
        "slot",
        "",
        "Words to be sung, for an engine that sings; ` / ` begins a new line. None: no voice.",
        "lyrics = \"<'[verse] / we are the machine' '[chorus] / sing, sing'>/8\"",
    ),
    Control(
        "timbre",
        "file",
        "slot",
        "",
        "A sound to sound like, up to a minute, a file next to the score; 'none' or a rest: none.",
        "timbre = \"<'loops/dub_120.flac' 'loops/house_124.flac'>/4\"",
    ),
    Control(
        "cfg",
        "choice",
        "slot",
        "off",
        "How guidance is computed: full costs a second pass, initialize one, self none.",
        "cfg = 'initialize'",
        choices=("off", "full", "initialize", "self"),
    ),
    # mix: the strip of the deck
    Control(
        "gain",
        "number",
        "mix",
        1.0,
        "Loudness of the deck, linear. A rest is silence.",
        'gain = "1 .8 1 .6"',
        high=2.0,
        rest=0.0,
        slew=0.005,
    ),
    Control(
        THRU,
        "number",
        "mix",
        0.0,
        "How much of the input is heard itself in the deck, through its strip.",
        "thru = .8",
        rest=0.0,
        slew=0.005,
    ),
    Control(
        "pan",
        "number",
        "mix",
        0.0,
        "Left -1, middle 0, right 1.",
        "pan = sine2.slow(2) * .5",
        low=-1.0,
        slew=0.005,
    ),
    Control(
        "lpf",
        "number",
        "mix",
        20000.0,
        "Low-pass filter: removes what is above.",
        "lpf = saw.slow(4).rangex(200, 8000)",
        low=20.0,
        high=20000.0,
        unit="Hz",
        slew=0.01,
    ),
    Control(
        "hpf",
        "number",
        "mix",
        20.0,
        "High-pass filter: removes what is below.",
        'hpf = "<20 20 20 400>"',
        low=20.0,
        high=20000.0,
        unit="Hz",
        slew=0.01,
    ),
    Control(
        "drive",
        "number",
        "mix",
        0.0,
        "Soft saturation, behind the filters: more harmonics at about the same loudness.",
        "drive = .4",
        slew=0.005,
    ),
    Control(
        "crush",
        "number",
        "mix",
        16.0,
        "Bits that are left of each sample: 16 changes nothing, 1 is drastic.",
        'crush = "<16 16 16 5>"',
        low=1.0,
        high=16.0,
        unit="bits",
        slew=0.005,
    ),
    Control(
        "delay",
        "number",
        "mix",
        0.0,
        "How much goes into the echo. A rest sends nothing; what was sent rings on.",
        'delay = "0 0 0 .6"',
        slew=0.005,
    ),
    Control(
        "delaytime",
        "number",
        "mix",
        0.1875,
        "From one echo to the next; 5 seconds at most.",
        "delaytime = 1/8",
        high=2.0,
        unit="cycles",
    ),
    Control(
        "delayfeedback",
        "number",
        "mix",
        0.5,
        "How much of each echo comes back in the next.",
        "delayfeedback = .7",
        slew=0.005,
    ),
    Control(
        "room",
        "number",
        "mix",
        0.0,
        "How much goes into the reverberation. A rest sends nothing; what was sent rings on.",
        "room = .3",
        slew=0.005,
    ),
    Control(
        "size",
        "number",
        "mix",
        0.5,
        "Size of the room: 0 rings for .3 seconds, .5 for 1.3, 1 for 6.",
        "size = .8",
        slew=0.01,
    ),
    Control(
        "duck",
        "text",
        "mix",
        "",
        "What this makes way for: 'beat', or a deck by its name, and how far; a rest: nothing.",
        "duck = 'beat:.8'",
    ),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}

#: The crossfader: a control of the session, not of a deck.
FADER = Control(
    "fader",
    "number",
    "mix",
    0.0,
    "Crossfader between the two sides of `crossfade`: 0 is the first, 1 the second.",
    "fader = 1 over 8",
)

#: Settings: one to a line, without `=`. Their values are prepared and switched at a cycle.
SETTINGS: dict[str, Control] = {
    row.name: row
    for row in (
        Control(
            "tempo",
            "number",
            "prepared",
            120.0,
            "Beats a minute.",
            "tempo 128",
            low=20.0,
            high=400.0,
            unit="bpm",
        ),
        Control(
            "cps",
            "number",
            "prepared",
            0.5,
            "Cycles a second, instead of tempo.",
            "cps 0.533",
            low=0.05,
            high=4.0,
            unit="Hz",
        ),
        Control(
            "beats",
            "integer",
            "prepared",
            4.0,
            "Beats in a cycle, or a meter: beats 7/8.",
            "beats 4",
            low=1.0,
            high=32.0,
        ),
        Control(
            "loop",
            "integer",
            "prepared",
            4.0,
            "Cycles in the loop that the engine regenerates.",
            "loop 8",
            low=1.0,
            high=64.0,
            unit="cycles",
        ),
        Control(
            "source",
            "text",
            "prepared",
            None,
            "What is transformed: a file, none (noise), notes (kick ...), a file + notes, "
            "in (input).",
            'source "loops/techno_128.flac"',
        ),
        Control(
            "to",
            "text",
            "prepared",
            None,
            "Where a deck of any names plays, unheard: osc, midi 'PORT' CHANNEL, superdirt; none.",
            'to osc "127.0.0.1:9000"',
        ),
        Control(
            "hold",
            "choice",
            "prepared",
            "off",
            "Keep the source that is there: nothing more is taken from the input.",
            "hold",
            choices=("on", "off"),
        ),
        Control(
            "overdub",
            "choice",
            "prepared",
            "off",
            "Each loop that is played in is added to the source that is there.",
            "overdub on",
            choices=("on", "off"),
        ),
        Control(
            "engine",
            "text",
            "prepared",
            "imp",
            "The engine that plays: a name, or a path; it takes over at a bar once it is open.",
            "engine imp",
        ),
        Control(
            "quant",
            "number",
            "prepared",
            1.0,
            "Cycles that a statement without a `when` waits for; 0 is at once.",
            "quant 1",
            high=64.0,
            unit="cycles",
        ),
        Control(
            "depth",
            "integer",
            "prepared",
            4.0,
            "Generations in flight at most; auto: what is due, up to the engine's.",
            "depth 4",
            low=1.0,
            high=8.0,
            choices=("auto",),
        ),
        Control(
            "steps",
            "integer",
            "prepared",
            8.0,
            "Solver steps of a generation.",
            "steps 8",
            low=1.0,
            high=64.0,
        ),
        Control(
            "ring",
            "choice",
            "prepared",
            "rest",
            "rest: generate only what is new; always: generate on and on, as in the DEMON paper.",
            "ring always",
            choices=("rest", "always"),
        ),
        Control(
            "link",
            "choice",
            "prepared",
            "off",
            "Ableton Link: tempo and phase shared with all in the network, both ways.",
            "link on",
            choices=("on", "off"),
        ),
        Control(
            "clock",
            "choice",
            "prepared",
            "off",
            "MIDI clock: in follows a device's tempo and phase, out sends ours.",
            "clock in",
            choices=("in", "out", "off"),
        ),
        Control(
            "nudge",
            "number",
            "prepared",
            0.0,
            "How much later than Link or MIDI clock we are heard; negative is earlier.",
            "nudge -12",
            low=-500.0,
            high=500.0,
            unit="ms",
        ),
        Control(
            "nudge_in",
            "number",
            "prepared",
            0.0,
            "How much later what is played in counts, after its latency; negative is earlier.",
            "nudge in -8",
            low=-500.0,
            high=500.0,
            unit="ms",
        ),
        Control(
            "out",
            "integer",
            "prepared",
            1,
            "The first of its two channels of the device: 1, 3, 5 or 7; a render is the mix alone.",
            "out 3",
            low=1.0,
            high=7.0,
        ),
    )
}


def find(name: str) -> Control | None:
    """The control or setting called `name`; `lora.NAME` is a control of class model."""
    if name.startswith("lora.") and len(name) > 5:
        return Control(
            name,
            "number",
            "model",
            0.0,
            f"Strength of the LoRA {name[5:]!r}.",
            f"{name} = .8",
            high=2.0,
        )
    if name == FADER.name:
        return FADER
    return CONTROLS.get(name) or SETTINGS.get(name)


def read_duck(value: str) -> tuple[str, float]:
    """A value of `duck`: what it makes way for, and how far, 0 to 1.

    Raises ValueError if malformed.
    """
    name, colon, depth = value.partition(":")
    far = float(depth) if colon else 1.0
    if not 0.0 <= far <= 1.0 or (colon and not name):
        raise ValueError(f"not a name and a number from 0 to 1: {value!r}")
    return name.strip(), far


def names(cls: PropagationClass | None = None) -> list[str]:
    """Names of all controls, or of those of one class, in the order of the table."""
    return [c.name for c in CONTROLS.values() if cls is None or c.cls == cls]
