"""Sets: a replay is the performance, byte for byte."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

import demon_live
from demon_live.cli import main
from demon_live.cli.commands import _score_or_set
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.lang import compile_source
from demon_live.lang.controllers import Key, Move
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.sets.journal import SUFFIX, Journal, SetEvent, load
from demon_live.sets.set_files import folder_of
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run, write_tone

TAKE = (
    (0, "tempo 120\nloop 2\nsource \"low.wav\"\nprompt = 'a'\nblend = saw.range(.3, 1)"),
    (9, 'prompt = "<b c>"'),
    (14, "denoise = .4 !"),
    (20, 'gain = "1 .5"'),
    (30, "tempo 133.7"),
    (44, "blend = perlin.slow(2) over 2"),
    (60, "hush"),
    (66, "seed = irand(8)"),
    (75, "deck b\nloop 3\nprompt = 'd'\npan = sine2"),
)


def performed(folder: Path) -> tuple[np.ndarray, Path]:
    """A take under the virtual clock, recorded while it is played."""
    instrument = offline(MockEngine(by_prompt), folder)
    pieces = []
    for turn in range(110):
        for when, text in TAKE:
            if when == turn:
                instrument.session.apply(text)
        if turn == 12:
            instrument.session.apply("record friday")
        pieces.append(instrument.turn())
    instrument.session.apply("stop")
    return np.concatenate(pieces), folder / f"friday{SUFFIX}"


def test_a_replay_equals_the_take_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "low.wav", 0.3, 4)
    take, path = performed(tmp_path)
    assert np.abs(take).max() > 0.2
    again = render(path, start=0, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    # The end mark stands at what the mixer has decided, a limiter's look-ahead past what was heard.
    assert 0 <= len(again) - len(take) < 480
    assert np.array_equal(again[: len(take)], take)


def test_a_set_that_was_recorded_late_renders_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    (tmp_path / "friday").mkdir()
    monkeypatch.chdir(tmp_path)
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 1\nprompt = 'c'\ngain = sine.slow(2)")
    run(instrument, 130_000)
    begun = instrument.output.playhead.now()
    said = instrument.session.apply("record friday").messages
    assert said[0].endswith("the set knows all before it, too: --from 0")
    take = np.concatenate([instrument.turn() for _ in range(40)])
    instrument.session.apply("stop")
    path = tmp_path / f"friday{SUFFIX}"
    assert load(path).begun == begun
    again = render(path, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    whole = render(path, start=0, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    assert np.array_equal(again, whole[begun:])
    # The playhead is a limiter's look-ahead past what was heard.
    assert abs(len(again) - len(take)) < 480
    assert main(["set", "show", str(path)]) == 0
    assert "recorded from 0:02.7" in capsys.readouterr().out
    # A folder of that name is not in the way of the set.
    assert _score_or_set("friday") == Path(f"friday{SUFFIX}")


def test_a_folder_is_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    (tmp_path / "friday").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as found:
        _score_or_set("friday")
    assert "record friday" in str(found.value.hint)


def test_a_script_replays_a_set_by_the_name_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "low.wav", 0.3, 4)
    _, path = performed(tmp_path)
    engine = MockEngine(by_prompt)
    again = demon_live.Session.replay(str(path), tmp_path / "again.wav", engine=engine, seconds=1)
    assert np.array_equal(again.audio, render(path, engine=engine, seconds=1).audio)  # type: ignore[arg-type]
    assert (tmp_path / "again.wav").is_file()


def test_a_replay_hears_the_very_value_that_a_knob_had(tmp_path: Path) -> None:
    """A position of a controller, such as 37/127, has more digits than a line of a set."""
    instrument = offline(MockEngine(by_prompt), tmp_path)
    session = instrument.session
    session.apply("record hands\ntempo 120\nloop 1\nprompt = 'c'\ngain = cc(21).range(.4, 1)")
    pieces = []
    for turn in range(50):
        if turn == 20:
            # What is refused leaves no trace in the set, and is none in the sound.
            with pytest.raises(DemonError, match=r"no\.wav"):
                session.apply('source "no.wav"')
        if turn % 5 == 1:
            session.hear([Move(Key("cc", 21, 1), (3 * turn % 128) / 127)])
        pieces.append(instrument.turn())
    session.apply("stop")
    take = np.concatenate(pieces)
    assert len(np.unique(take[:, 0])) > 20
    again = render(tmp_path / f"hands{SUFFIX}", engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(take)], take)


CHANCE = """record lots
tempo 120
loop 1
prompt = 'c'
gain = "[.2 .4 .6 .8]*2?".degradeBy(.3) * choose(.5, 1)
pan = rand.segment(8)
"""


@pytest.mark.parametrize(("rule", "named"), [(1, False), (1, True), (2, True)])
def test_a_set_replays_by_the_rules_that_it_was_made_with(
    tmp_path: Path, rule: int, named: bool
) -> None:
    takes = {}
    for made_with in (1, 2):
        folder = tmp_path / str(made_with)
        folder.mkdir()
        instrument = offline(MockEngine(by_prompt), folder, rules=made_with)
        instrument.session.apply(CHANCE)
        takes[made_with] = np.concatenate([instrument.turn() for _ in range(60)])
        instrument.session.apply("stop")
    assert not np.array_equal(takes[1], takes[2])
    path = tmp_path / str(rule) / f"lots{SUFFIX}"
    first, _, rest = path.read_text().partition("\n")
    head = json.loads(first)
    assert head["rules"] == rule
    if not named:
        # As sets were written before there was a second rule.
        head = {k: v for k, v in head.items() if k not in ("rules", "crc")}
        body = json.dumps(head, sort_keys=True, separators=(",", ":"))
        crc = f"{zlib.crc32(body.encode()):08x}"
        path.write_text(f'{body[:-1]},"crc":"{crc}"}}\n{rest}')
    again = render(path, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    take = takes[rule]
    assert np.array_equal(again[: len(take)], take)
    lane = list(dry_run(load(path)))[-1].state.decks["main"].bound["pan"]
    text = "pan = rand.segment(8)"
    expected = compile_source(text, chance=rule).decks["main"]["pan"]
    assert np.array_equal(
        lane.sample(np.arange(9, 12, 0.1)), expected.sample(np.arange(9, 12, 0.1))
    )


def test_two_renders_of_a_set_are_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "low.wav", 0.3, 4)
    _, path = performed(tmp_path)
    for name in ("one.wav", "two.wav"):
        render(path, tmp_path / name, engine=MockEngine(by_prompt))  # type: ignore[arg-type]
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


def test_another_seed_is_another_render(tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 120\nloop 1\nprompt = 'a'\nseed = 1")
    engines = [MockEngine(lambda r: r.seed * 0.1) for _ in range(2)]
    one, two = (
        render(score, cycles=1, seed=seed, engine=engine).audio  # type: ignore[arg-type]
        for seed, engine in enumerate(engines)
    )
    assert float(np.median(one)) == pytest.approx(0.1)
    assert float(np.median(two)) == pytest.approx(0.2)


def test_stems_add_up_to_the_sum(tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 120\ndeck a\nloop 1\nprompt = 'a'\ndeck b\nloop 1\nprompt = 'b'")
    out = tmp_path / "x.wav"
    done = render(score, out, cycles=2, stems=True, engine=MockEngine(by_prompt))  # type: ignore[arg-type]
    assert sorted(done.stems) == ["a", "b"]
    assert (tmp_path / "x-a.wav").exists()
    total = done.stems["a"] + done.stems["b"]
    assert np.allclose(total[48_000:], done.audio[48_000:], atol=1e-6)


def test_a_score_that_records_tracks_renders_a_file_a_deck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    score, folder = tmp_path / "x.demon", tmp_path / "mix"
    folder.mkdir()
    score.write_text(
        "tempo 120\ndeck a\nloop 1\nprompt = 'a'\ndeck b\nloop 1\nprompt = 'b'\nrecord night tracks"
    )
    done = render(score, folder / "x.wav", cycles=2, engine=MockEngine(by_prompt))  # type: ignore[arg-type]
    assert {p.name for p in folder.iterdir()} == {"x.wav", "night-a.flac", "night-b.flac"}
    total = sum(soundfile.read(folder / f"night-{d}.flac", dtype="float32")[0] for d in "ab")
    assert np.allclose(total[48_000:], done.audio[48_000:], atol=1e-6)


def test_a_set_whose_files_are_gone_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "low.wav", 0.3, 4)
    _, path = performed(tmp_path)
    (tmp_path / "low.wav").unlink()
    shutil.rmtree(folder_of(path))
    with pytest.raises(DemonError, match=r"low\.wav"):
        render(path, engine=MockEngine(by_prompt))  # type: ignore[arg-type]


def test_a_render_of_a_score_is_as_long_as_it_was_asked_to_be(tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 133.7\nloop 1\nprompt = 'a'")
    audio = render(score, cycles=3, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    assert len(audio) == round(3 * 240 / 133.7 * 48_000)


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_rendered(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.demon").write_text("tempo 120\nloop 1\nblend = .5")
    (tmp_path / "folder.wav").mkdir()
    for out in ("no/x.wav", "x.mp3", "folder.wav", "x" * 250 + ".wav"):
        with pytest.raises(FileError) as caught:
            # An engine of this name would be an error of its own.
            render(tmp_path / "x.demon", tmp_path / out, engine="nobody")
        assert caught.value.hint


def test_a_length_that_nobody_means_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"century{SUFFIX}"
    journal = Journal({"engine": "mock", "seed": 0})
    journal.write(SetEvent("apply", 0, "tempo 120\nloop 1\nblend = .5", "<prompt>", "repl"))
    journal.open(path)
    journal.close(48_000 * 3_155_760_000)
    engine = MockEngine(by_prompt)
    with pytest.raises(UsageError, match="hours of sound") as caught:
        render(path, engine=engine)  # type: ignore[arg-type]
    assert "--seconds" in str(caught.value.hint)
    assert len(render(path, engine=engine, seconds=1).audio) == 48_000  # type: ignore[arg-type]
    monkeypatch.setattr("demon_live.replay.render.WAV_LIMIT", 1000)
    with pytest.raises(FileError, match="over 4 GB"):
        render(path, tmp_path / "x.wav", engine=engine, seconds=1)  # type: ignore[arg-type]


def test_an_engine_that_gives_nothing_is_an_error_not_silence(tmp_path: Path) -> None:
    engine = MockEngine(by_prompt)
    engine.fail = True
    instrument: Offline = offline(engine, tmp_path)
    instrument.session.apply("prompt = 'a'")
    with pytest.raises(DemonError, match="on fire"):
        instrument.turn()


LONG = (
    (0, "tempo 120\nloop 1\nprompt = 'a'\nlpf = sine.rangex(300, 9000)"),
    (20, 'seed = irand(8).segment(1)\nprompt = "<a b c>"'),
    (40, "tempo 133.7"),
    (60, 'deck b\nloop 1\nprompt = "[d e]/2"\npan = sine2'),
    (90, 'deck main\ngain = "1 .5"\ndenoise = .6 over 2'),
    (110, "mute b at 2"),
    (150, "crossfade main b\nfader sine.slow(4)\ndepth 2"),
    (180, "unmute b"),
    (200, "tempo 150"),
)


@pytest.fixture(scope="module")
def long_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A set of twenty seconds, and the whole of its sound."""
    folder = tmp_path_factory.mktemp("long")
    instrument = offline(MockEngine(by_prompt), folder)
    instrument.session.apply("record long")
    for turn in range(240):
        for when, text in LONG:
            if when == turn:
                instrument.session.apply(text)
        instrument.turn()
    instrument.session.apply("stop")
    path = folder / f"long{SUFFIX}"
    return path, render(path, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]


@pytest.mark.parametrize("cycle", [1, 7.5, 10])
def test_from_a_cycle_on_a_set_is_bit_for_bit_that_stretch_of_the_whole(
    long_set: tuple[Path, np.ndarray], cycle: float
) -> None:
    path, whole = long_set
    engine = MockEngine(by_prompt)
    part = render(path, start=cycle, engine=engine).audio  # type: ignore[arg-type]
    begin = len(whole) - len(part)
    assert begin > 0
    assert np.array_equal(part, whole[begin:])


class Winding(MockEngine):
    """What comes out depends on each step, not on the last one alone."""

    def velocity(self, x, t, rows):  # type: ignore[no-untyped-def]
        return super().velocity(x, t, rows) - 0.2 * x.tanh() / t[:, None, None]


@pytest.mark.parametrize("turn", [48, 52])
def test_what_is_in_flight_where_the_pre_roll_begins_is_made_again(
    tmp_path: Path, turn: int
) -> None:
    instrument = offline(Winding(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 1\nprompt = 'a'\nrecord flying")
    run(instrument, turn * 3840)
    instrument.session.apply("prompt = 'b'")
    run(instrument, 7 * 96_000 - turn * 3840)
    instrument.session.apply("stop")
    whole, part = (
        render(tmp_path / f"flying{SUFFIX}", start=start, engine=Winding(by_prompt)).audio  # type: ignore[arg-type]
        for start in (0, 6)
    )
    assert np.array_equal(part, whole[6 * 96_000 :])


@pytest.mark.parametrize("next_loop", ["loop 2", 'source "low.wav"', "tempo 140"])
def test_a_loop_that_waits_for_the_next_one_is_made_before_that_is_said(
    tmp_path: Path, next_loop: str
) -> None:
    write_tone(tmp_path / "low.wav", 0.3, 4)
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nquant 8\nloop 1\nprompt = 'a'\nrecord waits")
    run(instrument, 2 * 96_000)
    instrument.session.apply(next_loop)
    run(instrument, 7 * 96_000)
    instrument.session.apply("stop")
    whole, part = (
        render(tmp_path / f"waits{SUFFIX}", start=start, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
        for start in (0, 7)
    )
    assert np.array_equal(part, whole[7 * 96_000 :])


def test_the_way_to_a_late_cycle_costs_no_model(long_set: tuple[Path, np.ndarray]) -> None:
    path, whole = long_set
    engine = MockEngine(by_prompt)
    begun = render(path, start=10, cycles=0.25, engine=engine).audio  # type: ignore[arg-type]
    assert 0 < len(begun) < len(whole) / 8
    asked = min(r.hear_from for r in engine.requests)
    # The first generation that the model made is heard long after the set began.
    assert asked > 6 * 48_000


def test_sound_that_feeds_back_is_played_from_before_it_began(tmp_path: Path) -> None:
    from demon_live.runtime.seek import pre_roll
    from demon_live.sets.journal import load

    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("record fed")
    session = instrument.session
    session.apply("tempo 120\nloop 1\nprompt = 'a'", now=0)
    session.apply("feedback = .5", now=150 * 3840)
    session.apply("feedback = default", now=300 * 3840)
    session.apply("stop", now=500 * 3840)
    moments = list(dry_run(load(tmp_path / f"fed{SUFFIX}")))
    drain = instrument.output.generator.drain
    begins = [pre_roll(place, moments, drain) for place in (150 * 3840, 290 * 3840, 450 * 3840)]
    lap = 96_000
    length = 2 * lap + drain + 3 * 48_000
    assert begins[0] == 150 * 3840 - length
    assert 0 < begins[1] <= 150 * 3840 - length
    # Given back, it counts no longer once a run-up begins after it.
    assert begins[2] == 450 * 3840 - length


@pytest.mark.parametrize(
    ("effect", "end"),
    [
        ("room = .5; size = 1", "room = default"),
        ("delay = .5; delayfeedback = .95", "delay = default"),
        ("master { room = .5; size = 1 }", "master { room = default }"),
        ("deck b { prompt = 'c'; delay = .9; delayfeedback = .95 }", "deck b off"),
    ],
)
def test_a_tail_that_rings_from_before_is_in_what_is_rendered_from_a_cycle_on(
    tmp_path: Path, effect: str, end: str
) -> None:
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply('tempo 120\nloop 1\nprompt = "<a b c>"\ngain = "1 .2"')
    instrument.session.apply("record rings")
    run(instrument, 96_000)
    instrument.session.apply(effect)
    run(instrument, 5 * 96_000)
    instrument.session.apply(end)
    run(instrument, 6 * 96_000)
    instrument.session.apply("stop")
    path = tmp_path / f"rings{SUFFIX}"
    whole, part = (
        render(path, start=start, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
        for start in (0, 10)
    )
    assert np.array_equal(part, whole[10 * 96_000 :])


def test_after_the_end_there_is_nothing_to_render(long_set: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(DemonError, match="after the end"):
        render(long_set[0], start=1000, engine=MockEngine(by_prompt))  # type: ignore[arg-type]


def test_what_is_refused_takes_no_number_that_a_replay_would_lack(tmp_path: Path) -> None:
    session = offline(MockEngine(by_prompt), tmp_path).session
    session.apply("prompt = 'a'")
    with pytest.raises(DemonError, match=r"no\.wav"):
        session.apply('source "no.wav"')
    session.apply("tempo 130")
    *_, last = dry_run(session.journal.recording(), (tmp_path,))
    stages = [state.decks["main"].loop for state in (session.state, last.state)]
    assert stages[0] is not None
    assert stages[0] == stages[1]
