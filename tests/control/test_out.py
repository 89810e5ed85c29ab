"""What decks play elsewhere leaves ahead of the sound, stamped with the moment it is heard."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pythonosc.osc_message import OscMessage

from demon_live.control import ahead, midi
from demon_live.control import out as module
from demon_live.control.ahead import MidiControl, MidiNote
from demon_live.control.out import LOOKAHEAD, MidiLine, Out, bundles, resolve, wall_offset
from demon_live.control.sync import Ear, Sync
from demon_live.errors import DemonError, UsageError
from demon_live.lang import compile_source
from demon_live.lang.controllers import Key, Move
from demon_live.paths import shipped
from demon_live.replay.to_score import to_score
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.session.output import NullOutput
from demon_live.session.scores import as_score
from demon_live.session.session import Session
from demon_live.sets.journal import SetEvent
from tests.helpers.fake_midi import FakeBackend
from tests.helpers.mock_engine import MockEngine, by_prompt, edges, offline

BAR = 96_000
LATENCY = 0.03
#: Moments of the virtual clocks at sample 0.
T0, WALL = 1000.0, 5000.0


@dataclass
class Pace:
    t0: float = T0
    latency_s: float = LATENCY


@dataclass
class Wire(FakeBackend):
    """Ports that note when they were sent to."""

    outputs: list[str] = field(default_factory=lambda: ["nanoKEY"])
    now: float = 0.0
    rows: list[tuple[float, bytes]] = field(default_factory=list)

    def open_output(self, name: str):  # type: ignore[no-untyped-def]
        port = super().open_output(name)

        def send(data: bytes) -> None:
            self.rows.append((self.now, data))

        return SimpleNamespace(send=send, close=port.close)


class Stage:
    """An instrument on a virtual clock, a receiver of OSC and a MIDI port."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(time=lambda: WALL, monotonic=lambda: T0)
        monkeypatch.setattr(module, "time", clock)
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind(("127.0.0.1", 0))
        self.receiver.setblocking(False)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.place = f"127.0.0.1:{self.receiver.getsockname()[1]}"
        self.wire, self.ear = Wire(), Ear(Pace())
        self.instrument = offline(MockEngine(by_prompt), folder)
        self.session = self.instrument.session
        self.out = self.new_out()
        self.sound: list[np.ndarray] = []
        #: (sample of the tag, address, values, seconds ahead of its being heard).
        self.got: list[tuple[int, str, tuple[object, ...], float]] = []

    def new_out(self, **options: object) -> Out:
        return Out(self.session, Pace, backend=self.wire, start=False, **options)  # type: ignore[arg-type]

    def play(self, bars: float, step: float = 0.02) -> None:
        """Let time pass, with a stretch planned every `step` seconds."""
        mixer = self.instrument.output.mixer
        end = mixer.position + bars * BAR
        while mixer.position < end:
            before = mixer.position
            self.sound.append(self.instrument.turn()[:, 0])
            moment, after = self.ear.moment(before), self.ear.moment(mixer.position)
            while moment < after:
                self.out.turn(moment)
                self.receive(moment)
                for k in range(round(step * 1000)):
                    self.wire.now = moment + k / 1000
                    for line in self.out.lines.values():
                        line.run(self.wire.now)
                moment += step

    def receive(self, now: float) -> None:
        while True:
            try:
                data = self.receiver.recv(65536)
            except BlockingIOError:
                return
            assert data.startswith(b"#bundle\0")
            whole, part = struct.unpack(">II", data[8:16])
            moment = whole - 2_208_988_800 + part / 2**32 - WALL + T0
            at = 16
            while at < len(data):
                size = int.from_bytes(data[at : at + 4], "big")
                message = OscMessage(data[at + 4 : at + 4 + size])
                at += 4 + size
                sample = round(self.ear.sample(moment))
                row = (sample, message.address, tuple(message.params), moment - now)
                self.got.append(row)

    def rows(self, address: str) -> list[tuple[int, tuple[object, ...]]]:
        return [(sample, values) for sample, name, values, _ in self.got if name == address]

    def notes(self) -> list[tuple[int, int, int]]:
        """(sample at which it is heard, status, pitch or controller)."""
        return [(round(self.ear.sample(t)), d[0], d[1]) for t, d in self.wire.rows]

    def close(self) -> None:
        self.out.close()
        self.receiver.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.close()


def near(found: list[int], wanted: list[int], slack: int = 48) -> bool:
    return len(found) == len(wanted) and all(
        abs(a - b) <= slack for a, b in zip(found, wanted, strict=True)
    )


# --- OSC -------------------------------------------------------------------------------------


def test_a_step_is_stamped_with_the_sample_that_is_heard(stage: Stage) -> None:
    stage.session.apply(
        f'tempo 120\nloop 2\nprompt = "<a b>"\n'
        f'deck lights {{ to osc "{stage.place}"; colour = "<red blue>"; dimmer = "1 ~ .5 ~" }}'
    )
    stage.play(4.2)
    heard = [x for x in edges(np.concatenate(stage.sound), 0.1, 0.2) if x > 4800]
    colours = stage.rows("/lights/colour")
    assert [values for _, values in colours[:4]] == [("red",), ("blue",), ("red",), ("blue",)]
    assert near([sample for sample, _ in colours[1:4]], heard[:3], slack=1)
    dimmer = stage.rows("/lights/dimmer")[:4]
    assert dimmer == [(0, (1.0,)), (BAR // 2, (0.5,)), (BAR, (1.0,)), (BAR + BAR // 2, (0.5,))]


def test_all_leaves_ahead_of_the_sound_by_at_most_the_lookahead(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = "1*16"; b = sine }}')
    stage.play(3)
    ahead = [seconds for sample, _, _, seconds in stage.got if sample > BAR]
    assert len(ahead) > 100
    assert max(ahead) <= LOOKAHEAD
    assert min(ahead) > LOOKAHEAD - 0.03
    assert stage.out.late == 0


def test_each_step_is_sent_once_whatever_the_stretches_are(stage: Stage) -> None:
    stage.session.apply(f'tempo 133\nquant 0\ndeck x {{ to osc "{stage.place}"; a = "0 1 2 3 4" }}')
    stage.play(4, step=0.013)
    values = [int(value) for _, (value,) in stage.rows("/x/a")]
    assert values == [k % 5 for k in range(len(values))]
    assert len(values) > 15


def test_a_curve_is_sent_where_it_moves_and_a_constant_at_each_bar(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = saw; b = .5; c = square }}')
    stage.play(2)
    saw = [(sample, value) for sample, (value,) in stage.rows("/x/a") if sample < BAR]
    assert len(saw) == 80
    assert all(abs(value - sample / BAR) < 1e-4 for sample, value in saw)
    assert stage.rows("/x/b")[:2] == [(0, (0.5,)), (BAR, (0.5,))]
    squares = [sample for sample, _ in stage.rows("/x/c")][:4]
    assert squares == [0, BAR // 2, BAR, BAR + BAR // 2]


def test_what_changes_is_sent_anew_behind_what_has_left(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = .5 }}')
    stage.play(1.25)
    stage.session.apply("x.a = .75 now")
    stage.play(0.5)
    changed = [sample for sample, values in stage.rows("/x/a") if values == (0.75,)]
    now = 1.25 * BAR
    assert len(changed) == 1
    assert now - 4800 <= changed[0] <= now + (LOOKAHEAD + 0.05) * 48_000


def test_a_name_that_is_new_sends_nothing_before_its_bar_nor_after_its_end(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = .5 }}')
    stage.play(1.5)
    stage.session.apply("x.b = .25")
    stage.play(2)
    stage.session.apply("x.b = default")
    stage.play(2)
    assert stage.rows("/x/b") == [(2 * BAR, (0.25,)), (3 * BAR, (0.25,))]


def test_undo_goes_back_to_where_a_deck_went(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = "1*4" }}')
    stage.play(1)
    stage.session.apply('deck x { to osc "127.0.0.1:9" }')
    stage.play(1)
    gone = len(stage.rows("/x/a"))
    stage.play(1)
    assert len(stage.rows("/x/a")) == gone
    outcome = stage.session.apply("undo")
    assert outcome.messages == (f"x: goes to osc {stage.place}, ahead of the sound",)
    stage.play(1)
    assert len(stage.rows("/x/a")) > gone


def test_a_tempo_that_changes_moves_what_is_sent_with_the_sound(stage: Stage) -> None:
    stage.session.apply(f'tempo 120\ndeck x {{ to osc "{stage.place}"; a = "0 1" }}')
    stage.play(1)
    stage.session.apply("tempo 60")
    stage.play(6)
    tempo = stage.session.state.tempo
    samples = [sample for sample, _ in stage.rows("/x/a")]
    wanted = [tempo.sample_at(Fraction(k, 2)) for k in range(len(samples))]
    assert near(samples, wanted, slack=1)
    assert len(tempo.segments) == 2


def test_a_mute_and_a_hush_keep_back_what_has_not_left(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = "1*8" }}')
    stage.play(1)
    stage.session.apply("mute x at 2")
    stage.play(2)
    assert max(sample for sample, _ in stage.rows("/x/a")) < 2 * BAR
    stage.session.apply("unmute x")
    stage.play(0.5)
    stage.session.apply("hush")
    count = len(stage.got)
    stage.play(1)
    assert len(stage.got) == count


def test_a_deck_that_is_off_ends_at_its_bar_and_undo_brings_it_back(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = "1*4" }}\ndeck y {{ gain = 1 }}')
    stage.play(0.5)
    stage.session.apply("deck x off")
    stage.play(1.5)
    assert max(sample for sample, _ in stage.rows("/x/a")) == BAR - BAR // 4
    stage.session.apply("undo")
    stage.play(2)
    assert max(sample for sample, _ in stage.rows("/x/a")) > 3 * BAR


def test_every_destination_of_osc_gets_the_events_of_all_decks(stage: Stage) -> None:
    stage.session.apply(
        "tempo 120\nloop 2\ngain = \"1 .5\"\nprompt = 'a'\n"
        f'deck x {{ to osc "{stage.place}"; a = "3" }}'
    )
    stage.play(1.5)
    events = stage.rows("/demon/event")
    gains = [row for row in events if row[1][:2] == ("main", "gain")]
    assert gains[:2] == [
        (0, ("main", "gain", 1.0, 0.0, 1.0)),
        (BAR // 2, ("main", "gain", 0.5, 0.5, 1.0)),
    ]
    # A constant is no event.
    assert not [row for row in events if row[1][1] == "prompt"]


# --- SuperDirt -------------------------------------------------------------------------------


def dirt(values: tuple[object, ...]) -> dict[object, object]:
    return dict(zip(values[::2], values[1::2], strict=True))


def test_superdirt_gets_notes_in_tidals_form(stage: Stage) -> None:
    stage.session.apply(
        f'tempo 120\ndeck d {{ to superdirt "{stage.place}"; s = "bd sn:3 ~ hh"; gain = "1 .8"\n'
        "pan = .5; orbit = 2 }"
    )
    stage.play(1)
    rows = [(sample, dirt(values)) for sample, values in stage.rows("/dirt/play")][:3]
    assert [sample for sample, _ in rows] == [0, BAR // 4, 3 * BAR // 4]
    first = {"s": "bd", "gain": 1.0, "pan": 0.5, "orbit": 2}
    first |= {"cps": 0.5, "cycle": 0.0, "delta": 0.5, "_id_": "d"}
    assert rows[0][1] == first
    assert (rows[1][1]["s"], rows[1][1]["n"], rows[1][1]["cycle"]) == ("sn", 3.0, 0.25)
    assert rows[2][1]["gain"] == pytest.approx(0.8)
    assert not stage.rows("/demon/event")


def test_decks_have_orbits_in_their_order_and_keep_them(stage: Stage) -> None:
    def orbits(begin: int) -> dict[object, object]:
        rows = [(sample, dirt(values)) for sample, values in stage.rows("/dirt/play")]
        return {row["_id_"]: row["orbit"] for sample, row in rows if sample >= begin}

    to = f'to superdirt "{stage.place}"'
    stage.session.apply(
        f'deck d1 {{ {to}; s = "bd*4" }}\ndeck d2 {{ {to}; s = "hh*4" }}\n'
        f'deck d3 {{ {to}; s = "sn*4"; orbit = 7 }}'
    )
    stage.play(1)
    assert orbits(0) == {"d1": 0, "d2": 1, "d3": 7}
    stage.session.apply("deck d1 off")
    stage.play(2)
    assert orbits(2 * BAR) == {"d2": 1, "d3": 7}
    stage.session.apply(f'deck d4 {{ {to}; s = "cp*4" }}')
    stage.play(2)
    assert orbits(4 * BAR) == {"d2": 1, "d3": 7, "d4": 0}


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        ("s = 'superpiano'; note = \"c4 e4 g4\"", [0.0, 4.0, 7.0]),
        ("s = 'superpiano'; note = \"0 ~ 7\"", [0.0, 7.0]),
        ("s = 'superpiano'; note = 'Am'", [-3.0, 0.0, 4.0]),
        ('s = "x*2"; note = "<0 5>*2"', [0.0, 5.0]),
        ('s = "x*2"; note = 3', [3.0, 3.0]),
        ('note = "0 2"; s = "x ~"', [0.0]),
    ],
)
def test_the_rhythm_is_that_of_the_first_pattern_with_steps(
    stage: Stage, score: str, wanted: list[float]
) -> None:
    stage.session.apply(f'deck d {{ to superdirt "{stage.place}"; {score} }}')
    stage.play(0.8)
    found = [dirt(v)["note"] for sample, v in stage.rows("/dirt/play") if sample < BAR]
    assert found == wanted


# --- MIDI ------------------------------------------------------------------------------------


def test_midi_notes_are_sent_when_they_are_heard_and_end(stage: Stage) -> None:
    stage.session.apply(
        "tempo 120\ndeck synth { to midi 'nano' 3; note = \"c4 [e4,g4]\"; legato = .5 }"
    )
    stage.play(1.5)
    half, notes = BAR // 2, stage.notes()
    assert [(status, pitch) for _, status, pitch in notes[:6]] == [
        (0x92, 60), (0x82, 60), (0x92, 64), (0x92, 67), (0x82, 64), (0x82, 67),
    ]  # fmt: skip
    wanted = [0, half // 2, half, half, half + half // 2, half + half // 2]
    assert near([sample for sample, _, _ in notes[:6]], wanted)


def test_a_program_is_sent_when_it_changes_and_before_the_note(stage: Stage) -> None:
    def sent() -> list[bytes]:
        rows = [data for _, data in stage.wire.rows if data[0] & 0xF0 in (0xC0, 0x90)]
        stage.wire.rows.clear()
        return rows

    note = bytes((0x92, 60, 102))
    stage.session.apply("tempo 120\ndeck synth { to midi 'nano' 3; note = \"c4\"; program = 5 }")
    stage.play(2.5)
    assert sent() == [bytes((0xC2, 5)), note, note, note]
    stage.session.apply('deck synth { program = "200" }')
    stage.play(3)
    assert sent() == [bytes((0xC2, 127)), note, note, note]
    # What was not sent while the deck was muted is sent once it is heard.
    stage.session.apply("mute synth now")
    stage.play(0.5)
    stage.session.apply("deck synth { program = 9 }")
    stage.play(2)
    sent()
    stage.session.apply("unmute synth now")
    stage.play(2)
    assert sent()[0] == bytes((0xC2, 9))


def test_status_counts_what_was_lost_or_late(stage: Stage) -> None:
    assert stage.out.counts() == (0, 0)
    stage.session.apply("deck synth { to midi 'nano' 1; note = 60 }")
    stage.play(1)
    line = stage.out.lines["nano"]
    line.dropped += 2
    stage.out.lost += 1
    assert stage.out.counts() == (3, 0)
    # A port that no deck names any more takes nothing away from the count.
    stage.session.apply("deck synth off")
    stage.play(3)
    assert (stage.out.lines, stage.out.counts()) == ({}, (3, 0))
    stage.session.out_counts = stage.out.counts
    assert stage.session.status().out == (3, 0)


def test_controllers_are_sent_when_their_seven_bits_change(stage: Stage) -> None:
    stage.session.apply('deck synth { to midi \'nano\'; cc74 = "0 1"; cc1 = saw; bend = "-1 0" }')
    stage.play(1)
    rows = [data for _, data in stage.wire.rows]
    assert [r for r in rows if r[:2] == bytes((0xB0, 74))][:2] == [
        bytes((0xB0, 74, 0)), bytes((0xB0, 74, 127)),
    ]  # fmt: skip
    wheel = [r[2] for r in rows if r[:2] == bytes((0xB0, 1))]
    assert wheel[:60] == sorted(set(wheel[:60]))
    bends = [r for r in rows if r[0] == 0xE0]
    assert bends[:2] == [bytes((0xE0, 0, 0)), bytes((0xE0, 0, 64))]


@pytest.mark.parametrize(
    "word", ["hush", "panic", "mute synth", "solo main", "deck synth off", "synth_elsewhere"]
)
def test_no_note_hangs(stage: Stage, word: str) -> None:
    stage.session.apply("tempo 30\ndeck synth { to midi 'nano' 1; note = \"c4 e4\" }\ngain = 1")
    stage.play(0.5)
    assert stage.notes()[-1][1:] == (0x90, 60)
    if word == "synth_elsewhere":
        word = "deck synth { to midi 'other' 1 }"
    stage.session.apply(word)
    stage.play(4.2)
    ons = [p for _, status, p in stage.notes() if status == 0x90]
    offs = [p for _, status, p in stage.notes() if status == 0x80]
    assert sorted(ons) == sorted(offs)


def test_the_end_of_a_session_ends_its_notes(stage: Stage) -> None:
    stage.session.apply("tempo 30\ndeck synth { to midi 'nano' 1; note = \"[c4,e4] g4\" }")
    stage.play(0.5)
    stage.out.close()
    assert {row[1:] for row in stage.notes()[-2:]} == {(0x80, 60), (0x80, 64)}


def test_a_note_that_is_played_again_ends_first_and_ends_once() -> None:
    wire = Wire()
    line = MidiLine("nano", backend=wire, start=False)
    for at in (0.0, 1.0):
        line.play("x", at, MidiNote(0, 0, 0, 60, 100), at + 3)
    for tenth in range(60):
        wire.now = tenth / 10
        line.run(wire.now)
    on, off = bytes((0x90, 60, 100)), bytes((0x80, 60, 0))
    assert wire.rows == [(0.0, on), (1.0, off), (1.0, on), (4.0, off)]


def test_a_port_takes_a_bounded_number_and_drops_what_is_late() -> None:
    wire = Wire()
    line = MidiLine("nano", backend=wire, start=False)
    for k in range(5000):
        line.play("x", 10.0, MidiControl(0, bytes((0xB0, 1, k % 128))), 10.0)
    assert line.dropped == 5000 - 4096
    line.run(11.0)
    assert not wire.rows
    assert line.dropped == 5000


def test_a_port_sends_in_a_thread_of_its_own_and_a_slow_one_holds_up_nobody() -> None:
    held, wire = threading.Event(), Wire()
    sent: list[bytes] = []

    def send(data: bytes) -> None:
        held.wait(20)
        sent.append(data)

    wire.open_output = lambda name: SimpleNamespace(send=send, close=lambda: None)  # type: ignore[method-assign]
    line = MidiLine("nano", backend=wire)
    until(lambda: not line.problem)
    for k in range(100):
        now = time.monotonic()
        line.play("x", now, MidiNote(0, 0, 0, 60 + k % 12, 100), now + 100)
    assert len(sent) < 100
    held.set()
    line.close()
    ons, offs = ([d[1] for d in sent if d[0] == status] for status in (0x90, 0x80))
    assert sorted(ons) == sorted(offs)


def until(found) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- where it may go ---------------------------------------------------------------------------


def test_a_score_alone_does_not_send_beyond_this_machine(tmp_path: Path) -> None:
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session._outside = ("10.0.0.5:9000",)
    instrument.session.apply('deck x { to osc "10.0.0.5:9000"; a = 1 }')
    before = instrument.session.state
    for text in ('deck y { to osc "10.0.0.6:9000"; a = 1 }', 'deck x { to superdirt "a.net:1" }'):
        with pytest.raises(DemonError) as caught:
            instrument.session.apply(text)
        assert "--osc-to" in str(caught.value)
        assert caught.value.span is not None
    assert instrument.session.state is before


def test_a_set_that_names_others_is_played_and_nothing_is_sent_there(stage: Stage) -> None:
    stage.session._outside = ()
    text = 'deck x { to osc "10.255.255.1:9"; a = "1*4" }'
    stage.session.apply(text, replay=True)
    stage.play(0.5)
    lines = [line for line in stage.session.events(0)[1] if "10.255.255.1:9" in line]
    assert lines == [
        "nothing is sent to 10.255.255.1:9: demon live --osc-to 10.255.255.1:9 allows it"
    ]


def test_places_are_resolved_at_the_start() -> None:
    assert list(resolve(["127.0.0.1:9", "9000"])) == ["127.0.0.1:9", "127.0.0.1:9000"]
    for wrong in ("127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "no such host:1"):
        with pytest.raises(UsageError):
            resolve([wrong])


def test_a_destination_that_is_gone_costs_nothing(stage: Stage) -> None:
    stage.session.apply(
        'deck x { to osc "127.0.0.1:9"; a = "1*16" }\n'
        f'deck y {{ to osc "{stage.place}"; a = "1 2" }}'
    )
    stage.play(1)
    assert [sample for sample, _ in stage.rows("/y/a")][:2] == [0, BAR // 2]


def test_a_stretch_that_is_planned_too_late_is_counted(stage: Stage) -> None:
    stage.session.apply("loop 2\nprompt = 'a'")
    stage.play(1)
    stage.out.turn(stage.ear.moment(2 * BAR))
    assert stage.out.late == 0
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; fog = "1 2" }}')
    stage.out.turn(stage.ear.moment(3 * BAR))
    assert stage.out.late == 1


def test_a_stretch_that_leaves_after_it_was_to_be_heard_is_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.session.apply(f"loop 2\nprompt = 'a'\ndeck x {{ to osc \"{stage.place}\"; fog = sine }}")
    stage.play(0.5)
    assert stage.out.late == 0
    # Planning takes a second.
    clock = SimpleNamespace(time=lambda: WALL, monotonic=iter(np.arange(1000.0)).__next__)
    monkeypatch.setattr(module, "time", clock)
    stage.out.turn(stage.ear.moment(BAR // 2 + 4800))
    assert stage.out.late == 1


def test_bundles_stay_under_the_size_of_a_packet() -> None:
    found = bundles([(1.5, b"x" * 400)] * 5 + [(1.25, b"y" * 8)])
    assert [len(data) for data in found] == [28, 16 + 3 * 404, 16 + 2 * 404]
    assert struct.unpack(">II", found[1][8:16]) == (2_208_988_801, 1 << 31)


def test_events_reach_the_places_that_the_command_line_names(stage: Stage) -> None:
    stage.out = stage.new_out(outside=resolve([stage.place]))
    stage.session.apply('tempo 120\nloop 2\ngain = "1 .5 .2"')
    stage.play(0.6)
    found = [values[2] for _, values in stage.rows("/demon/event")]
    assert [round(float(str(x)), 3) for x in found[:2]] == [1.0, 0.5]


# --- the score -------------------------------------------------------------------------------


def test_a_set_in_which_a_deck_leaves_becomes_a_score_that_can_be_played(stage: Stage) -> None:
    stage.session.apply("tempo 120\nloop 2\nprompt = 'a'\ndeck b { prompt = 'c' }")
    stage.play(1.5)
    stage.session.apply(f'deck b {{ to osc "{stage.place}"; fog = "1 2" }}')
    stage.play(4)
    stage.session.apply("deck b { to superdirt; s = 'bd' }")
    stage.play(8)
    recording = stage.session.journal.recording()
    end = SetEvent("end", 8 * BAR)
    recording = replace(recording, events=(*recording.events, end), path=None)
    text = to_score(recording, list(dry_run(recording)))
    Session(NullOutput()).apply(text, "x.demon", "file")
    assert f'deck b\nto osc "{stage.place}"' in text
    # A chain moves no deck: while it is elsewhere than in the score, nothing is said of it.
    assert [line for line in text.splitlines() if line.startswith("# bar")] == [
        f"# bar {bar}: deck b to {where} (a chain does not move decks there)"
        for bar, where in (
            (0, "none"),
            (2, f'osc "{stage.place}"'),
            (6, 'superdirt "127.0.0.1:57120"'),
        )
    ]
    assert "'bd'" not in text


def test_a_scene_may_speak_of_the_loop_of_a_deck_that_is_elsewhere(stage: Stage) -> None:
    stage.session.apply("scene drop { deck x { loop 2; source none; gain = .5 } }\nprompt = 'a'")
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; fog = "1*16" }}')
    stage.play(1)
    saved = as_score(stage.session.state)
    Session(NullOutput()).apply(saved, "x.demon", "file")
    stage.session.apply("go drop now")
    stage.play(2)
    assert stage.session.state.decks["x"].loops == ()
    stage.session.apply("deck x { to none }")
    stage.play(3)
    loop = stage.session.state.decks["x"].loop
    assert loop is not None
    assert loop.cycles == 2


def test_a_deck_that_goes_elsewhere_makes_no_sound_and_has_no_loop(stage: Stage) -> None:
    stage.session.apply(
        f"loop 2\nprompt = 'a'\ndeck x {{ to osc \"{stage.place}\"; prompt = 'c' }}"
    )
    stage.play(2)
    state = stage.session.state
    assert state.decks["x"].loops == ()
    assert list(stage.instrument.output.mixer.render(1).shape) == [480, 2]
    assert float(np.concatenate(stage.sound)[-4800:].max()) == pytest.approx(0.1, abs=1e-3)
    view = next(deck for deck in stage.session.status().decks if deck.name == "x")
    assert view.to == f"osc {stage.place}"
    stage.session.apply("tempo 100")
    stage.play(3)
    assert stage.session.state.decks["x"].loops == ()


def test_a_deck_can_leave_the_loudspeaker_and_come_back(stage: Stage) -> None:
    stage.session.apply("loop 2\nprompt = 'a'")
    stage.play(1.5)
    stage.session.apply(f'deck main {{ to osc "{stage.place}" }}')
    stage.play(2)
    assert abs(np.concatenate(stage.sound)[-4800:]).max() == 0.0
    assert stage.rows("/main/prompt")
    stage.session.apply("to none")
    stage.play(4)
    assert float(np.concatenate(stage.sound)[-4800:].max()) == pytest.approx(0.1, abs=1e-3)
    stage.session.apply("undo")
    stage.play(2)
    assert abs(np.concatenate(stage.sound)[-4800:]).max() == 0.0


def test_a_score_that_no_longer_says_where_lets_the_deck_sound(
    stage: Stage, tmp_path: Path
) -> None:
    score = tmp_path / "x.demon"
    score.write_text(
        f"prompt = 'a'\ndeck b {{ to osc \"{stage.place}\"; prompt = 'b'; fog = 1 }}\n"
    )
    stage.session.load(score)
    stage.play(1)
    score.write_text("prompt = 'a'\ndeck b { prompt = 'b' }\n")
    stage.session.load(score)
    stage.play(5)
    assert stage.session.state.decks["b"].to is None
    assert float(np.concatenate(stage.sound)[-4800:].max()) == pytest.approx(0.3, abs=2e-3)


def test_what_is_saved_says_where_decks_go(stage: Stage) -> None:
    text = f'deck x {{ to osc "{stage.place}"; fog = "1 2" }}\n'
    text += "deck s { to midi 'nano' 2; cc1 = .5 }"
    stage.session.apply(text)
    stage.play(1)
    program = compile_source(as_score(stage.session.state))
    assert set(program.decks["x"]) == {"fog"}
    assert f'to osc "{stage.place}"' in program.text
    assert "to midi 'nano' 2" in program.text


def test_a_render_says_once_that_it_has_sound_only(tmp_path: Path) -> None:
    with Offline(MockEngine(by_prompt), folders=(tmp_path,)) as loop:  # type: ignore[arg-type]
        first = loop.session.apply('deck x { to osc "10.0.0.9:1"; a = 1 }')
        again = loop.session.apply('deck y { to midi "k" 2; note = 60 }')
    assert first.warnings == ("x goes to osc 10.0.0.9:1: a render has sound only",)
    assert again.warnings == ()


def test_a_knob_that_moves_is_sent(stage: Stage) -> None:
    stage.session.apply(f'deck x {{ to osc "{stage.place}"; a = cc(21) }}')
    stage.play(1)
    assert not stage.rows("/x/a")
    stage.session.hear([Move(Key("cc", 21, 1), 0.25)])
    stage.play(1)
    assert stage.rows("/x/a")[-1][1] == (pytest.approx(0.25, abs=1e-3),)


def test_a_chain_of_scenes_plays_elsewhere_too(stage: Stage) -> None:
    stage.session.apply(
        'quant 0\ntempo 120\nscene calm { lights.a = "1 2"; lights.gain = .5 }\n'
        'scene wild { lights.a = "3*4"; lights.gain = default }\n'
        f'deck lights {{ to osc "{stage.place}" }}\n'
        "chain calm 1, wild 1"
    )
    stage.play(1.8)
    steps = [(sample * 4 // BAR, value) for sample, (value,) in stage.rows("/lights/a")]
    wanted = [(0, 1.0), (2, 2.0), (4, 3.0), (5, 3.0), (6, 3.0), (7, 3.0)]
    assert [row for row in steps if row[0] < 8] == wanted
    assert [row for row in stage.rows("/lights/gain") if row[0] < 2 * BAR] == [(0, (0.5,))]


def test_a_set_keeps_where_decks_go_and_replays_it(stage: Stage, tmp_path: Path) -> None:
    stage.session.apply("record 'friday'")
    text = (
        f'tempo 110\nloop 2\nprompt = \'a\'\ndeck x {{ to osc "{stage.place}"; fog = "1 <2 3>" }}'
    )
    stage.session.apply(text)
    stage.play(1.5)
    stage.session.apply('x.fog = "4 5"\nx.haze = saw over 2')
    stage.play(3)
    recording = stage.session.journal.recording()
    moments = list(dry_run(recording))
    said, played = moments[-1].state, stage.session.state
    assert said.decks["x"].to == played.decks["x"].to is not None
    for cycle in (Fraction(1, 2), Fraction(3), Fraction(4)):
        rows = [ahead.steps(s, s.decks["x"], cycle, cycle + 1)["fog"] for s in (said, played)]
        assert rows[0] == rows[1] != []
    again = to_score(replace(recording, path=None), moments)
    program = compile_source(again)
    assert f'to osc "{stage.place}"' in again
    assert "lights" not in program.decks
    assert any("fog" in row.control for s in program.scenes.values() for row in s.body)


def test_the_page_compiles() -> None:
    page = (shipped("examples") / "elsewhere.md").read_text("utf-8")
    blocks = [b for b in re.split(r"\n\n(?!    )", page) if "    deck " in b]
    assert len(blocks) == 3
    for block in blocks:
        rows = [line[4:] for line in block.split("\n") if line.startswith("    ")]
        assert not compile_source("\n".join(rows)).warnings


def test_a_thread_of_its_own_sends_what_plays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        session = Session(NullOutput(), outside=())
        pace = Pace(t0=time.monotonic(), latency_s=0.0)
        out = Out(session, lambda: pace)
        try:
            session.apply(f'deck x {{ to osc "127.0.0.1:{receiver.getsockname()[1]}"; a = "1*8" }}')
            out.wake()
            while b"/x/a" not in (data := receiver.recv(65536)):
                pass
        finally:
            out.close()
        whole, part = struct.unpack(">II", data[8:16])
        moment = whole - 2_208_988_800 + part / 2**32 - wall_offset()
        # On the grid of eighths of a bar.
        place = (moment - pace.t0) * 8 / 2
        assert abs(place - round(place)) < 0.02


def test_the_clock_goes_to_the_ports_that_decks_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Port:
        problem = ""

        def __init__(self, name: str = "") -> None:
            opened.append(name)

        def send(self, data: bytes) -> bool:
            return True

        def close(self) -> None:
            opened.append("closed")

    monkeypatch.setattr(midi, "MidiOut", Port)
    session = Session(NullOutput(), outside=())
    sync = Sync(session)
    session.apply("clock out")
    sync.turn(Pace(t0=time.monotonic()))
    session.apply("deck s { to midi 'nano' 1; note = 60 }")
    sync.turn(Pace(t0=time.monotonic()))
    sync.close()
    assert opened == ["", "closed", "nano", "closed"]
