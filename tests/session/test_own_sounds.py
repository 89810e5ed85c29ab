"""Own sound files: where they are looked for, and how their tempo is decided."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from demon_live.audio.files import beats_in
from demon_live.cli import main
from demon_live.errors import DemonError, FileError
from demon_live.runtime.offline import Offline
from demon_live.session.scores import as_score
from tests.helpers.mock_engine import MockEngine, run, write_tone

SECOND = 48_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    for name in ("gig", "shell", "library"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "shell")
    return tmp_path


def instrument(folder: Path) -> Offline:
    (folder / "gig" / "set.demon").write_text("gain = .5\n")
    made = Offline(
        MockEngine(lambda row: 0.2),  # type: ignore[arg-type]
        folders=(Path.cwd(), folder / "library"),
        sets=folder,
    )
    made.session.load(folder / "gig" / "set.demon")
    return made


DOORS = {
    "prompt": ("<prompt>", "repl"),
    "send": ("<send>", "repl"),
    "osc": ("<osc>", "osc"),
    "file": ("{gig}/set.demon", "file"),
    "vim": ("{gig}/other.demon", "file"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("where", ["gig", "shell", "library"])
def test_every_door_finds_a_file_beside_the_score_in_the_shell_and_in_the_library(
    folder: Path, door: str, where: str
) -> None:
    write_tone(folder / where / "own_120.wav", 0.2, 2.0)
    made = instrument(folder)
    name, origin = DOORS[door]
    said = made.session.apply('source "own_120.wav"', name.format(gig=folder / "gig"), origin)
    assert any("own_120.wav: 1 bar at 120 bpm" in line for line in said.messages)


@pytest.mark.parametrize("door", DOORS)
def test_a_file_beside_the_score_wins_over_one_in_the_folder_of_the_shell(
    folder: Path, door: str
) -> None:
    write_tone(folder / "gig" / "own_120.wav", 0.2, 2.0)
    write_tone(folder / "shell" / "own_120.wav", 0.2, 4.0)
    made = instrument(folder)
    name, origin = DOORS[door]
    said = made.session.apply('source "own_120.wav"', name.format(gig=folder / "gig"), origin)
    assert any("own_120.wav: 1 bar" in line for line in said.messages)


@pytest.mark.parametrize(
    ("text", "bar", "said"),
    [
        ("beats 7/8", 84_000, "own_120.wav: 8 beats at 120 bpm, the first 2 bars"),
        ("beats 5/4", 120_000, "own_120.wav: 8 beats at 120 bpm, the first 1 bar"),
        ("beats 12/8", 144_000, "own_120.wav: 8 beats at 120 bpm, the first 1 bar"),
        ("beats 6/8", 72_000, "own_120.wav: 8 beats at 120 bpm, the first 2 bars"),
    ],
)
def test_a_meter_leaves_the_tempo_of_a_source_alone(
    folder: Path, text: str, bar: int, said: str
) -> None:
    write_tone(folder / "gig" / "own_120.wav", 0.2, 4.0)
    made = instrument(folder)
    outcome = made.session.apply(f'tempo 120\n{text}\nloop 2\nsource "own_120.wav"')
    assert any(said in line for line in outcome.messages)
    assert not any("stretched" in line for line in outcome.messages)
    run(made, 10 * SECOND)
    tempo = made.session.state.tempo
    assert tempo.sample_at(Fraction(5)) - tempo.sample_at(Fraction(4)) == bar
    written = as_score(made.session.state)
    again = instrument(folder)
    again.session.apply(written)
    assert again.session.state.beats == made.session.state.beats


def test_the_tempo_of_a_file_is_decided_once(folder: Path) -> None:
    write_tone(folder / "gig" / "amen.wav", 0.2, 1.75)
    made = instrument(folder)
    said = made.session.apply('source "amen.wav"')
    assert any("amen.wav: 1 bar at 137.14 bpm" in line for line in said.messages)
    assert any("guessed: bars 2, bpm 90, half or double" in line for line in said.messages)
    run(made, 4 * SECOND)
    said = made.session.apply("tempo 70")
    assert any("amen.wav: 1 bar at 137.14 bpm, stretched to 70" in line for line in said.messages)
    deck = made.session.status().decks[0]
    assert (deck.source, deck.read) == ("amen.wav", "4 beats at 137.14 bpm")


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        ("bars 2", "2 bars at 274.29 bpm"),
        ("beats 6", "6 beats at 205.71 bpm"),
        ("bpm 68.6", "2 beats at 68.57 bpm"),
        ("half", "2 beats at 68.57 bpm"),
        ("double", "2 bars at 274.29 bpm"),
    ],
)
def test_the_score_says_how_a_file_is_read(folder: Path, reading: str, found: str) -> None:
    write_tone(folder / "gig" / "amen.wav", 0.2, 1.75)
    made = instrument(folder)
    said = made.session.apply(f'source "amen.wav" {reading}')
    assert any(found in line for line in said.messages)
    assert f'source "amen.wav" {reading}\n' in as_score(made.session.state, Path("."))
    made.session.apply('source "amen.wav"')
    back = made.session.apply("undo")
    assert any(found in line for line in back.messages)


def test_a_reading_belongs_to_a_source(folder: Path) -> None:
    made = instrument(folder)
    for text in ("loop 4 bars 2", "source none half"):
        with pytest.raises(DemonError, match="belongs to a source"):
            made.session.apply(text)


def test_half_of_one_beat_is_one_beat() -> None:
    assert beats_in(24_000, 4, 120.0, "x_120.wav", "half") == (1, 60.0)


def test_sounds_lists_files_with_what_would_be_assumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tone(folder / "gig" / "amen.wav", 0.2, 1.75)
    write_tone(folder / "gig" / "pad_120.wav", 0.2, 2.0)
    (folder / "gig" / "bad.wav").write_bytes(b"x")
    assert main(["sounds", str(folder / "gig"), "--tempo", "130"]) == 0
    amen, bad, pad = capsys.readouterr().out.splitlines()
    assert amen.split()[0] == "amen.wav"
    assert "1.75 s: 1 bar at 137.14 bpm, guessed from its length" in amen
    assert "1 bar at 120.00 bpm, in its name" in pad
    assert "is not a sound file" in bad
    assert main(["sounds", str(folder / "shell")]) == FileError.exit_code
