"""OSC: packets become causes; what is wrong is counted, shown and harmless."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from demon_live.control import osc as module
from demon_live.control.osc import Evaluate, Knob, Listen, OscServer, Turn, parse_address, parse_osc
from demon_live.control.wire import WireError
from demon_live.errors import DemonError, DeviceError, UsageError
from demon_live.lang.controllers import Key, Move
from demon_live.paths import install
from tests.helpers.ui_fakes import FakeSession


def packet(address: str, *values: object) -> bytes:
    message = OscMessageBuilder(address=address)
    for value in values:
        message.add_arg(value)
    return message.build().dgram


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packet("/demon/eval", "blend = .5"), Evaluate("blend = .5")),
        (packet("/demon/hush"), Evaluate("hush")),
        (packet("/demon/control/blend", 0.5), Turn("main", "blend", 0.5)),
        (packet("/demon/control/bass/blend", 1), Turn("bass", "blend", 1.0)),
        (packet("/demon/control/prompt", "dub"), Turn("main", "prompt", "dub")),
        (packet("/demon/control/lights/fog", 1), Turn("lights", "fog", 1.0)),
        (packet("/demon/cc", 21, 0.25), Knob(21, 0.25, 1)),
        (packet("/demon/cc", 21, 1.0, 3), Knob(21, 1.0, 3)),
        (packet("/demon/telemetry", 5), Listen(5.0)),
        (packet("/demon/telemetry", 999), Listen(30.0)),
    ],
)
def test_a_message_is_understood(data: bytes, message: object) -> None:
    assert parse_osc(data) == (message,)


def test_turns_are_statements_that_play_at_once() -> None:
    assert Turn("main", "blend", 0.25).text == "main.blend = 0.25 now"
    assert Turn("main", "blend", 1e-5).text == "main.blend = 0.00001 now"
    assert Turn("main", "prompt", "dub").text == "main.prompt = 'dub' now"


def test_a_bundle_holds_several() -> None:
    bundle = OscBundleBuilder(IMMEDIATELY)
    for value in (0.1, 0.2):
        message = OscMessageBuilder(address="/demon/control/blend")
        message.add_arg(value)
        bundle.add_content(message.build())
    found = parse_osc(bundle.build().dgram)
    assert [round(m.value, 3) for m in found if isinstance(m, Turn)] == [0.1, 0.2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"/demon/eval",
        packet("/other"),
        packet("/demon/eval"),
        packet("/demon/eval", 7),
        packet("/demon/eval", "x" * 9000),
        packet("/demon/eval", "save x"),
        packet("/demon/eval", "hush\nload '/etc/passwd'"),
        packet("/demon/control/nope", 1.0),
        packet("/demon/control/x/a b", 1.0),
        packet("/demon/control/x/a = 1\nhush", 1.0),
        packet("/demon/control/blend"),
        packet("/demon/control/blend", float("nan")),
        packet("/demon/control/blend", float("inf")),
        packet("/demon/control/a b/blend", 1.0),
        packet("/demon/control/prompt", "x' now\nsave y"),
        packet("/demon/cc", 128, 0.5),
        packet("/demon/cc", 1, 2.0),
        packet("/demon/cc", "x", 2.0),
        b"#bundle\x00" + b"\x00" * 7 + b"\x01" + struct.pack(">i", -5),
        b"#bundle\x00" + b"\x00" * 8 + struct.pack(">i", -4),
        b"#bundle\x00" + b"\x00" * 8 + struct.pack(">i", 8) + b"junk\x00\x00\x00\x00",
        b"x" * (module.MAX_PACKET + 1),
    ],
)
def test_what_is_wrong_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_osc(data)


@pytest.mark.parametrize("size", [-4, -8, -(1 << 31)])
def test_the_librarys_walk_over_bundles_is_never_used(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-osc's goes back by an element of size -4, and never ends."""
    from pythonosc import osc_bundle, osc_packet

    def never(*_: object) -> None:
        raise AssertionError("the library walks over a bundle")

    monkeypatch.setattr(osc_bundle.OscBundle, "__init__", never)
    monkeypatch.setattr(osc_packet.OscPacket, "__init__", never)
    head = b"#bundle\x00" + b"\x00" * 8
    hush = packet("/demon/hush")
    good = head + struct.pack(">i", len(hush)) + hush
    assert parse_osc(good) == (Evaluate("hush"),)
    for bad in (good + struct.pack(">i", size), head + struct.pack(">i", size) + hush):
        nested = head + struct.pack(">i", len(bad)) + bad
        for data in (bad, nested):
            with pytest.raises(WireError, match="wrong size"):
                parse_osc(data)


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda head, tail: head + b"\x00" * (4 - len(head) % 4) + tail,
        st.sampled_from([b"/demon/eval", b"/demon/control/blend", b"#bundle", b"/demon/cc"]),
        st.binary(max_size=80)
        | st.builds(lambda tags, rest: b"," + tags + rest, st.binary(max_size=8), st.binary()),
    )
)
def test_any_packet_is_messages_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert len(parse_osc(data)) <= module.MAX_MESSAGES


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("[::1]:9000", ("::1", 9000)),
    ],
)
def test_an_address_is_loopback_unless_told(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1", "1:99999", "a:b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


class Session(FakeSession):
    """Hears knobs, too."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[Move] = []

    def hear(self, moves: Sequence[Move]) -> None:
        self.moves += moves

    def tell(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def server(session: Session) -> Iterator[OscServer]:
    server = OscServer(session, "0")
    yield server
    server.close()


@pytest.fixture
def client(server: OscServer) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        yield client


def answer(client: socket.socket) -> tuple[str, list[object]]:
    message = OscMessage(client.recv(65536))
    return message.address, list(message.params)


def until(found: object) -> None:
    end = time.monotonic() + 20
    while not found():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_statement_is_evaluated_and_answered(client: socket.socket, session: Session) -> None:
    client.send(packet("/demon/eval", "blend = 1"))
    assert answer(client) == ("/demon/reply", ["blend · from bar 6 · class step"])
    assert session.applied == ["blend = 1"]


def test_an_error_is_answered_as_the_session_shows_it(client: socket.socket) -> None:
    client.send(packet("/demon/eval", "x = wrong"))
    address, (text,) = answer(client)
    assert address == "/demon/error"
    assert "did you mean blend?" in str(text)


def test_bad_packets_are_counted_and_shown_and_the_next_is_heard(
    client: socket.socket, session: Session, server: OscServer
) -> None:
    for _ in range(20):
        client.send(b"nonsense")
    client.send(packet("/demon/eval", "blend = 1"))
    until(lambda: session.applied)
    until(lambda: session.lines)
    assert server.bad == 20
    assert "could not be read" in session.lines[0]
    assert len(session.lines) <= 2


def test_a_moving_control_becomes_few_causes_and_its_last_value_counts(
    client: socket.socket, session: Session
) -> None:
    for n in range(100):
        client.send(packet("/demon/control/blend", n / 99))
    until(lambda: session.applied and session.applied[-1] == "main.blend = 1 now")
    assert len(session.applied) < 50


def test_knobs_are_heard_as_moves(client: socket.socket, session: Session) -> None:
    client.send(packet("/demon/cc", 21, 0.5))
    until(lambda: session.moves)
    assert session.moves == [Move(Key("cc", 21, 1), 0.5)]


def test_figures_are_sent_to_who_asks(client: socket.socket) -> None:
    client.send(packet("/demon/telemetry", 30))
    for _ in range(2):
        address, figures = answer(client)
        assert address == "/demon/telemetry"
        assert figures[:2] == [5.5, 128.0]
        assert figures[-1] == "fine"


def test_a_flood_of_statements_is_bounded_and_counted(
    client: socket.socket, session: Session, server: OscServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_limit", module.RateLimit(0.001, 3))
    for _ in range(10):
        client.send(packet("/demon/eval", "blend = 1"))
    until(lambda: server.dropped == 7)
    assert len(session.applied) == 3


def test_a_port_that_is_taken_is_said_with_its_remedy(server: OscServer, session: Session) -> None:
    with pytest.raises(DeviceError, match="cannot listen") as error:
        OscServer(session, str(server.port))
    assert "another port" in str(error.value)


def test_the_network_is_warned_of(session: Session) -> None:
    OscServer(session, "0.0.0.0:0").close()
    assert "no password" in session.lines[0]


def test_without_the_package_the_remedy_is_named(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pythonosc.osc_message_builder", None)
    with pytest.raises(DemonError, match="python-osc") as error:
        OscServer(session, "0")
    assert install("osc") in str(error.value)
