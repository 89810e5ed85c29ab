"""The ring that rests: nothing is generated, and nothing decoded, that is known already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from demon_live.audio.mixer import BLOCK
from demon_live.core import Floats
from demon_live.engine.ring import RingStats
from demon_live.engine.store import Store
from demon_live.runtime.offline import Offline
from tests.helpers.mock_engine import MockEngine, by_prompt, edges, offline, run

BAR = 96_000  # at tempo 120
HEAD = "tempo 120\nloop 2\nprompt = 'a'\n"


class Counted(MockEngine):
    """decodes: windows so far."""

    def __init__(self, level: Callable[[Any], float] = by_prompt) -> None:
        super().__init__(level)
        self.decodes = 0

    def decode(self, latent: Floats) -> Floats:
        self.decodes += 1
        return super().decode(latent)


def playing(text: str, bars: int = 0) -> Offline:
    stage = offline(Counted())
    stage.session.apply(HEAD + text)
    if bars:
        run(stage, bars * BAR)
    return stage


def stats(stage: Offline) -> RingStats:
    return stage.output.generator.ring.stats()


def decodes(stage: Offline) -> int:
    engine = stage.output.engine
    assert isinstance(engine, Counted)
    return engine.decodes


def test_a_score_that_stands_still_is_made_once_and_costs_no_tick_and_no_decode() -> None:
    stage = playing("blend = sine.slow(2).range(.2, .9)", bars=6)
    ticks, windows = stage.output.generator.ring.tick_number, decodes(stage)
    assert stats(stage).made == 1
    out = run(stage, 60 * BAR // 2)
    assert stage.output.generator.ring.tick_number == ticks + 15  # a look at the store each lap
    assert (stats(stage).made, decodes(stage)) == (1, windows)
    assert stats(stage).resting
    assert out.min() > 0.0


def test_a_curve_that_moves_slowly_is_one_generation_a_lap() -> None:
    stage = playing("blend = saw.slow(64).range(.2, .9)", bars=2)
    before = stats(stage).made
    run(stage, 20 * BAR)
    assert stats(stage).made - before == 10


def test_a_curve_that_comes_again_is_known_again() -> None:
    stage = playing("blend = sine.slow(8).range(.2, .9)", bars=10)
    made = stats(stage).made
    run(stage, 24 * BAR)
    assert (made, stats(stage).made) == (4, 4)


def test_a_steady_score_that_drifts_is_another_generation_each_lap_and_the_same_again() -> None:
    stage = playing("drift = .3", bars=2)
    before = stats(stage).made
    run(stage, 20 * BAR)
    assert stats(stage).made - before == 10
    turns = [g.request.turn for g in stage.generations()[1]]
    assert turns == sorted(set(turns))
    again = playing("drift = .3", bars=22)
    assert [g.request.turn for g in again.generations()[1]] == turns


def test_the_other_prompt_is_there_at_once() -> None:
    stage = playing('prompt = "<a b>/4"', bars=20)
    assert stats(stage).made == 2
    heard = edges(run(stage, 16 * BAR), 0.1, 0.2)
    assert stats(stage).made == 2
    assert heard == [x * BAR for x in (0, 4, 8, 12)][-len(heard) :]


def test_undo_brings_back_what_was_made() -> None:
    stage = playing("", bars=4)
    stage.session.apply("prompt = 'b'")
    assert run(stage, 4 * BAR)[-1] == pytest.approx(0.2, abs=1e-4)
    made = stats(stage).made
    stage.session.apply("undo")
    assert run(stage, 4 * BAR)[-1] == pytest.approx(0.1, abs=1e-4)
    assert stats(stage).made == made


def test_an_edit_is_heard_as_soon_as_by_a_ring_that_never_rests() -> None:
    late = {}
    for word in ("rest", "always"):
        stage = playing(f"ring {word}", bars=4)
        stage.session.apply("prompt = 'b' now")
        (late[word],) = edges(run(stage, 4 * BAR), 0.1, 0.2)
    assert late["rest"] <= late["always"]


def test_a_hand_on_a_curve_reaches_what_is_in_flight_and_then_what_is_made_for_it() -> None:
    stage = playing("velocity = .5", bars=4)
    made = stats(stage).made
    stage.session.apply("prompt = 'b' now")
    for _ in range(3):
        stage.turn()
    stage.session.apply("velocity = 1 now")
    run(stage, 6 * BAR)
    # The one that was changed in flight, and one for what is left of this lap and for the next.
    assert stats(stage).made == made + 2
    straight = playing("prompt = 'b'\nvelocity = 1", bars=4)
    assert run(stage, BAR)[-1] == run(straight, BAR)[-1]


def test_with_and_without_the_store_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'prompt = "<a b>"\nblend = sine.slow(4)\nseed = "<1 2 3>"\ndenoise = sine.slow(6)'
    kept = playing(text)
    with_store = run(kept, 24 * BAR)
    monkeypatch.setattr(Store, "put", lambda *_: None)
    bare = playing(text)
    without = run(bare, 24 * BAR)
    assert stats(bare).from_store == 0 < stats(kept).from_store
    assert np.array_equal(with_store, without)


def test_a_moving_slot_control_is_made_anew_each_quarter_bar_and_no_more() -> None:
    stage = playing("denoise = saw.slow(64)", bars=2)
    before = stats(stage).made
    run(stage, 8 * BAR)
    assert stats(stage).made - before == 32


@pytest.mark.parametrize("text", ["ring always", "feedback = .3"])
def test_a_ring_that_never_rests(text: str) -> None:
    stage = playing(text, bars=2)
    ticks = stage.output.generator.ring.tick_number
    run(stage, 4 * BAR)
    assert stage.output.generator.ring.tick_number - ticks == 4 * BAR // 3840
    assert not stats(stage).resting


def test_a_ring_may_begin_to_rest_and_to_play_on_while_it_plays() -> None:
    stage = playing("ring always", bars=2)
    assert not stats(stage).resting
    stage.session.apply("ring rest")
    run(stage, 4 * BAR)
    assert stats(stage).resting
    stage.session.apply("ring always")
    run(stage, BAR)
    assert not stats(stage).resting


def test_more_steps_are_another_generation() -> None:
    stage = playing("", bars=4)
    stage.session.apply("steps 4")
    run(stage, 4 * BAR)
    assert stats(stage).made == 2


def test_every_deck_is_served_while_a_knob_streams() -> None:
    stage = playing("deck two { loop 1; prompt = 'b' }", bars=4)
    for n in range(200):
        stage.session.apply(f"deck main {{ denoise = {n % 97 / 97} now }}")
        if n == 60:
            stage.session.apply("deck two { prompt = 'c' now }")
        stage.turn()
    # Both decks in the sum: main's own level and the new one of the other.
    assert run(stage, BAR)[-1] == pytest.approx(0.1 + 0.3, abs=1e-3)
    assert stage.output.notes == []


class Failing(MockEngine):
    """worse: what is added to the velocity of deck main. decode_as: a factor of what is decoded."""

    def __init__(self) -> None:
        super().__init__(by_prompt)
        self.worse, self.decode_as = 0.0, 1.0

    def velocity(self, x: Any, t: Any, rows: Any) -> Any:
        main = [[[float(row.request.deck == "main")]] for row in rows]
        return super().velocity(x, t, rows) + x.new_tensor(main) * self.worse

    def decode(self, latent: Floats) -> Floats:
        return super().decode(latent) * np.float32(self.decode_as)


def failing(text: str = "") -> tuple[Offline, Failing]:
    engine = Failing()
    stage = offline(engine)
    stage.session.apply(HEAD + text)
    run(stage, 4 * BAR)
    return stage, engine


def test_what_was_lost_is_made_for_the_next_lap_beside_a_deck_that_never_rests() -> None:
    stage, engine = failing("deck two { loop 1; prompt = 'c'; feedback = .3 }")
    engine.worse = float("nan")
    stage.session.apply("deck main { prompt = 'b' now }")
    for _ in range(2 * engine.steps):
        stage.turn()
    engine.worse = 0.0
    assert run(stage, 6 * BAR)[-1] == pytest.approx(0.2 + 0.3, abs=1e-3)


class Drafting(Counted):
    """The prediction of its first step is half of what is asked for."""

    def __init__(self) -> None:
        super().__init__(by_prompt)
        self.manifest.draft_steps, self.manifest.first_window = 1, 4
        self.windows: list[int] = []

    def velocity(self, x: Any, t: Any, rows: Any) -> Any:
        half = [[[0.5 if row.index == 0 else 1.0]] for row in rows]
        levels = x.new_tensor([[[self.level(row.request)]] for row in rows])
        return (x - levels * x.new_tensor(half)) / t[:, None, None]

    def decode(self, latent: Floats) -> Floats:
        self.windows.append(latent.shape[1])
        return super().decode(latent)


def test_a_hand_is_heard_from_an_early_prediction_by_a_short_window_then_from_its_end() -> None:
    engine = Drafting()
    stage = offline(engine)
    stage.session.apply(HEAD)
    run(stage, 4 * BAR)
    engine.windows.clear()
    stage.session.apply("prompt = 'd' now")
    out = run(stage, 4 * BAR)
    first = int(np.flatnonzero(out > 0.15)[0])
    settled = int(np.flatnonzero(out < 0.39)[-1]) + 1
    assert engine.windows[0] == 4
    assert first < 2 * 3840
    assert out[first + 1000] == pytest.approx(0.2, abs=1e-3)
    assert settled < (engine.steps + 1) * 3840
    assert stats(stage).made == 2


@pytest.mark.parametrize("left", [2, 4, 6])
@pytest.mark.parametrize("edit", ["prompt = 'd' now", "prompt = 'd' now\nhint = .9 now"])
def test_a_hand_near_the_end_of_a_lap_is_heard_no_later_and_stays(left: int, edit: str) -> None:
    stage = playing("hint = .2", bars=2)
    run(stage, -stage.output.playhead.now() % (2 * BAR) + 2 * BAR - left * 3840)
    stage.session.apply(edit)
    out = run(stage, 2 * BAR)
    first = int(np.flatnonzero(out > 0.15)[0])
    assert first < 7 * 3840
    assert out[first + 1000 :].min() > 0.15


class Hinted(Drafting):
    """Its level is the hint of each frame, from the first prediction on."""

    def velocity(self, x: Any, t: Any, rows: Any) -> Any:
        hints = np.stack([row.request.curves["hint"] for row in rows])[:, :, None]
        return (x - x.new_tensor(hints)) / t[:, None, None]


@pytest.mark.parametrize("left", [1, 2, 3, 4, 9, 27, 49])
def test_a_hand_on_a_curve_is_heard_as_soon_at_every_place_of_a_lap(left: int) -> None:
    engine = Hinted()
    engine.manifest.draft_steps = 3
    stage = offline(engine)
    stage.session.apply(HEAD + "hint = .2")
    run(stage, 2 * BAR)
    run(stage, -stage.output.playhead.now() % (2 * BAR) + 2 * BAR - left * 3840)
    stage.session.apply("hint = .6 now")
    out = run(stage, 2 * BAR)
    first = int(np.flatnonzero(out > 0.4)[0])
    # Three steps, of which a render's clock counts two, and a splice of two blocks at most.
    assert first <= 2 * 3840 + 2 * BLOCK
    assert out[first + 1000 :].min() > 0.4


def test_a_hand_waits_for_no_other_deck() -> None:
    heard = {}
    for others in (0, 3):
        decks = [f"deck more{n} {{ denoise = saw.slow(64); gain = 0 }}" for n in range(others)]
        stage = playing("\n".join(decks), bars=4)
        # In the middle of what is made for the others.
        run(stage, BAR // 3)
        stage.session.apply("deck main { prompt = 'd' now }")
        heard[others] = int(np.flatnonzero(run(stage, BAR) > 0.35)[0])
    assert heard[3] <= heard[0] + 3840


def test_a_generation_that_exploded_is_neither_kept_nor_heard_in_part() -> None:
    stage, engine = failing()
    engine.worse = -1e6
    stage.session.apply("prompt = 'b' now")
    for _ in range(2 * engine.steps):
        stage.turn()
    engine.worse = 0.0
    assert run(stage, 6 * BAR)[-1] == pytest.approx(0.2, abs=1e-3)
    assert stage.output.generator.status().dropped == 2  # for this lap, and for the next


@pytest.mark.parametrize("factor", [float("nan"), 1e6])
def test_a_window_that_cannot_be_heard_is_decoded_again(factor: float) -> None:
    stage, engine = failing()
    engine.decode_as = factor
    stage.session.apply("prompt = 'b' now")
    run(stage, 2 * BAR)
    engine.decode_as = 1.0
    run(stage, 4 * BAR)
    assert run(stage, 2 * BAR).min() == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("gap", [1, 2, 3, 5])
def test_a_second_edit_is_heard_as_soon_as_by_a_ring_that_never_rests(gap: int) -> None:
    heard = {}
    for word in ("rest", "always"):
        stage = playing(f"ring {word}", bars=4)
        stage.session.apply("prompt = 'b' now")
        for _ in range(gap):
            stage.turn()
        stage.session.apply("prompt = 'd' now")
        out = run(stage, 4 * BAR)
        heard[word] = int(np.flatnonzero(out > 0.35)[0])
        assert out[-1] == pytest.approx(0.4, abs=1e-4)
    assert heard["rest"] <= heard["always"]


def test_going_back_to_what_is_known_is_not_undone_by_what_was_in_flight() -> None:
    stage = playing("", bars=4)
    stage.session.apply("prompt = 'b' now")
    stage.turn()
    stage.session.apply("prompt = 'a' now")
    out = run(stage, 6 * BAR)
    assert out[-1] == pytest.approx(0.1, abs=1e-4)
    assert stats(stage).resting


def test_an_edit_after_a_panic_is_heard_in_the_same_lap() -> None:
    stage = playing("loop 16", bars=1)
    for prompt in "cde":
        stage.session.apply(f"prompt = '{prompt}' now")
        run(stage, BAR)
    stage.session.apply("panic")
    stage.session.apply("prompt = 'b' now")
    out = run(stage, 4 * BAR)
    assert out[-1] == pytest.approx(0.2, abs=1e-4)


class Pausing(Counted):
    """Has work for pauses at all times. due: seconds until the next generation that is due."""

    def __init__(self) -> None:
        super().__init__()
        self.due: Callable[[], float] = lambda: 0.0
        self.pauses: list[float] = []

    def between_ticks(self) -> bool:
        self.pauses.append(self.due())
        return True


def test_an_engine_uses_pauses_in_which_nothing_is_due() -> None:
    engine = Pausing()
    stage = offline(engine)
    generator = stage.output.generator

    def due() -> float:
        assert not generator.behind
        ready = generator.playhead.now() + generator.drain
        return min((r.hear_from - ready for r in generator.ring.requests("main")), default=1e9)

    engine.due = due
    stage.session.apply(HEAD.replace("'a'", "\"<'a' 'b' 'c'>\""))
    run(stage, 12 * BAR)
    assert engine.pauses
    assert min(engine.pauses) >= 12_000


def test_a_pause_that_fails_is_told_and_the_sound_goes_on() -> None:
    class Failing(Counted):
        def between_ticks(self) -> bool:
            raise RuntimeError("CUDA out of memory")

    stage = offline(Failing())
    stage.session.apply(HEAD)
    out = run(stage, 6 * BAR)
    assert out[-1] > 0.0
    assert any("out of memory" in note for note in stage.output.notes)


def test_depth_auto_is_the_least_with_room_for_what_is_due_and_is_told() -> None:
    stage = playing("", bars=4)
    stage.session.apply("prompt = 'b' now")
    depths = set()
    for _ in range(20):
        stage.turn()
        depths.add(stage.output.engine_status().depth)
    assert depths == {1}
    stage.session.apply("seed = irand(99)\nprompt = 'b' now")
    for _ in range(200):
        stage.turn()
        depths.add(stage.output.engine_status().depth)
    assert max(depths) > 1
    assert max(depths) <= stage.output.engine.depth
    stage.session.apply("depth 3")
    stage.turn()
    assert stage.output.engine_status().depth == 3
    stage.session.apply("ring always\ndepth auto")
    stage.turn()
    assert stage.output.engine_status().depth == stage.output.engine.depth


def test_ten_decks_a_stream_of_a_knob_and_a_stall_leave_no_hole_and_starve_nobody() -> None:
    bar, bars = BAR, 5
    letters = "abcdefghij"
    decks = [
        f"deck d{n} {{ loop 1; prompt = '{x}'; drift = .3; gain = .1 }}"
        for n, x in enumerate(letters)
    ]
    stage = offline(Counted())
    stage.session.apply("tempo 120\n" + "\n".join(decks))
    run(stage, 2 * bar)
    generator = stage.output.generator
    made: list[Any] = []
    generator.made = made.append
    begin, out, n = stage.output.playhead.now(), [], 0
    while stage.output.playhead.now() < begin + bars * bar:
        for _ in range(10):  # 125 a second
            n += 1
            stage.session.apply(f"deck d0 {{ denoise = {n % 89 / 100 + 0.1:.2f} now }}")
        out.append(stage.turn())
        if n == 200:
            # The engine stands still for a second, the mixer does not.
            out.append(stage.output.mixer.render(100))
        assert generator.ring.in_flight <= 2 * stage.output.engine.depth
        for deck in generator._decks.values():
            assert len(deck.needs._known) + len(deck.needs._flying) < 16
            assert len(deck.placement._generations) <= 65
    heard = np.concatenate(out)[:, 0]
    assert heard.min() > 0.5
    laps = range(begin + 2 * bar, begin + bars * bar, bar)
    for name in (f"d{n}" for n in range(10)):
        turns = {g.request.turn for g in made if g.request.deck == name}
        missed = [lap for lap in laps if lap // bar not in turns]
        assert len(missed) <= 1, name  # the stall
    assert stage.output.notes == []
