"""Sends what decks play elsewhere, ahead of the sound: OSC with time tags, MIDI on time.

    Out        plans a stretch of the score at a time and sends it; one thread
    MidiLine   a MIDI port: notes wait here until they are due; one thread each

A message is stamped with the moment at which its output sample is heard, output latency included.
OSC leaves up to `lookahead` before that, so a change of the score reaches all that is later; the
socket never blocks. MIDI has no stamps: it is sent when it is due. Nothing of it touches the sound.

Whatever ends a note early (hush, panic, mute, the end of its deck, another destination, the end of
the session) sends its note-off at once.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from demon_live.control import ahead
from demon_live.control.ahead import MidiControl, MidiNote, OscMessage
from demon_live.control.midi import Backend, MidiOut
from demon_live.control.osc import encode_message
from demon_live.control.sync import AudioClock, Ear
from demon_live.errors import DemonError, UsageError
from demon_live.lang.destinations import joined, parse_address
from demon_live.session.state import DeckState, State

if TYPE_CHECKING:
    from demon_live.session.session import Session

log = logging.getLogger(__name__)

#: Seconds that messages leave ahead of the sound at most, and between two stretches of the score.
LOOKAHEAD, STEP = 0.2, 0.1
#: Bytes of a bundle; messages that may wait for a MIDI port.
_BUNDLE, _MOST = 1400, 4096
#: A MIDI message that comes later than this is not sent, seconds; note-offs always are.
_LATE = 0.1
#: From 1900, where OSC's time begins, to 1970.
_EPOCH = 2_208_988_800
#: Seconds between two complaints.
_COMPLAINT = 5.0
_NOTE_OFF, _NOTE_ON = 0x80, 0x90

#: The family and the address of a socket.
Address = tuple[int, Any]


def resolve(places: Iterable[str]) -> dict[str, Address]:
    """HOST:PORT, as scores name it -> its address. Raises UsageError."""
    return {joined(*parse_address(place, _HINT)): _address(place) for place in places}


_HINT = "--osc-to HOST:PORT"


def _address(place: str) -> Address:
    host, port = parse_address(place, _HINT)
    if not port:
        raise UsageError("a port is a number from 1 to 65535", hint=_HINT)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{place} cannot be found: {reason}", hint=_HINT) from None
    return int(family), address


def bundles(messages: Iterable[tuple[float, bytes]]) -> list[bytes]:
    """Bundles of messages, each a pair of its time (seconds since 1970) and its bytes."""
    found: list[bytes] = []
    for moment, rows in itertools.groupby(sorted(messages, key=lambda m: m[0]), lambda m: m[0]):
        whole = math.floor(moment)
        tag = struct.pack(">II", whole + _EPOCH, min(int((moment - whole) * 2**32), 2**32 - 1))
        body = b""
        for _, row in rows:
            if body and len(body) + len(row) > _BUNDLE:
                found.append(b"#bundle\0" + tag + body)
                body = b""
            body += struct.pack(">i", len(row)) + row
        found.append(b"#bundle\0" + tag + body)
    return found


def wall_offset() -> float:
    """time.time() less time.monotonic(): the reading that took least, of a few."""
    readings = []
    for _ in range(3):
        before = time.monotonic()
        wall = time.time()
        after = time.monotonic()
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1]


# --- MIDI ------------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    """A message in the order in which it is sent. end: when a note ends; token: of its note-on."""

    moment: float
    rank: int
    number: int
    owner: str
    data: bytes
    end: float = 0.0
    token: int = 0


class MidiLine:
    """Sends to one MIDI port, each message when it is due.

    Args:
        port: a part of its name.
        backend: opens it; None = the machine's own.
        start: whether a thread sends; else `run` does.
    """

    def __init__(self, port: str, *, backend: Backend | None = None, start: bool = True) -> None:
        self._out = MidiOut(port, backend=backend, watch=start)
        self._waiting: list[_Waiting] = []
        self._sounding: dict[tuple[int, int], tuple[str, int]] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="midi out", daemon=True)
        if start:
            self._thread.start()
        else:
            self._out.scan()

    @property
    def problem(self) -> str:
        """Why nothing is heard there, with the remedy, or ""."""
        return self._out.problem

    def play(self, owner: str, moment: float, message: MidiControl | MidiNote, end: float) -> None:
        """Send a message at a moment (time.monotonic); a note ends at `end`. Never blocks.

        owner: the deck that says it.
        """
        if isinstance(message, MidiNote):
            data = bytes((_NOTE_ON | message.channel, message.pitch, message.velocity))
            row = _Waiting(moment, 2, next(self._numbers), owner, data, end)
        else:
            row = _Waiting(moment, 1, next(self._numbers), owner, message.data)
        with self._changed:
            if len(self._waiting) >= _MOST:
                self.dropped += 1
                return
            heapq.heappush(self._waiting, row)
            self._changed.notify()

    def silence(self, owner: str) -> None:
        """End the notes of a deck at once, and forget what it was to play."""
        with self._changed:
            # The note-offs of the others stay.
            self._waiting = [row for row in self._waiting if row.owner != owner]
            heapq.heapify(self._waiting)
            for key, (who, token) in self._sounding.items():
                if who == owner:
                    heapq.heappush(self._waiting, self._off(0.0, key, owner, token))
            self._changed.notify()

    def _off(self, moment: float, key: tuple[int, int], owner: str, token: int) -> _Waiting:
        data = bytes((_NOTE_OFF | key[0], key[1], 0))
        return _Waiting(moment, 0, next(self._numbers), owner, data, token=token)

    def run(self, now: float) -> float | None:
        """Send what is due; the moment of the next message, None if nothing waits."""
        while True:
            with self._changed:
                if not self._waiting:
                    return None
                if self._waiting[0].moment > now:
                    return self._waiting[0].moment
                rows = self._due(heapq.heappop(self._waiting), now)
            # A slow port holds up this thread only.
            for data in rows:
                self._out.send(data)

    def _due(self, row: _Waiting, now: float) -> list[bytes]:
        """The bytes that a message is now: none for one that is too late, or over already."""
        key = row.data[0] & 15, row.data[1]
        if row.rank == 0:
            if self._sounding.get(key, ("", 0))[1] != row.token:
                return []
            del self._sounding[key]
            return [row.data]
        if now - row.moment > _LATE:
            self.dropped += 1
            return []
        if row.rank == 1:
            return [row.data]
        again = [bytes((_NOTE_OFF | key[0], key[1], 0))] if key in self._sounding else []
        self._sounding[key] = row.owner, row.number
        heapq.heappush(self._waiting, self._off(row.end, key, row.owner, row.number))
        return [*again, row.data]

    def _run(self) -> None:
        while True:
            due = self.run(time.monotonic())
            with self._changed:
                if self._closing and not self._sounding:
                    return
                wait = 0.5 if due is None else due - time.monotonic()
                # What came since is due at its own moment.
                first = self._waiting[0].moment if self._waiting else due
                if wait > 0 and first == due:
                    self._changed.wait(min(wait, 0.5))

    def close(self) -> None:
        """End all notes and the port. Twice is fine."""
        with self._changed:
            self._closing = True
            owners = {owner for owner, _ in self._sounding.values()}
            owners |= {row.owner for row in self._waiting}
        for owner in owners:
            self.silence(owner)
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(2)
        else:
            self.run(time.monotonic())
        self._out.close()


# --- everything ------------------------------------------------------------------------------


class Out:
    """Sends what the decks of a session play elsewhere.

    Args:
        session: whose state says what plays.
        audio: the clock of the audio process; None while it does not play.
        outside: destinations beyond this machine that scores may name (`resolve`); they get the
            events of every deck.
        lookahead: seconds that OSC leaves ahead of the sound at most.
        backend: opens MIDI ports; None = the machine's own.
        start: whether a thread plans; else `turn` does.
    """

    def __init__(
        self,
        session: Session,
        audio: Callable[[], AudioClock | None],
        *,
        outside: Mapping[str, Address] = MappingProxyType({}),
        lookahead: float = LOOKAHEAD,
        backend: Backend | None = None,
        start: bool = True,
    ) -> None:
        self._session, self._audio, self._outside = session, audio, outside
        self.lookahead, self._backend, self._start = lookahead, backend, start
        self._addresses: dict[str, Address | None] = {}
        self._sockets: dict[int, socket.socket] = {}
        #: The MIDI ports that decks go to.
        self.lines: dict[str, MidiLine] = {}
        self._open: set[tuple[str, str]] = set()
        self._sent: dict[tuple[str, str], object] = {}
        #: The orbits of SuperDirt that decks have, which keep theirs when others come and go.
        self._orbits: dict[str, int] = {}
        #: Up to here everything is planned.
        self._done: Fraction | None = None
        #: Stretches that were planned or left too late; messages that could not be sent.
        self.late = self.lost = 0
        self._said: set[str] = set()
        self._complained = -math.inf
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="out", daemon=True)
        if start:
            self._thread.start()

    def counts(self) -> tuple[int, int]:
        """(messages that were lost or dropped, stretches that were planned too late)."""
        return self.lost + sum(line.dropped for line in list(self.lines.values())), self.late

    def wake(self) -> None:
        """What plays may have changed."""
        self._wake.set()

    def _run(self) -> None:
        while not self._closing:
            try:
                self.turn(time.monotonic())
            # A wall: whatever fails here, the sound and the rest of the score go on.
            except Exception as error:
                log.warning("out", exc_info=True)
                self._say(f"sending ahead failed: {error}")
            self._wake.wait(min(STEP, self.lookahead / 2))
            self._wake.clear()

    def turn(self, now: float) -> None:
        """Plan what is heard until `now` (time.monotonic) and the lookahead, and send it."""
        began, state, audio = time.monotonic(), self._session.state, self._audio()
        if audio is None or audio.t0 == 0.0:
            return
        ear = Ear(audio, state.nudge)
        here = max(0, math.floor(ear.sample(now)))
        decks = ahead.playing(state, here)
        self._end_notes(state, decks, here)
        self._give_orbits(decks)
        begin = state.tempo.cycle_at(here)
        end = state.tempo.cycle_at(max(0, math.floor(ear.sample(now + self.lookahead))))
        sending = bool(self._outside) or any(deck.to is not None for deck in decks.values())
        if self._done is not None:
            self.late += sending and self._done < begin
            begin = max(begin, self._done)
        if end <= begin:
            return
        self._done = end
        offset = wall_offset()
        rows: defaultdict[str, list[tuple[float, bytes]]] = defaultdict(list)
        listening = [*self._outside, *(d.to.place for d in decks.values() if d.to and _is_osc(d))]
        for deck in decks.values():
            try:
                found = list(self._osc(state, deck, begin, end, listening))
                for place, message in found:
                    data = encode_message(message.address, *message.values)
                    rows[place].append((ear.moment(message.sample) + offset, data))
                self._midi(state, deck, begin, end, ear)
            except UsageError as error:
                self._say(str(error))
            # The sampling wall: a lane that fails must not hold up the other decks.
            except Exception as error:
                log.warning("out: %s", deck.name, exc_info=True)
                self._say(f"{deck.name}: a stretch cannot be sent ({error})")
        if rows:
            self._say(f"osc leaves {self.lookahead * 1000:g} ms before it is heard")
            leaves = now + time.monotonic() - began + offset
            self.late += any(moment < leaves for found in rows.values() for moment, _ in found)
        for place, messages in rows.items():
            self._send(place, bundles(messages))
        self._complain(now)

    def _osc(
        self, state: State, deck: DeckState, begin: Fraction, end: Fraction, listening: list[str]
    ) -> Iterable[tuple[str, OscMessage]]:
        """(place, message) of a deck that is not silent."""
        last = min((at for gone, at in state.ending if gone is deck), default=math.inf)

        def heard(message: OscMessage) -> bool:
            return message.sample < last and ahead.is_open(state, deck.name, message.sample)

        own: Iterable[OscMessage] = ()
        found = ahead.steps(state, deck, begin, end) if listening else {}
        if deck.to is not None and deck.to.kind == "osc":
            own = ahead.osc(state, deck, begin, end, found, self._sent)
        elif deck.to is not None and deck.to.kind == "superdirt":
            own = ahead.superdirt(state, deck, begin, end, self._orbits[deck.name])
        if deck.to is not None:
            yield from ((deck.to.place, m) for m in own if heard(m))
        if listening:
            every = [m for m in ahead.events(state.tempo, deck.name, found) if heard(m)]
            yield from ((place, m) for place in dict.fromkeys(listening) for m in every)

    def _midi(
        self, state: State, deck: DeckState, begin: Fraction, end: Fraction, ear: Ear
    ) -> None:
        if deck.to is None or deck.to.kind != "midi":
            return
        last = min((at for gone, at in state.ending if gone is deck), default=math.inf)
        line = self.lines[deck.to.place]
        for message in ahead.midi(state, deck, begin, end, self._sent):
            if message.sample >= last or not ahead.is_open(state, deck.name, message.sample):
                # What was not sent is sent when the deck is heard again.
                self._sent.pop((deck.name, "program"), None)
                continue
            over = min(message.end, last) if isinstance(message, MidiNote) else message.sample
            line.play(deck.name, ear.moment(message.sample), message, ear.moment(over))

    def _give_orbits(self, decks: Mapping[str, DeckState]) -> None:
        """A number for each deck to SuperDirt, in their order; a new one gets the first free."""
        names = [d.name for d in decks.values() if d.to and d.to.kind == "superdirt"]
        self._orbits = {name: at for name, at in self._orbits.items() if name in names}
        for name in names:
            free = (at for at in itertools.count() if at not in self._orbits.values())
            self._orbits[name] = self._orbits.get(name, next(free))

    def _end_notes(self, state: State, decks: Mapping[str, DeckState], here: int) -> None:
        """Open the ports that decks name; end the notes of decks that are silent now."""
        places = {d.name: d.to.place for d in decks.values() if d.to and d.to.kind == "midi"}
        for place in set(places.values()) - self.lines.keys():
            self.lines[place] = MidiLine(place, backend=self._backend, start=self._start)
        playing = {(n, place) for n, place in places.items() if ahead.is_open(state, n, here)}
        for name, place in self._open - playing:
            self.lines[place].silence(name)
        self._open = playing
        for place in self.lines.keys() - set(places.values()):
            gone = self.lines.pop(place)
            gone.close()
            self.lost += gone.dropped
        for line in self.lines.values():
            self._say(line.problem)

    # --- sending -------------------------------------------------------------------------------

    def _send(self, place: str, packets: Iterable[bytes]) -> None:
        """Send packets, never waiting: what the system does not take now is lost."""
        address = self._address_of(place)
        if address is None:
            return
        family, where = address
        if family not in self._sockets:
            self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
            self._sockets[family].setblocking(False)
        for packet in packets:
            try:
                self._sockets[family].sendto(packet, where)
            except OSError:
                self.lost += 1

    def _address_of(self, place: str) -> Address | None:
        """None of a place that was not named at the start: a set may name others."""
        known = self._outside.get(place)
        if known is not None:
            return known
        if place not in self._addresses:
            self._addresses[place] = None
            if self._session.may_send(place):
                try:
                    self._addresses[place] = _address(place)
                except DemonError as error:
                    self._say(str(error))
            else:
                self._say(f"nothing is sent to {place}: demon live --osc-to {place} allows it")
        return self._addresses[place]

    def _say(self, text: str) -> None:
        """Tell the performer, each thing once."""
        if text and text not in self._said:
            self._said.add(text)
            self._session.tell(text)

    def _complain(self, now: float) -> None:
        if any(self.counts()) and now - self._complained >= _COMPLAINT:
            self._complained = now
            log.warning("out: %d messages lost, %d stretches late", *self.counts())

    def close(self) -> None:
        """End all notes, close ports and sockets. Twice is fine."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2)
        for line in self.lines.values():
            line.close()
        for one in self._sockets.values():
            one.close()
        self.lines.clear()
        self._sockets.clear()


def _is_osc(deck: DeckState) -> bool:
    return deck.to is not None and deck.to.kind == "osc"
