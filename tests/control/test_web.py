"""The web view: who may see it, what it is told, and how it looks in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket as sockets
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from demon_live.audio.pcmring import LoopBuffer
from demon_live.control import web as module
from demon_live.control.web import PageRequest, WebServer, parse_web, token
from demon_live.control.web_state import BANDS, COLUMNS, WAVE, PageState, picture_of
from demon_live.control.wire import WireError
from demon_live.core import RATES
from demon_live.errors import DeviceError, ScoreError
from demon_live.session.session import Session
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run
from tests.tools.chromium import Chromium, chromium

SECRET = "s" * 32
SCORE = "tempo 120\nloop 2\nblend = \".2 .8\"\ndenoise = saw.slow(2)\nprompt = 'dub techno'\n"


# --- pictures -----------------------------------------------------------------------------------


def test_a_tone_is_a_line_at_its_pitch() -> None:
    t = np.arange(4 * RATES.sample_rate) / RATES.sample_rate
    tone = np.sin(2 * np.pi * 1000 * t).astype(np.float32) * 0.5
    shape = picture_of(np.stack([tone, tone], 1))
    assert shape.spectrum.shape == (COLUMNS, BANDS)
    loudest = set(shape.spectrum.argmax(axis=1).tolist())
    band = int(np.log(1000 / 45) / np.log(14_000 / 45) * BANDS)
    assert max(abs(b - band) for b in loudest) <= 1
    assert shape.wave.shape == (WAVE,)
    assert set((shape.wave // 8).tolist()) == {127 // 8}


@pytest.mark.parametrize("samples", [1, 100, 48_001])
def test_any_loop_has_a_picture_and_silence_is_black(samples: int) -> None:
    assert picture_of(np.zeros((samples, 2), np.float32)).spectrum.max() == 0
    broken = np.full((samples, 2), np.nan, np.float32)
    assert picture_of(broken).wave.max() == 0


# --- what a page may say ------------------------------------------------------------------------


def test_a_page_may_say_how_many_frames_it_wants() -> None:
    assert parse_web(b'{"frames": 10}') == PageRequest(10)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"{}", b"[]", b'{"frames": 0}', b'{"frames": true}', b'{"frames": 1e9}',
     b'{"frames": 10, "eval": "hush"}', b"[" * 1024, b" " * 1025],
)  # fmt: skip
def test_a_page_may_say_nothing_else(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_web(data)


@given(st.binary(max_size=100) | st.text(max_size=60).map(str.encode))
def test_any_message_is_a_hello_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(parse_web(data), PageRequest)


# --- serving ------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Session:
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.output.folder = tmp_path  # type: ignore[attr-defined]
    session = instrument.session
    session.apply(SCORE, str(tmp_path / "x.demon"), "file")
    run(instrument, 24_000)
    stage = session.state.decks["main"].loop
    assert stage is not None
    ring = LoopBuffer.create(tmp_path / f"main-{stage.epoch}.loop", stage.samples)
    t = np.arange(stage.samples) / RATES.sample_rate
    ring.audio[:] = (0.4 * np.sin(2 * np.pi * 220 * t * (1 + (t % 1) * 4)))[:, None]
    return session


@pytest.fixture
def server(session: Session) -> Iterator[WebServer]:
    server = WebServer(session, 0, secret=SECRET)
    yield server
    server.close()


def get(server: WebServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def socket(server: WebServer, secret: str = SECRET, origin: str | None = None) -> ClientConnection:
    at = f"127.0.0.1:{server.port}"
    return connect(f"ws://{at}/ws?t={secret}", origin=origin or f"http://{at}", proxy=None)  # type: ignore[arg-type]


def test_the_page_is_served_to_who_has_the_token(server: WebServer) -> None:
    answer = get(server, f"/?t={SECRET}")
    assert answer.status == 200
    assert b"<title>demon</title>" in answer.body  # type: ignore[attr-defined]
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert get(server, "/app.js").status == 200
    page = get(server, f"/visuals?t={SECRET}")
    assert b"<title>demon visuals</title>" in page.body  # type: ignore[attr-defined]
    assert page.headers["Content-Security-Policy"] == policy
    assert server.visuals.endswith(f"/visuals?t={SECRET}")


def test_every_script_that_a_page_imports_is_served(server: WebServer) -> None:
    folder = Path(module.__file__).parent / "page"
    texts = [path.read_text("utf-8") for path in folder.iterdir()]
    named = {name for text in texts for name in re.findall(r'["`](/\w+\.(?:js|css))', text)}
    assert {"/sketch.js", "/inputs.js", "/moment.js", "/style.css"} <= named
    assert {get(server, f"{name}?t={SECRET}").status for name in named} == {200}


def test_a_sketch_that_was_named_takes_the_place_of_ours(session: Session, tmp_path: Path) -> None:
    sketch = tmp_path / "mine.js"
    sketch.write_text("export default () => () => {};\n")
    server = WebServer(session, 0, secret=SECRET, sketch=sketch)
    try:
        answer = get(server, f"/sketch.js?t={SECRET}")
        assert answer.body == sketch.read_bytes()  # type: ignore[attr-defined]
        assert get(server, "/sketch.js").status == 403
        # Code that is made at run time runs on this page alone.
        for path, allowed in (("/visuals", True), ("/", False)):
            policy = get(server, f"{path}?t={SECRET}").headers["Content-Security-Policy"]
            assert ("script-src 'self' 'unsafe-eval';" in policy) == allowed
        sketch.unlink()
        assert get(server, f"/sketch.js?t={SECRET}").status == 404
    finally:
        server.close()


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run it with")
def test_the_inputs_of_a_sketch(tmp_path: Path) -> None:
    module_file = tmp_path / "inputs.mjs"
    shutil.copy(Path(module.__file__).parent / "page" / "inputs.js", module_file)
    kick = {"control": "kick", "notes": [[0, 0.1, 0, 1], [0.5, 0.1, 0, 0.5]]}
    lead = {"control": "lead", "notes": [[0, 0.1, 0.5, 1]]}
    gain = {"control": "gain", "samples": [0, 255], "low": 0, "high": 2}
    decks = [
        {"name": "main", "cycles": 2, "muted": False, "lanes": [kick, lead, gain]},
        {"name": "off", "cycles": 1, "muted": True, "lanes": [kick]},
        {"name": "bare", "cycles": 4, "muted": False, "lanes": []},
    ]
    moment = {
        "cycle": 5.0, "bpm": 120, "beats": 4, "peaks": [-24, -60],
        "slots": [[0, 2, 8, 0.5]], "scene": {"decks": decks},
        "sounds": {"2": {"wave": [0, 255, 0, 0], "image": None}},
    }  # fmt: skip
    script = f"""
        import {{ inputs }} from {module_file.as_uri()!r};
        console.log(JSON.stringify(inputs({json.dumps(moment)}, 1500)));
        console.log(JSON.stringify(inputs({{...{json.dumps(moment)}, cycle: 3.5}}, 0)));"""
    code = tmp_path / "run.mjs"
    code.write_text(script)
    ran = subprocess.run(["node", code], capture_output=True, text=True, check=True, timeout=120)
    found, other = map(json.loads, ran.stdout.splitlines())
    main, off, bare = found["decks"]
    assert (found["now"], found["bar"], found["beat"], found["loud"]) == (1.5, 0, 0, 0.5)
    assert found["slots"] == [{"deck": 0, "done": 0.25, "denoise": 0.5}]
    # In the middle of the loop: the second hit, half as hard; a melody is no hit.
    assert (main["playhead"], main["hits"], main["lanes"]) == (0.5, {"kick": 0.5}, {"gain": 1})
    assert (off["hit"], off["loud"]) == (0, 0)
    assert (bare["playhead"], bare["loud"], bare["hit"]) == (0.25, 1, 1)
    assert found["hit"] == 1
    assert found["hits"] == {"kick": 0.5}
    # A bar and a half on, the second hit has fallen over half a bar of four beats.
    assert other["hits"]["kick"] == pytest.approx(0.5 * np.exp(-4))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 403),
        ("/?t=wrong", 403),
        ("/?t=", 403),
        ("/visuals", 403),
        ("/visuals?t=wrong", 403),
        ("/sketch.js", 403),
        ("/?t=%C3%A9", 403),
        ("/ws?t=" + SECRET, 403),
        (f"/../wire.py?t={SECRET}", 404),
        (f"/page/index.html?t={SECRET}", 404),
        (f"/%2e%2e/wire.py?t={SECRET}", 404),
    ],
)
def test_nothing_else_is_served(server: WebServer, path: str, status: int) -> None:
    assert get(server, path).status == status


def test_a_name_that_was_made_to_point_here_is_no_way_in(server: WebServer) -> None:
    assert get(server, f"/?t={SECRET}", Host="evil.example").status == 403


def _raw(server: WebServer, request: bytes) -> bytes:
    """The first line of the answer to any bytes."""
    with sockets.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        return connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "request_",
    [
        "GET /?t={t} HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n",
        "GET //[x HTTP/1.1\r\nHost: {h}\r\n\r\n",
        "GET http://[/?t={t} HTTP/1.1\r\nHost: {h}\r\n\r\n",
        "GET /?t={t} HTTP/1.1\r\n\r\n",
        "GET /?t={t} HTTP/1.1\r\nHost: [\r\n\r\n",
        "GET /ws?t={t} HTTP/1.1\r\nHost: {h}\r\nOrigin: http://{h}\r\n"
        "Origin: http://evil.example\r\n\r\n",
    ],
)
def test_a_hostile_request_is_a_fault_of_who_asks(server: WebServer, request_: str) -> None:
    request = request_.format(t=SECRET, h=f"127.0.0.1:{server.port}")
    assert _raw(server, request.encode("latin-1")).startswith(b"HTTP/1.1 4")


def test_silent_strangers_take_a_bounded_number_of_connections(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 4)
    with socket(server) as page, contextlib.ExitStack() as open_:
        strangers = [
            open_.enter_context(sockets.create_connection(("127.0.0.1", server.port), timeout=60))
            for _ in range(20)
        ]
        # The last one is served although the others were there before it.
        request = f"GET /?t={SECRET} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
        strangers[-1].sendall(request.encode())
        assert strangers[-1].recv(4096).startswith(b"HTTP/1.1 200")
        assert len(server._strangers) <= 4
        for stranger in strangers[:16]:
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        assert "hello" in words(page, {"hello"})


@pytest.mark.parametrize(
    ("secret", "origin"),
    [("wrong", None), (SECRET, "http://evil.example"), (SECRET, "http://127.0.0.1:1")],
)
def test_a_websocket_needs_token_and_origin(
    server: WebServer, secret: str, origin: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        socket(server, secret, origin)
    assert refused.value.response.status_code == 403


def words(page: ClientConnection, kinds: set[str]) -> dict[str, object]:
    """The first word of each kind."""
    found: dict[str, object] = {}
    while not kinds <= found.keys():
        word = page.recv(20)
        if isinstance(word, bytes):
            found.setdefault("sound", word)
        else:
            row = json.loads(word)
            found.setdefault(row["k"], row)
            if "L" in row:
                found.setdefault("lit", row["L"])
    return found


def test_a_page_is_told_decks_scores_frames_lit_steps_and_sound(server: WebServer) -> None:
    with socket(server) as page:
        found = words(page, {"hello", "scene", "score", "f", "sound", "lit"})
    scene = found["scene"]
    assert isinstance(scene, dict)
    lanes = {lane["control"]: lane for lane in scene["decks"][0]["lanes"]}
    assert lanes["prompt"]["value"] == "dub techno"
    assert max(lanes["denoise"]["samples"]) > 200
    score = found["score"]
    assert isinstance(score, dict)
    assert score["files"][0]["text"] == SCORE
    assert [row[2] for row in score["files"][0]["live"]] == [1, 1, 1]
    sound = found["sound"]
    assert isinstance(sound, bytes)
    assert struct.unpack("<BBHHH", sound[:8]) == (1, 0, COLUMNS, BANDS, WAVE)
    assert len(sound) == 8 + COLUMNS * BANDS + WAVE


def test_a_broken_score_is_shown_with_its_line(session: Session, tmp_path: Path) -> None:
    with pytest.raises(ScoreError):
        session.apply("blend = 1\nblent = 2\n", str(tmp_path / "x.demon"), "file")
    shown = json.loads(PageState(session).look()["score"])
    assert shown["errors"][0]["line"] == 2
    assert "blend" in shown["errors"][0]["hint"]


def test_a_page_is_told_the_notes_of_the_loop(session: Session) -> None:
    session.apply('kick = "1 ~ .4 ~" now\nbass = "e1 g3" now')
    (deck,) = json.loads(PageState(session).look()["scene"])["decks"][:1]
    notes = {lane["control"]: lane.get("notes") for lane in deck["lanes"]}
    bars = deck["cycles"]
    assert len(notes["kick"]) == 2 * bars
    assert notes["kick"][:2] == [[0.0, 0.25 / bars, 0.0, 1.0], [0.5 / bars, 0.25 / bars, 0.0, 0.4]]
    assert [height for _, _, height, _ in notes["bass"]] == [0.0, 1.0] * bars
    assert notes["prompt"] is None


def test_a_page_is_told_the_depth_where_a_deck_goes_and_how_far_a_take_is(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.apply("depth auto\ndeck synth { to superdirt; note = 60 }")
    page = PageState(session)
    scene = json.loads(page.look()["scene"])
    assert scene["depth"] == session.status().telemetry.depth > 0
    decks = {deck["name"]: deck for deck in scene["decks"]}
    assert decks["synth"]["to"].startswith("superdirt")
    assert (decks["main"]["to"], decks["main"]["taken"]) == ("", "")
    (main, *_) = session.status().decks
    taking = replace(session.status(), decks=(replace(main, taken="in: bar 3 of 4"),))
    monkeypatch.setattr(session, "status", lambda: taking)
    assert json.loads(page.look()["scene"])["decks"][0]["taken"] == "in: bar 3 of 4"


def test_only_what_changed_is_told_again(session: Session) -> None:
    painter = PageState(session)
    assert set(painter.look()) == {"scene", "score"}
    assert painter.look() == {}
    assert painter.sound() is not None
    assert painter.sound() is None
    session.apply("blend = .5 now")
    assert "scene" in painter.look()


def test_a_page_that_says_something_else_is_sent_away(server: WebServer) -> None:
    with socket(server) as page:
        page.send('{"eval": "hush"}')
        with pytest.raises(ConnectionClosed) as closed:
            words(page, {"never"})
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_a_page_that_does_not_read_holds_up_no_other(server: WebServer) -> None:
    with socket(server) as deaf, socket(server) as other:
        frames = 0
        while frames < 100:
            word = other.recv(20)
            frames += isinstance(word, str) and '"k":"f"' in word
        assert deaf.recv(20)


def test_pages_are_bounded(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 1)
    with socket(server), pytest.raises(InvalidStatus) as refused:
        socket(server)
    assert refused.value.response.status_code == 503


def test_without_a_page_nothing_is_computed(server: WebServer, session: Session) -> None:
    counted = SimpleNamespace(n=0)
    before = session.status
    session.status = lambda: (setattr(counted, "n", counted.n + 1), before())[1]  # type: ignore[method-assign]
    threading.Event().wait(0.3)
    assert counted.n == 0


def test_a_port_that_is_taken_is_said_with_its_remedy(server: WebServer, session: Session) -> None:
    with pytest.raises(DeviceError, match="cannot be served") as error:
        WebServer(session, server.port, secret=SECRET)
    assert "--web" in str(error.value)


def test_the_token_is_kept_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path))
    first = token()
    assert token() == first
    assert len(first) >= 32
    path = tmp_path / "web-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert token() != first


# --- in a browser -------------------------------------------------------------------------------

browser = pytest.mark.skipif(chromium() is None, reason="there is no Chromium to look with")
DRAWN = "document.querySelectorAll('#scores .lit').length > 0"
#: How many of the canvas's pixels are not the ground.
PAINTED = """(() => { const c = new OffscreenCanvas(64, 64).getContext('2d');
c.drawImage(document.getElementById('stage'), 0, 0, 64, 64);
const d = c.getImageData(0, 0, 64, 64).data; let n = 0;
for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / 4096; })()"""
#: The right edge of the widest part of the page, with as long a line below as there may be.
WIDEST = """(() => { document.querySelector('footer span').textContent = 'word '.repeat(200);
return Math.max(...[...document.body.children].map(e => e.getBoundingClientRect().right)); })()"""

#: The sketch has a canvas of the screen's width; or it has said that it cannot draw here.
SKETCHED = "document.getElementById('visuals')?.width === innerWidth"
WITHOUT = "document.getElementById('wrong')?.textContent.includes('no WebGL')"


@browser
@pytest.mark.timeout(300)
def test_the_page_draws_at_both_sizes_comes_back_and_says_nothing_wrong(
    session: Session, tmp_path: Path
) -> None:
    server = WebServer(session, 0, secret=SECRET)
    port = server.port
    with Chromium() as window:
        page = window.open(server.url, 1280, 720)
        for width, height in ((1280, 720), (1920, 1080)):
            page.size(width, height)
            page.until(DRAWN)
            page.until(f"{PAINTED} > .6")
            assert page.value(f"{WIDEST}") <= width
            assert page.value("document.getElementById('scores').scrollHeight <= innerHeight")
        assert "dub techno" in page.value("document.getElementById('scores').innerText")
        assert page.console == []

        server.close()
        page.until("!document.getElementById('away').hidden")
        page.console.clear()  # that nobody answers is written there by the browser itself
        server = WebServer(session, port, secret=SECRET)
        page.until("document.getElementById('away').hidden")
        page.until(DRAWN)

        page.console.clear()
        for _ in range(int(os.environ.get("DEMON_TEST_REFRESHES", "10"))):
            page.reload()
            page.until("document.querySelectorAll('#scores pre').length > 0")
        page.until(f"{PAINTED} > .6")
        assert page.console == []

        page.go(server.visuals)
        page.until(f"{SKETCHED} || {WITHOUT}")
        assert [line for line in page.console if line.startswith("exception")] == []
    server.close()
