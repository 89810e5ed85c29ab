"""Hostile texts cost no more than honest ones: what the fuzzer found slow, or fatal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demon_live.errors import DemonError
from demon_live.lang import compile_source
from demon_live.lang.split import split
from demon_live.models.manifest import load_manifest, verify
from demon_live.paths import shipped

WORDS = ("tempo", "deck")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "blend = (1\n" + "\n" * n,
        lambda n: "blend = 1\n" + "# x\n" * n,
        lambda n: "#\n" * n,
    ],
)
def test_a_run_of_blank_lines_or_comments_is_read_once(
    make: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demon_live.lang import split as module

    searched = 0
    reach = module._Ahead._reach

    def counted(self: object, what: object, known: tuple[int, int], at: int) -> tuple[int, int]:
        nonlocal searched
        found = reach(self, what, known, at)  # type: ignore[arg-type]
        searched += found is not known
        return found

    monkeypatch.setattr(module._Ahead, "_reach", counted)
    counts = []
    for n in (100, 1000):
        searched = 0
        split(make(n), WORDS)
        counts.append(searched)
    assert counts[0] == counts[1]


def test_where_statements_end_is_as_before() -> None:
    text = (
        'blend = "0 1"\n\n  # why\n\n  .slow(2)\n\ngain = 1 +\n\n  2\n\nlpf = (1\n\n\n2)\n# end\n\n'
    )
    assert [c.text for c in split(text, WORDS)] == [
        'blend = "0 1"\n\n  # why\n\n  .slow(2)', "gain = 1 +", "2", "lpf = (1\n\n\n2)",
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_curve_may_be_smoothed_again_and_again_three_times(depth: int) -> None:
    lane = compile_source('blend = "0 1"' + ".smooth(.1)" * depth).decks["main"]["blend"]
    assert 0.0 <= float(lane.at(0)) <= 1.0


@pytest.mark.parametrize("text", ['"0 1"' + ".smooth(.1)" * 4, "sine" + ".smooth(.1)" * 3])
def test_each_further_smoothing_would_cost_sixteen_times_more(text: str) -> None:
    with pytest.raises(DemonError, match="more than 3 times over"):
        compile_source(f"blend = {text}")


def test_ranges_may_follow_each_other_three_times() -> None:
    lane = compile_source('seed = "0 .. 2 .. 3 .. 4"').decks["main"]["seed"]
    assert float(lane.at(0)) == 0.0
    with pytest.raises(DemonError, match="more than 3 ranges"):
        compile_source('seed = "<0' + " .. 25" * 60 + '>"')


@pytest.mark.parametrize("text", ["itri.slow(.00000000012) * .5", "(itri + 1).fast(1e9)"])
def test_a_signal_at_a_mad_speed_is_refused_and_does_not_run_for_ever(text: str) -> None:
    compile_source("gain = itri.fast(400)")
    with pytest.raises(DemonError, match="more than 4096 events in a cycle"):
        compile_source(f"gain = {text}")


def test_linger_repeats_a_part_within_bounds() -> None:
    compile_source('blend = "0 1".linger(1/512)')
    with pytest.raises(DemonError, match="at most 512 times"):
        compile_source('blend = "0 1".linger(1/513)')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"flow.safetensors"', '"' + "a/" * 400 + 'x"'),
        ("steps", "x = " + "[" * 2000 + "\nsteps"),
        ("steps", "x = " + "{a=" * 2000 + "\nsteps"),
        ("steps", "x = " + "9" * 5000 + "\nsteps"),
    ],
)
def test_a_manifest_that_no_parser_bears_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (shipped("engines") / "imp.toml").read_text("utf-8")
    assert old in text
    path = tmp_path / "imp.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(DemonError):
        verify(load_manifest(path), deep=False)
