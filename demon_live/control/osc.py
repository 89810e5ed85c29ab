"""OSC: controllers, sequencers and other programs on the way in, a few figures on the way out.

    /demon/eval TEXT             evaluate; the answer comes as /demon/reply or /demon/error TEXT
    /demon/control/NAME VALUE    NAME = VALUE now, on the deck main
    /demon/control/DECK/NAME VALUE
    /demon/cc NUMBER VALUE [CHANNEL]   a knob, 0..1, that scores read as cc(NUMBER)
    /demon/hush
    /demon/telemetry HZ          send figures HZ times a second (0: no more) for a minute:
                                 /demon/telemetry cycle bpm left_db right_db lead_ms dry grade

Off by default (`--osc [HOST:]PORT`), on loopback unless another HOST is named: there is no
password, so everybody who reaches the port can play. Words that write or read files are refused;
sources and timbres are found in the working folder and the library. OSC edits are recorded in the
set. Bounded: size of packets, messages in one, statements a second (more are dropped and counted),
subscribers. Of a moving control the newest value counts, ten times a second; knobs (`/demon/cc`)
are smooth, 25 times a second.

Threads: one, of its own; `parse_osc` is pure.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demon_live.control.server import RateLimit
from demon_live.control.wire import WireError
from demon_live.controls import find
from demon_live.errors import DemonError, DeviceError, UsageError
from demon_live.lang.controllers import Key, Move
from demon_live.lang.destinations import is_loopback, parse_address
from demon_live.paths import install

if TYPE_CHECKING:
    from demon_live.session.session import Session
from demon_live.session.status import came_in

log = logging.getLogger(__name__)

#: Bounds: bytes of a packet, messages in one, letters of a statement, subscribers.
MAX_PACKET = 16 * 1024
MAX_MESSAGES = 64
MAX_TEXT = 8 * 1024
MAX_LISTENERS = 8
#: Statements a second, and how many may come at once.
RATE, BURST = 20.0, 40.0
#: Seconds between two values of one control, and two moments of knobs.
CONTROL_GAP, KNOB_GAP = 0.1, 0.04
#: Different controls and knobs that may wait for the next moment.
MAX_WAITING = 256
#: Seconds that a subscription lasts, and between two complaints.
LEASE, COMPLAINT = 60.0, 5.0

_NAME = re.compile(r"[A-Za-z_]\w{0,63}")
#: A text that may stand between quotes.
_PLAIN = re.compile(r"[^'\"\\{}\[\]<>\n\r\x00-\x1f]{0,200}")
_FILES = re.compile(r"\b(save|load|record|stop)\b")


@dataclass(frozen=True, slots=True)
class Evaluate:
    """A statement."""

    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A control of a deck takes a value."""

    deck: str
    control: str
    value: float | str

    @property
    def text(self) -> str:
        """As a statement."""
        value = f"'{self.value}'" if isinstance(self.value, str) else _number(self.value)
        return f"{self.deck}.{self.control} = {value} now"


@dataclass(frozen=True, slots=True)
class Knob:
    """A knob of a controller."""

    number: int
    value: float
    channel: int = 1


@dataclass(frozen=True, slots=True)
class Listen:
    """A subscription to figures, `hz` times a second; 0 ends it."""

    hz: float


Message = Evaluate | Turn | Knob | Listen


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


# --- reading ------------------------------------------------------------------------------------


def parse_osc(data: bytes) -> tuple[Message, ...]:
    """Read the messages of one packet. Raises WireError; UsageError without python-osc."""
    if len(data) > MAX_PACKET:
        raise WireError(f"a packet has {len(data)} bytes; the limit is {MAX_PACKET}")
    rows = _unbundled(data)
    if len(rows) > MAX_MESSAGES:
        raise WireError(f"a packet has {len(rows)} messages; the limit is {MAX_MESSAGES}")
    return tuple(_message(*_read(row)) for row in rows)


def _unbundled(data: bytes, depth: int = 0) -> list[bytes]:
    """The messages of a packet. (python-osc never returns if an element of a bundle has a negative
    size, so it gets single messages only.)"""
    if not data.startswith(b"#bundle\0"):
        return [data]
    if depth > 4:
        raise WireError("bundles within bundles within bundles")
    rows: list[bytes] = []
    at = 16
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        if not 0 < size <= len(data) - at:
            raise WireError("an element of a bundle has a wrong size")
        rows += _unbundled(data[at : at + size], depth + 1)
        at += size
    return rows


def _read(data: bytes) -> tuple[str, list[Any]]:
    """Address and values of one message."""
    tags = data[(data.find(b"\0") // 4 + 1) * 4 :].partition(b"\0")[0]
    if not data.startswith(b"/demon/") or not set(tags) <= set(b",ifdhsTF"):
        # python-osc prints a line for each type that it does not know.
        raise WireError("this is no OSC message to demon", hint="numbers and texts to /demon/...")
    try:
        message = _package("osc_message").OscMessage(data)
        return str(message.address), list(message.params)
    except DemonError:
        raise
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise WireError(f"this is no OSC message: {str(error)[:80]}") from None
    except Exception as error:
        # The library's own errors have no common base.
        if not type(error).__module__.startswith("pythonosc"):
            raise
        raise WireError(f"this is no OSC message: {str(error)[:80]}") from None


def require() -> None:
    """Raise UsageError where the package is missing."""
    for name in ("osc_message", "osc_message_builder"):
        _package(name)


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"pythonosc.{name}")
    except ImportError:
        raise UsageError("OSC needs the package python-osc", hint=install("osc")) from None


def encode_message(address: str, *values: Any) -> bytes:
    """One message as bytes. Raises UsageError without python-osc."""
    message = _package("osc_message_builder").OscMessageBuilder(address=address)
    for value in values:
        message.add_arg(value[:1024] if isinstance(value, str) else value)
    return bytes(message.build().dgram)


def _message(address: str, params: list[Any]) -> Message:
    match address.strip("/").split("/"):
        case ["demon", "eval"]:
            return _evaluate(params)
        case ["demon", "hush"]:
            return Evaluate("hush")
        case ["demon", "control", name]:
            return _turn("main", name, params)
        case ["demon", "control", deck, name]:
            return _turn(deck, name, params)
        case ["demon", "cc"]:
            return _knob(params)
        case ["demon", "telemetry"]:
            hz = _finite(params[0], "telemetry") if params else 10.0
            return Listen(min(max(hz, 0.0), 30.0))
    raise WireError(
        f"there is no OSC address {address[:80]!r}",
        hint="known: /demon/eval, /demon/control/NAME, /demon/cc, /demon/hush, /demon/telemetry",
    )


def _evaluate(params: list[Any]) -> Evaluate:
    if len(params) != 1 or not isinstance(params[0], str):
        raise WireError("/demon/eval takes one text")
    text = params[0]
    if len(text) > MAX_TEXT:
        raise WireError(f"a statement has {len(text)} letters; the limit here is {MAX_TEXT}")
    word = _FILES.search(text)
    if word is not None:
        raise WireError(
            f"{word[1]!r} is not allowed over OSC: it concerns files",
            hint="say it at the prompt, or with demon send",
        )
    return Evaluate(text)


def _turn(deck: str, name: str, params: list[Any]) -> Turn:
    # A deck that goes elsewhere takes any name: the session knows which do.
    free = deck != "main" and _NAME.fullmatch(name)
    if not _NAME.fullmatch(deck) or (find(name) is None and not free):
        raise WireError(f"there is no control {name[:40]!r}", hint="demon help lists the controls")
    if len(params) != 1:
        raise WireError(f"/demon/control/{name} takes one value")
    value = params[0]
    if isinstance(value, str):
        if not _PLAIN.fullmatch(value):
            raise WireError(f"the text for {name} holds quotes, brackets or too much")
        return Turn(deck, name, value)
    return Turn(deck, name, _finite(value, name))


def _knob(params: list[Any]) -> Knob:
    if len(params) not in (2, 3):
        raise WireError("/demon/cc takes a number, a value and perhaps a channel")
    number, value = _finite(params[0], "cc"), _finite(params[1], "cc")
    channel = _finite(params[2], "cc") if len(params) == 3 else 1.0
    if not (0 <= number <= 127 and 0 <= value <= 1 and 1 <= channel <= 16):
        raise WireError("/demon/cc: number 0..127, value 0..1, channel 1..16")
    return Knob(int(number), value, int(channel))


def _finite(value: Any, what: str) -> float:
    number = float(value) if type(value) in (int, float, bool) and abs(value) < 1e9 else math.nan
    if not math.isfinite(number):
        raise WireError(f"{what} needs a number")
    return number


def _bound(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][0]
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


# --- serving ------------------------------------------------------------------------------------


class OscServer:
    """Listens until `close`. session: in this process. address: as in `parse_address`.

    Raises DeviceError, UsageError.
    """

    def __init__(self, session: Session, address: str) -> None:
        require()
        host, port = parse_address(address)
        self._session = session
        self._limit = RateLimit(RATE, BURST)
        self._turns: dict[tuple[str, str], Turn] = {}
        self._knobs: dict[tuple[int, int], Knob] = {}
        self._turned = self._knobbed = 0.0
        self._listeners: dict[Any, tuple[float, float, float]] = {}
        self._complained = -COMPLAINT
        self.bad = self.dropped = 0
        self._reported = (0, 0)
        self._why = ""
        try:
            self._socket = _bound(host, port)
        except OSError as error:
            raise DeviceError(
                f"OSC cannot listen at {host}:{port}: {error.strerror or error}",
                hint="choose another port: --osc 9001",
            ) from None
        self.port = int(self._socket.getsockname()[1])
        self.address = f"{host}:{self.port}"
        if not is_loopback(host):
            session.tell(
                f"osc: everybody who reaches {self.address} can play; there is no password"
            )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._socket.settimeout(self._patience())
            try:
                data, sender = self._socket.recvfrom(MAX_PACKET + 1)
            except TimeoutError:
                pass
            except OSError:
                # Closed; or an earlier packet of ours could not be delivered.
                if self._closed.wait(0.01):
                    return
            else:
                self._receive(data, sender)
            try:
                self._due(time.monotonic())
            # A wall: a fault here must not cut off the performer's controller.
            except Exception:
                log.exception("osc")

    def _patience(self) -> float:
        """Seconds to wait for a packet before `_due` must run."""
        if self._knobs:
            return KNOB_GAP / 2
        rates = [hz for hz, _, _ in self._listeners.values()]
        return min([CONTROL_GAP / 2 if self._turns else 0.25, *(0.5 / hz for hz in rates)])

    def _receive(self, data: bytes, sender: Any) -> None:
        try:
            for message in parse_osc(data):
                self._obey(message, sender)
        except DemonError as error:
            if isinstance(error, WireError):
                self.bad += 1
                self._why = error.message
            self._answer(sender, "/demon/error", str(error))
        except Exception as error:
            log.exception("osc")
            self._answer(sender, "/demon/error", f"{type(error).__name__}: {error}")

    def _obey(self, message: Message, sender: Any) -> None:
        if isinstance(message, Listen):
            self._subscribe(sender, message.hz)
        elif isinstance(message, Turn):
            if len(self._turns) < MAX_WAITING:
                self._turns[message.deck, message.control] = message
        elif isinstance(message, Knob):
            if len(self._knobs) < MAX_WAITING:
                self._knobs[message.number, message.channel] = message
        elif not self._limit.allow():
            self.dropped += 1
        else:
            outcome = self._session.apply(message.text, "<osc>", "osc")
            self._session.tell(came_in("<osc>", message.text))
            reply = "\n".join((*outcome.messages, *outcome.warnings))
            self._answer(sender, "/demon/reply", reply)

    def _due(self, now: float) -> None:
        """Send whatever is due: controls, knobs, figures, complaints."""
        if self._turns and now - self._turned >= CONTROL_GAP:
            self._turned = now
            turns, self._turns = self._turns, {}
            self._apply(list(turns.values()))
        if self._knobs and now - self._knobbed >= KNOB_GAP:
            self._knobbed = now
            knobs, self._knobs = self._knobs, {}
            self._session.hear(
                [Move(Key("cc", k.number, k.channel), k.value) for k in knobs.values()]
            )
        self._figures(now)
        if (self.bad, self.dropped) != self._reported and now - self._complained >= COMPLAINT:
            self._complained, self._reported = now, (self.bad, self.dropped)
            packets = f"{self.bad} packet{'s' * (self.bad != 1)}"
            counts = [
                f"{packets} could not be read (the last: {self._why})" if self.bad else "",
                f"{self.dropped} statements came too fast" if self.dropped else "",
            ]
            self._session.tell("osc: " + "; ".join(c for c in counts if c))

    def _apply(self, turns: list[Turn]) -> None:
        """Apply all in one text; if that is refused, each alone, and report the wrong ones."""
        texts = ["\n".join(t.text for t in turns)] if len(turns) > 1 else []
        for text in (*texts, *(t.text for t in turns)):
            try:
                self._session.apply(text, "<osc>", "osc")
            except DemonError as error:
                if text not in texts:
                    self.bad += 1
                    self._why = error.message
            else:
                if text in texts:
                    return

    # --- figures ------------------------------------------------------------------------------

    def _subscribe(self, sender: Any, hz: float) -> None:
        if hz <= 0:
            self._listeners.pop(sender, None)
        elif sender in self._listeners or len(self._listeners) < MAX_LISTENERS:
            self._listeners[sender] = (hz, time.monotonic() + LEASE, 0.0)
        else:
            raise WireError(f"{MAX_LISTENERS} programs listen already")

    def _figures(self, now: float) -> None:
        waiting = [who for who, (hz, _, last) in self._listeners.items() if now - last >= 1 / hz]
        if not waiting:
            return
        status = self._session.status()
        levels = map(float, status.peak_db)
        row = (float(status.cycle), float(status.bpm), *levels, float(status.lead_ms))
        for who in waiting:
            hz, until, _ = self._listeners[who]
            if now >= until:
                del self._listeners[who]
                continue
            self._listeners[who] = (hz, until, now)
            self._answer(who, "/demon/telemetry", *row, int(status.dry), str(status.grade))

    def _answer(self, to: Any, address: str, *values: Any) -> None:
        try:
            self._socket.sendto(encode_message(address, *values), to)
        except OSError:
            self._listeners.pop(to, None)

    def close(self) -> None:
        """Stop listening. Twice is fine."""
        self._closed.set()
        self._thread.join(1)
        self._socket.close()
