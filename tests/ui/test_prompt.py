"""The prompt, key by key, drawn on a screen of its own."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from demon_live.paths import shipped
from demon_live.session.scores import score_name
from demon_live.ui.controller import Leaving, UiController
from demon_live.ui.prompt import Repl
from tests.helpers.ui_fakes import FakeSession

ROWS, COLUMNS = 40, 80
Script = Callable[["Harness"], "asyncio.Future[None]"]


class _Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Harness:
    """A prompt on a terminal emulator, and the keys to play it."""

    def __init__(self, session: FakeSession, history: Path) -> None:
        self.session = session
        self.history = history
        self.leaving: Leaving = "end"
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._out = _Tty()
        self.repl: Repl

    def lines(self) -> list[str]:
        self._stream.feed(self._out.getvalue())
        self._out.seek(0)
        self._out.truncate()
        return [line.rstrip() for line in self.screen.display]

    def everything(self) -> str:
        """What is on the screen and what was scrolled off it."""
        shown = self.lines()
        gone = [
            "".join(row[x].data for x in range(COLUMNS)).rstrip() for row in self.screen.history.top
        ]
        return "\n".join([*gone, *shown])

    def keys(self, text: str) -> None:
        self._pipe.send_text(text)

    async def sees(self, text: str) -> None:
        for _ in range(500):
            if text in self.everything():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{text!r} never came:\n{self.everything()}")

    async def until(self, true: Callable[[], bool]) -> None:
        for _ in range(500):
            if true():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it never came true:\n{self.everything()}")

    def play(self, script: Callable[[Harness], object]) -> None:
        """Run the prompt with `script` at the keys; the script must make it leave."""

        async def both() -> None:
            running = asyncio.ensure_future(self.repl.run())
            await self.sees("demon>")
            await script(self)  # type: ignore[misc]
            await asyncio.wait_for(running, 5)

        with create_pipe_input() as self._pipe:
            size = Size(rows=ROWS, columns=COLUMNS)
            output = Vt100_Output(self._out, lambda: size, term="xterm", enable_cpr=False)
            controller = UiController(
                self.session,  # type: ignore[arg-type]
                leaving=self.leaving,
            )
            self.repl = Repl(
                controller, input=self._pipe, output=output, history=self.history, hz=50
            )
            asyncio.run(both())
            controller.close()


@pytest.fixture
def stage(tmp_path: Path) -> Harness:
    return Harness(FakeSession(), tmp_path / "history")


def test_a_statement_is_evaluated_and_answered(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("blend = .5\r")
        await s.sees("blend · from bar 6 · class step")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["blend = .5"]
    assert "demon> blend = .5" in stage.everything()


def test_an_error_shows_caret_and_hint_and_the_prompt_goes_on(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("wrong = 1\r")
        await s.sees("still playing: everything, as before")
        s.keys("blend = 1\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    stage.play(script)
    assert "^^^^^" in stage.everything()
    assert stage.session.applied == ["blend = 1"]


def test_a_fault_of_ours_does_not_end_the_set(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("crash\r")
        await s.sees("this failed inside demon: RuntimeError: a fault of ours")
        s.keys("blend = 1\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    stage.play(script)


def test_an_open_brace_opens_a_line_and_alt_enter_evaluates(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("scene a {\r")
        await s.sees("   ...")
        s.keys("blend = 1\r}\r")
        await s.sees("scene · from bar 6")
        s.keys("deck b {\x1b\r")
        await s.sees("deck · from bar 6")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["scene a {\nblend = 1\n}", "deck b {"]


def test_ctrl_c_cancels_what_is_typed_and_nothing_else(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("blend = 7")
        await s.sees("demon> blend = 7")
        s.keys("\x03")
        await s.until(lambda: s.repl.prompt.text == "")
        s.keys("\x03")
        await s.sees("the sound goes on")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == []


def test_alt_dot_hushes_and_keeps_what_is_typed(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("blend = .5\x1b.")
        await s.sees("hush · from bar 6")
        assert s.repl.prompt.text == "blend = .5"
        s.keys("\x03\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["hush"]


def test_alt_digit_mutes_a_deck_and_back(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("\x1b1")
        await s.sees("mute · from bar 6")
        s.keys("\x1b9\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["mute main"]


def test_leaving_a_recorded_set_asks_once(stage: Harness) -> None:
    stage.session.recording("friday")

    async def script(s: Harness) -> None:
        await s.sees("● friday")
        s.keys("\x04")
        await s.sees("friday is being recorded")
        assert not s.repl.app.is_done
        s.keys("\x04")

    stage.play(script)


def test_ctrl_d_asks_before_it_ends_the_session(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("\x04")
        await s.sees("Ctrl-D again, or end, ends it")
        s.keys("blend = .5\r")
        await s.sees("from bar 6")
        s.keys("\x04")
        await s.until(lambda: s.everything().count("Ctrl-D again") == 2)
        assert not s.repl.app.is_done
        s.keys("end\r")

    stage.play(script)
    assert stage.session.applied == ["blend = .5"]


def test_ctrl_d_in_a_prompt_that_joined_detaches(stage: Harness) -> None:
    stage.leaving = "detach"

    async def script(s: Harness) -> None:
        await s.sees("Ctrl-D leaves")
        s.keys("\x04")
        await s.until(lambda: s.session.applied == ["detach"])
        s.keys("quit\r")

    stage.play(script)


def test_what_others_say_is_shown_and_what_is_typed_here_is_not(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("blend = .5\r")
        await s.sees("from bar 6")
        s.session.lines += ["prompt: blend = .5", "prompt: blend = .5", "send: lpf = 900"]
        await s.sees("send: lpf = 900")
        assert s.everything().count("prompt: blend = .5") == 1
        s.keys("\x04\x04")

    stage.play(script)


def test_ctrl_c_leaves_a_search(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("\x12saw")
        await s.sees("I-search backward: saw")
        s.keys("\x03")
        await s.until(lambda: not s.repl.app.layout.is_searching)
        s.keys("blend = .5\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["blend = .5"]


def test_f1_on_a_number_explains_the_control(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("denoise = .5\x1bOP")
        await s.sees("class slot: set when a generation is born")
        s.keys("\x03\x04\x04")

    stage.play(script)


def test_events_come_above_the_prompt_without_tearing_it(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        typed = ""
        for k, letter in enumerate("blend = sine.slow(4).range(.2, 1)"):
            s.session.lines.append(f"patterns/x.demon: saved for the {k}th time")
            s.keys(letter)
            typed += letter
            await s.until(lambda t=typed: s.repl.prompt.text == t)
        await s.sees("saved for the 32th time")
        rows = s.lines()
        prompts = [row for row in rows if "demon>" in row]
        assert prompts == [f"demon> {typed}"], rows
        assert sum("╭" in row for row in rows) == 1
        s.keys("\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    stage.play(script)
    whole = stage.everything()
    assert [k for k in range(33) if f"saved for the {k}th time\n" not in whole] == []
    assert stage.session.applied == ["blend = sine.slow(4).range(.2, 1)"]


def test_questions_are_answered_here(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("?blend\r")
        await s.sees("0 keeps the source exactly")
        s.keys("?lead\r")
        await s.sees("ahead of the playhead")
        s.keys("?blent\r")
        await s.sees("did you mean blend")
        s.keys("?\r")
        await s.sees("Ctrl-D")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == []


def test_the_tour_is_walked_with_enter_alone(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("tour\r")
        await s.sees("tour 0 of")
        await s.sees('demon> blend = "1 .2 1 .2"')
        played = f"send: {score_name(shipped('patterns') / s.session.loaded[0])}"
        s.session.lines += ["prompt: snapshot before_tour", played, "send: lpf = 900"]
        await s.sees("send: lpf = 900")
        assert "before_tour" not in s.everything()
        assert played not in s.everything()
        s.keys("\r")
        await s.sees("Four steps a bar")
        await s.until(lambda: s.repl.controller.offered == "tour")
        s.keys("\r")
        await s.sees("tour 1 of")
        s.keys("tour 99\r")
        await s.sees("tour 0 begins again")
        s.keys("tour 5\r")
        await s.sees("tour 5 of")
        s.keys("wrong = 1\r")
        await s.sees("Place, cause, remedy")
        s.keys("\x04\x04")

    stage.play(script)
    assert stage.session.applied == [
        "snapshot before_tour",
        "main.blend = default",
        'blend = "1 .2 1 .2"',
    ]
    assert [name[:2] for name in stage.session.loaded] == ["00", "01"]
    assert [name[:2] for name in stage.session.removed] == ["00"]


def test_every_step_of_the_tour_plays_and_its_line_does_what_it_says() -> None:
    from demon_live.errors import DemonError
    from demon_live.lang import compile_source
    from demon_live.ui.tour import STEPS, Tour

    session, tour = FakeSession(), Tour()
    for i, step in enumerate(STEPS):
        said = "".join(text for _, text in tour.go(session, "", 80))
        assert f"tour {i} of {len(STEPS) - 1}" in said
        assert all(len(line) < 101 for line in said.split("\n"))
        assert tour.take() == step.line
        assert tour.take() == ""
        if step.title == "mistakes cost nothing":
            with pytest.raises(DemonError):
                compile_source(step.line)
        elif step.line != "stage":
            compile_source(step.line)
        assert tour.follow_up()
        assert tour.follow_up() == []
    assert len(session.loaded) == sum(bool(s.score) for s in STEPS)


def test_what_played_before_the_tour_waits_and_comes_back(tmp_path: Path) -> None:
    from demon_live.ui.tour import Tour
    from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run

    instrument, tour = offline(MockEngine(by_prompt), tmp_path), Tour()
    session = instrument.session
    (tmp_path / "mine.demon").write_text("tempo 120\nloop 1\nprompt = 'a'\nlpf = 3000\n")
    session.load(tmp_path / "mine.demon")
    session.apply("denoise = .3\ndeck pads { gain = .4 }\nmute main")
    run(instrument, 48_000)
    session.apply("hush")

    def heard() -> list[tuple[str, str, str]]:
        run(instrument, 480_000)
        decks = session.state.decks.items()
        return sorted((d, c, lane.text) for d, deck in decks for c, lane in deck.bound.items())

    before = heard()
    told = "".join(text for _, text in tour.go(session, "9"))
    assert "`tour end` brings back what played" in told
    assert not any("lpf" in row and "3000" in row for row in heard())
    assert list(session.state.decks) == ["main", "air"]
    assert not session.state.hushed
    assert not session.state.muted
    tour.go(session, "3")
    tour.go(session, "end")
    assert heard() == before
    assert list(session.scores()) == [str(tmp_path / "mine.demon")]
    assert session.state.bpm == 120
    assert session.state.muted == {"main"}
    assert "there is no tour" in "".join(text for _, text in tour.go(session, "end"))


def test_tab_takes_the_line_that_is_laid_ready(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("tour\r")
        await s.until(lambda: s.repl.controller.offered != "")
        s.keys("\t")
        await s.until(lambda: s.repl.prompt.text == 'blend = "1 .2 1 .2"')
        s.keys("\x03\x04\x04")

    stage.play(script)
    assert stage.session.applied == ["snapshot before_tour", "main.blend = default"]


def test_completion_shows_the_range_and_enter_takes_it(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("deno")
        await s.sees("0..1")
        s.keys("\t")
        await s.until(lambda: s.repl.prompt.text.startswith("denoise"))
        s.keys("\r")
        await s.until(lambda: s.repl.prompt.complete_state is None)
        assert s.session.applied == []
        s.keys("\x03\x04\x04")

    stage.play(script)


def test_the_hint_line_is_about_the_word_under_the_cursor(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("denoise = .")
        await s.sees("denoise  0..1, default 1, slot.")
        s.keys("\x03\x04\x04")

    stage.play(script)


def test_lines_are_remembered_over_sets(stage: Harness, tmp_path: Path) -> None:
    async def first(s: Harness) -> None:
        s.keys("blend = .25\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    async def second(s: Harness) -> None:
        await s.until(lambda: len(s.repl.prompt._working_lines) > 1)
        s.keys("\x1b[A")
        await s.until(lambda: s.repl.prompt.text == "blend = .25")
        s.keys("\x03\x04\x04")

    stage.play(first)
    Harness(FakeSession(), tmp_path / "history").play(second)


def test_a_session_that_fails_to_answer_leaves_the_prompt_alive(stage: Harness) -> None:
    def broken() -> None:
        raise RuntimeError("no status")

    async def script(s: Harness) -> None:
        s.session.status = broken  # type: ignore[method-assign,assignment]
        s.keys("blend = 1\r")
        await s.sees("from bar 6")
        s.keys("\x04\x04")

    stage.play(script)


def test_control_z_undoes_and_no_control_character_enters_the_line(stage: Harness) -> None:
    async def script(h: Harness) -> None:
        h.keys("\x1ablend")
        await h.sees("demon> blend")
        h.keys("\x1a" * 12)
        await h.until(lambda: h.repl.prompt.text == "")
        # Pasted, and quoted by Ctrl-Q (emacs keys).
        h.keys("\x1b[200~bl\x1a\x00end\x07 = .3\x1b[201~\x11\x01")
        await h.until(lambda: h.repl.prompt.text == "blend = .3")
        h.keys("\r")
        await h.until(lambda: h.session.applied == ["blend = .3"])
        h.keys("\x04\x04")

    stage.play(script)


def test_a_word_of_any_length_can_be_pasted(stage: Harness) -> None:
    async def script(h: Harness) -> None:
        # More than a pipe holds.
        await asyncio.to_thread(h.keys, "\x1b[200~" + "x" * 100_000 + "\x1b[201~y")
        await h.until(lambda: len(h.repl.prompt.text) == 100_001)
        h.keys("z")
        await h.until(lambda: h.repl.prompt.text.endswith("xyz"))
        h.keys("\x03")
        await h.until(lambda: h.repl.prompt.text == "")
        h.keys("\x04\x04")

    stage.play(script)


def test_keys_tap_the_tempo_and_change_it(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        s.keys("\x1bt\x1b=\x1b=\x1b-\x1b-\x1b-")
        await s.until(lambda: len(s.session.applied) == 6)
        s.keys("\x04\x04")

    stage.play(script)
    tempos = ["tempo 129", "tempo 130", "tempo 129", "tempo 128", "tempo 127"]
    assert stage.session.applied == ["tap", *tempos]


def test_a_click_on_the_panel_mutes_its_deck(stage: Harness) -> None:
    async def script(s: Harness) -> None:
        rows = s.repl._panel()
        (reach,) = {piece[2].args for piece in rows if "deck.title" in piece[0]}  # type: ignore[misc]
        assert [target.deck for target in reach[0]] == ["main"]
        s.repl.controller.mute_deck("main")
        await s.until(lambda: s.session.applied == ["mute main"])
        s.keys("\x04\x04")

    stage.play(script)
