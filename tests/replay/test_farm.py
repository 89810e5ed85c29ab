"""Many renders: what is done is not done again, what is lost is, and bytes are those of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demon_live.cli import main
from demon_live.errors import EngineError, FileError, UsageError
from demon_live.remote.ray import Gone, Ray
from demon_live.replay import farm as farms
from demon_live.replay.farm import LEDGER, Farm, How, Job, Made, jobs, render_job
from demon_live.replay.render import render
from demon_live.runtime.options import RemoteEngine, parse_remote
from tests.helpers.mock_engine import MockEngine, by_prompt, write_tone
from tests.rigs.farm import write_sets


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _score(path: Path, prompt: str = "a", more: str = "") -> Path:
    path.write_text(f"tempo 120\nloop 1\nprompt = '{prompt}'\n{more}")
    return path


@pytest.fixture
def mock(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs are done here, by the mock engine; the list says which."""
    done: list[Job] = []

    def work(job: Job) -> Made:
        done.append(job)
        return render_job(job, MockEngine(by_prompt))  # type: ignore[arg-type]

    monkeypatch.setattr(farms, "render_job", work)
    return done


HOW = How(cycles=1)


def test_the_bytes_are_those_of_a_plain_render(tmp_path: Path, mock: list[Job]) -> None:
    write_tone(tmp_path / "tone.wav", 0.3, 2.0)
    score = _score(tmp_path / "x.demon", "b", 'source "tone.wav"\ndenoise = .5')
    Farm(tmp_path / "out").run(jobs([score], HOW))
    render(score, tmp_path / "plain.wav", cycles=1, engine=MockEngine(by_prompt))  # type: ignore[arg-type]
    assert (tmp_path / "out/x.wav").read_bytes() == (tmp_path / "plain.wav").read_bytes()


def test_a_set_is_rendered_from_what_was_sent_alone(tmp_path: Path, mock: list[Job]) -> None:
    [path] = write_sets(tmp_path, 1, 1)
    [job] = jobs([path], How())
    assert [name for name, _ in job.sources] == ["loops/house_124.flac"]
    assert [file for file, _ in job.sources.values()] == ["house_124.flac"]
    path.unlink()
    farm = Farm(tmp_path / "out")
    farm.run([job])
    assert not farm.failed
    assert (tmp_path / "out/set00.wav").stat().st_size > 92160 * 8


def test_what_is_done_is_not_done_again(tmp_path: Path, mock: list[Job]) -> None:
    paths = [_score(tmp_path / f"{n}.demon", n) for n in "abc"]
    Farm(tmp_path / "out").run(jobs(paths, HOW))
    assert len(mock) == 3
    said: list[str] = []
    Farm(tmp_path / "out", said.append).run(jobs(paths, HOW))
    assert len(mock) == 3
    assert said == ["3 of 3 are there already"]


def _edit(folder: Path) -> None:
    _score(folder / "a.demon", "d")


def _damage(folder: Path) -> None:
    data = bytearray((folder / "out/a.wav").read_bytes())
    data[-1] ^= 1
    (folder / "out/a.wav").write_bytes(data)


def _swap(folder: Path) -> None:
    (folder / "out/a.wav").write_bytes((folder / "out/b.wav").read_bytes())


def _lose(folder: Path) -> None:
    (folder / "out/a.wav").unlink()


@pytest.mark.parametrize("change", [_edit, _damage, _swap, _lose])
def test_content_decides_what_is_done(
    tmp_path: Path, mock: list[Job], change: Callable[[Path], None]
) -> None:
    paths = [_score(tmp_path / f"{n}.demon", n) for n in "ab"]
    Farm(tmp_path / "out").run(jobs(paths, HOW))
    change(tmp_path)
    Farm(tmp_path / "out").run(jobs(paths, HOW))
    assert [job.name for job in mock] == ["a.wav", "b.wav", "a.wav"]


def test_another_source_of_the_same_name_is_another_job(tmp_path: Path) -> None:
    score = _score(tmp_path / "x.demon", "a", 'source "tone.wav"\n')
    keys = []
    for level in (0.1, 0.2, 0.1):
        write_tone(tmp_path / "tone.wav", level, 2.0)
        keys.append(jobs([score], HOW)[0].key)
    assert keys[0] == keys[2] != keys[1]
    others = (How(cycles=2), How(cycles=1, stems=True), How(cycles=1, start=1))
    seeds = [jobs([score], HOW, (seed,))[0].key for seed in (1, 2)]
    assert len({keys[0], *seeds, *(jobs([score], how)[0].key for how in others)}) == 6


def test_a_damaged_ledger_costs_time_alone(tmp_path: Path, mock: list[Job]) -> None:
    path = _score(tmp_path / "a.demon")
    for text in ("", "[]", '{"a.wav": 3}', '{"a.wav": {"key": 1}}'):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / LEDGER).write_text(text)
        Farm(tmp_path / "out").run(jobs([path], HOW))
    assert len(mock) == 4
    assert json.loads((tmp_path / "out" / LEDGER).read_text())["a.wav"]["key"]


def test_one_that_fails_holds_up_no_other(tmp_path: Path, mock: list[Job]) -> None:
    job, other = jobs([_score(tmp_path / f"{n}.demon", n) for n in "ab"], HOW)
    broken = Job(job.name, job.file, b"prompt = 'a", None, HOW)
    said: list[str] = []
    farm = Farm(tmp_path / "out", said.append)
    farm.run([broken, other])
    assert list(farm.failed) == ["a.wav"]
    assert (tmp_path / "out/b.wav").exists()
    assert any(text.startswith("a.wav failed") for text in said)


def test_each_seed_has_a_file(tmp_path: Path, mock: list[Job]) -> None:
    every = jobs([_score(tmp_path / "a.demon")], HOW, (3, 4))
    assert [(job.name, job.seed) for job in every] == [("a-seed3.wav", 3), ("a-seed4.wav", 4)]


def test_two_that_would_be_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [_score(tmp_path / "a.demon"), _score(tmp_path / "b/a.demon")]
    with pytest.raises(UsageError, match=r"a\.wav"):
        jobs(paths, HOW)


def test_a_set_whose_source_is_gone_is_refused_at_once(tmp_path: Path) -> None:
    score = _score(tmp_path / "x.demon", "a", 'source "gone.wav"\n')
    with pytest.raises(FileError, match=r"gone\.wav"):
        jobs([score], HOW)


# ------------------------------------------------------------------ workers that are lost


@dataclass
class Frail:
    """A Ray whose workers die: `deaths` of the first calls."""

    deaths: int
    gpus: int = 0
    calls: int = 0
    results: dict[int, Any] = field(default_factory=dict)

    def put(self, value: Any) -> Any:
        return value

    def task(self, function: Callable[..., Any], *args: Any, gpu: bool = False) -> int:
        self.calls += 1
        if self.calls <= self.deaths:
            self.results[self.calls] = Gone("the worker died")
        else:
            self.results[self.calls] = function(*args)
        return self.calls

    def wait(self, references: Sequence[int], seconds: float) -> list[int]:
        return [min(references)]

    def get(self, reference: int) -> Any:
        result = self.results[reference]
        if isinstance(result, Exception):
            raise result
        return result


def test_a_lost_worker_costs_its_job_a_second_turn(tmp_path: Path, mock: list[Job]) -> None:
    paths = [_score(tmp_path / f"{n}.demon", n) for n in "abc"]
    said: list[str] = []
    farm, ray = Farm(tmp_path / "out", said.append), Frail(2)
    farm.run(jobs(paths, HOW), ray)  # type: ignore[arg-type]
    assert (farm.lost, ray.calls, len(mock)) == (2, 5, 3)
    assert not farm.failed
    assert said.count("a.wav: its worker is lost; another one begins it again") == 1


def test_a_job_that_kills_each_worker_is_given_up(tmp_path: Path, mock: list[Job]) -> None:
    farm = Farm(tmp_path / "out")
    farm.run(jobs([_score(tmp_path / "a.demon")], HOW), Frail(99))  # type: ignore[arg-type]
    assert list(farm.failed) == ["a.wav"]
    assert farm.lost == 5


# ------------------------------------------------------------------ the command, and Ray itself


def test_the_command_renders_several_into_a_folder(
    tmp_path: Path, mock: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    for n in "ab":
        _score(tmp_path / f"{n}.demon", n)
    assert main(["render", "a.demon", "b.demon", "--cycles", "1", "-o", "out"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.wav")) == ["a.wav", "b.wav"]
    assert "2 of 2 in out" in capsys.readouterr().out
    assert main(["render", "a.demon", "b.demon", "-o", "x.wav"]) == 2
    assert main(["render", "a.demon", "--seeds", "2-1", "-o", "out"]) == 2
    assert main(["render", "a.demon", "--seeds", "1-2", "--seed", "3", "-o", "out"]) == 2


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("ray://box/imp", RemoteEngine("box", 10001, "imp")),
        ("ray://10.0.0.2:99/ace-step", RemoteEngine("10.0.0.2", 99, "ace-step")),
        ("ray://[fd00::2]/imp", RemoteEngine("fd00::2", 10001, "imp")),
        ("ray://[fd00::2]:7/imp", RemoteEngine("fd00::2", 7, "imp")),
        ("imp", None),
    ],
)
def test_where_an_engine_is(name: str, there: RemoteEngine | None) -> None:
    assert parse_remote(name) == there


@pytest.mark.parametrize("name", ["ray://", "ray://box", "ray://box/", "ray:///imp", "ray://b:x/i"])
def test_a_place_that_is_none_is_refused_with_its_form(name: str) -> None:
    with pytest.raises(UsageError, match="no engine on another machine") as error:
        parse_remote(name)
    assert "ray://HOST/ENGINE" in str(error.value)


def test_without_ray_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demon_live.runtime.options.has_ray", lambda: False)
    with pytest.raises(EngineError, match="not installed") as error:
        Ray(None)
    assert "[ray]" in str(error.value)
