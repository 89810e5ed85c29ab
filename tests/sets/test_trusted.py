"""A set from a stranger reads nothing outside the folders it is played from; one's own may."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demon_live.errors import DemonError
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.session.assets import Assets
from demon_live.sets.journal import SUFFIX, Journal, SetEvent, _line, load
from demon_live.sets.set_files import is_own, remember
from tests.helpers.mock_engine import MockEngine, by_prompt

TEMPO = "tempo 120\nloop 1\n"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    outside = tmp_path / "outside"
    outside.mkdir()
    soundfile.write(outside / "secret.wav", np.full((48_000, 2), 0.25), 48_000)
    return tmp_path


def stranger(folder: Path, text: str, name: str = "<prompt>", origin: str = "repl") -> Path:
    """A set that was not recorded here."""
    path = folder / f"gift{SUFFIX}"
    journal = Journal({"engine": "mock", "seed": 0})
    journal.write(SetEvent("apply", 0, TEMPO + text, name, origin))
    journal.open(path)
    journal.close(48_000)
    return path


@pytest.mark.parametrize("origin", ["repl", "file"])
@pytest.mark.parametrize("way", ["absolute", "upwards", "name", "link"])
def test_every_way_outside_is_refused_with_the_remedy(places: Path, way: str, origin: str) -> None:
    outside = places / "outside"
    source, name = "secret.wav", "x.demon" if origin == "file" else "<prompt>"
    if way == "absolute":
        source = str(outside / "secret.wav")
    elif way == "upwards":
        source = "../outside/secret.wav"
    elif way == "name":
        # A set says itself where its scores lay.
        name = str(outside / "x.demon")
    else:
        (places / "here" / "secret.wav").symlink_to(outside / "secret.wav")
    path = stranger(places / "here", f'source "{source}"', name, origin)
    with pytest.raises(DemonError, match="--trust"):
        render(path, engine=MockEngine(by_prompt))
    # What no score file may do, no trust allows either.
    if (way, origin) in (("absolute", "repl"), ("name", "repl"), ("name", "file")):
        assert len(render(path, engine=MockEngine(by_prompt), trust=True).audio) == 48_000


def test_beside_the_set_is_inside(places: Path) -> None:
    gift = places / "gift"
    gift.mkdir()
    shutil.copy(places / "outside" / "secret.wav", gift / "loop.wav")
    path = stranger(gift, 'source "loop.wav"', "/home/somebody/x.demon", "file")
    assert len(render(path, engine=MockEngine(by_prompt)).audio) == 48_000


def test_what_was_recorded_here_may_name_any_source(places: Path) -> None:
    engine = MockEngine(by_prompt)
    with Offline(engine, sets=places / "here") as take:
        take.session.apply(f'{TEMPO}source "{places}/outside/secret.wav"\nrecord friday')
        take.render(seconds=1)
        take.session.apply("stop")
    path = places / "here" / f"friday{SUFFIX}"
    assert is_own(path)
    assert len(render(path, engine=MockEngine(by_prompt)).audio)
    # It is known by its content, wherever it lies; a byte more, and it could be anybody's.
    copy = places / "here" / f"copy{SUFFIX}"
    shutil.copy(path, copy)
    path.unlink()
    assert is_own(copy)
    assert len(render(copy, engine=MockEngine(by_prompt)).audio)
    with copy.open("ab") as file:
        file.write(b"\n")
    assert not is_own(copy)
    with pytest.raises(DemonError, match="--trust"):
        render(copy, engine=MockEngine(by_prompt))


@pytest.mark.parametrize("way", ["copied over", "in its place"])
def test_a_strangers_set_put_in_the_place_of_ones_own_is_a_strangers(
    places: Path, way: str
) -> None:
    here = places / "here"
    with Offline(MockEngine(by_prompt), sets=here) as take:
        take.session.apply(f"{TEMPO}record friday")
        take.session.apply("stop")
    own = here / f"friday{SUFFIX}"
    assert is_own(own)
    gift = stranger(here, f'source "{places}/outside/secret.wav"').read_bytes()
    if way == "in its place":
        # The file system may give it the very same number.
        own.unlink()
    own.write_bytes(gift)
    assert not is_own(own)


def test_a_set_that_a_crash_cut_off_is_known_by_its_first_line_and_its_place(places: Path) -> None:
    here = places / "here"
    with Offline(MockEngine(by_prompt), sets=here) as take:
        take.session.apply(f"{TEMPO}record friday")
        own = here / f"friday{SUFFIX}"
        assert is_own(own)
        cut = own.read_bytes()
        take.session.apply("stop")
        ended = own.read_bytes()
        assert is_own(own)
        # Once it has ended, only the whole is known.
        own.write_bytes(cut)
        assert not is_own(own)
        take.session.apply("record saturday")
        other = here / f"saturday{SUFFIX}"
        assert ended.startswith(other.read_bytes().splitlines(keepends=True)[0])
        # The same first line elsewhere is not the set that was begun.
        own.write_bytes(other.read_bytes())
        assert is_own(other)
        assert not is_own(own)


def test_a_strangers_set_has_a_bounded_number_of_causes(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demon_live.sets.set_files.MOST_CAUSES", 3)
    path = stranger(places / "here", "blend = .5")
    with path.open("a") as file:
        file.writelines(_line({"kind": "mark", "sample": i}) for i in range(10))
    # Marks are no causes.
    assert len(list(dry_run(load(path)))) == 2
    with path.open("a") as file:
        file.writelines(
            _line({"kind": "hands", "sample": 48_000, "text": f"cc 1 {i}"}) for i in range(2)
        )
    with pytest.raises(DemonError, match="has 4 causes") as caught:
        render(path, engine=MockEngine(by_prompt))
    assert "--trust" in str(caught.value.hint)
    assert len(render(path, engine=MockEngine(by_prompt), trust=True).audio) == 48_000
    remember(path, ended=True)
    assert len(render(path, engine=MockEngine(by_prompt)).audio) == 48_000


def test_the_prompt_may_name_any_path_while_a_strangers_set_plays(places: Path) -> None:
    assets = Assets(within=(places / "here",))
    with Offline(MockEngine(by_prompt), assets=assets) as stage:
        stage.session.apply(f'{TEMPO}source "{places}/outside/secret.wav"')
        assert stage.session.state.decks["main"].source
