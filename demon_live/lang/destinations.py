"""Where a deck goes that makes no sound: `to osc "HOST:PORT"`, `to midi 'NAME' CHANNEL`, `to
superdirt`.

In such a deck any name is a pattern, of numbers or of words. `control.ahead` sends them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Literal

from demon_live.controls import Control
from demon_live.errors import UsageError, nearest

Kind = Literal["osc", "midi", "superdirt"]
#: The ways out, and what is written behind each.
KINDS: dict[str, str] = {
    "osc": 'to osc "127.0.0.1:9000"',
    "midi": "to midi 'nano' 1",
    "superdirt": "to superdirt",
}
#: Where SuperDirt listens.
_SUPERDIRT = "127.0.0.1:57120"
#: What a MIDI deck plays; and a number behind `cc`.
MIDI_NAMES = ("note", "chord", "velocity", "gain", "legato", "bend", "program")
#: The names that take notes and chords by name.
_PITCHED: dict[Kind, tuple[str, ...]] = {
    "osc": (),
    "midi": ("note", "chord"),
    "superdirt": ("note",),
}
_CC = re.compile(r"cc(\d{1,3})")
_WRITTEN = re.compile(r"""(?:"([^"]*)"|'((?:[^'\\]|\\.)*)'|`([^`]*)`)?\s*(\d+)?""")


@dataclass(frozen=True, slots=True)
class Destination:
    """kind: the way out. place: HOST:PORT, or a part of the name of a MIDI port. channel: of MIDI,
    1 to 16."""

    kind: Kind
    place: str
    channel: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.place}" + f" {self.channel}" * (self.kind == "midi")

    @property
    def written(self) -> str:
        """As a score says it, behind `to`."""
        if self.kind == "midi":
            quoted = self.place.replace("\\", "\\\\").replace("'", "\\'")
            return f"midi '{quoted}' {self.channel}"
        return f'{self.kind} "{self.place}"'

    @property
    def far(self) -> bool:
        """Whether it lies beyond this machine."""
        return self.kind != "midi" and not is_loopback(parse_address(self.place)[0])


def read_destination(kind: str, rest: str) -> Destination:
    """A destination from the words behind `to`. Raises UsageError."""
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        hint = f"write {KINDS[near[0]] if near else ' or '.join(KINDS.values())}"
        raise UsageError(f"a deck goes to {', '.join(KINDS)}, not to {kind!r}", hint=hint)
    found = _WRITTEN.fullmatch(rest)
    quoted = next((g for g in found.groups()[:3] if g is not None), None) if found else None
    number = found[4] if found else None
    hint = f"write {KINDS[kind]}"
    if kind == "midi":
        if not quoted or not 1 <= int(number or 1) <= 16:
            what = "a channel from 1 to 16" if quoted else "the name of a port, or a part of it"
            raise UsageError(f"to midi needs {what}", hint=hint)
        return Destination("midi", re.sub(r"\\(.)", r"\1", quoted), int(number or 1))
    if (quoted is not None and number) or (kind == "osc" and not rest):
        raise UsageError(f"to {kind} takes one address", hint=hint)
    host, port = parse_address(quoted or number or _SUPERDIRT, hint)
    if not port:
        raise UsageError("a port is a number from 1 to 65535", hint=hint)
    return Destination("osc" if kind == "osc" else "superdirt", joined(host, port))


def joined(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str, hint: str = "") -> tuple[str, int]:
    """[HOST:]PORT. Raises UsageError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not re.fullmatch(r"\d{1,5}", port) or not int(port) < 65536 or len(host) > 255:
        raise UsageError(
            f"{text[:40]!r} is no address", hint=hint or "--osc 9000, or --osc HOST:9000"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def outgoing(name: str, kind: Kind, text: bool = False) -> Control:
    """The control of that name in a deck that makes no sound. text: its pattern is of words."""
    help_text, example = "Goes where the deck goes.", f"{name} = 1"
    if name in _PITCHED[kind]:
        low, high = (0.0, 127.0) if kind == "midi" else (-128.0, 127.0)
        return Control(name, "chords", "out", "", help_text, example, low, high)
    if text:
        return Control(name, "text", "out", "", help_text, example)
    return Control(name, "number", "out", 0.0, help_text, example, -float("inf"), float("inf"))


def turned(name: str, kind: Kind) -> Control | None:
    """What a knob turns of that name in such a deck, with its range; None if it goes nowhere."""
    if not name.isidentifier() or (
        kind == "midi" and name not in MIDI_NAMES and cc_of(name) is None
    ):
        return None
    control = outgoing(name, kind)
    if not control.numeric:
        return control
    low, high = {("midi", "bend"): (-1.0, 1.0), ("midi", "program"): (0.0, 127.0)}.get(
        (kind, name), (0.0, 1.0)
    )
    whole = (kind, name) == ("midi", "program")
    return replace(control, low=low, high=high, shape="integer" if whole else control.shape)


def cc_of(name: str) -> int | None:
    """74 for cc74; None for a name that is no controller."""
    found = _CC.fullmatch(name)
    return int(found[1]) if found is not None and int(found[1]) < 128 else None
