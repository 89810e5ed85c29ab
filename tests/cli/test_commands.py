"""The command line from outside and inside: exit codes, messages, what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demon_live import __version__
from demon_live import paths as places
from demon_live.cli import doctor, main
from demon_live.cli.arguments import COMMANDS, parser
from demon_live.errors import FileError
from demon_live.paths import shipped
from demon_live.runtime import pcm_files
from demon_live.runtime.live import Live

GOOD = "blend = sine.slow(4).range(.2, 1)\n"


@pytest.fixture
def score(tmp_path: Path) -> Path:
    path = tmp_path / "a.demon"
    path.write_text(GOOD)
    return path


def test_check_says_ok(score: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(score)]) == 0
    assert capsys.readouterr().out.startswith("ok  ")


def test_check_shows_every_error_with_its_caret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.demon"
    path.write_text('denois = 1\nblend = "1 [2"\n')
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().err
    assert f"{path}:1:1:" in said
    assert "^^^^^^" in said
    assert "did you mean denoise?" in said
    assert f"{path}:2:" in said


def test_check_goes_on_after_a_broken_file(
    tmp_path: Path, score: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.demon").write_text("nope = 1\n")
    assert main(["check", str(tmp_path)]) == 1
    assert f"ok  {score}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("scene a { gain = 1 }\ngo b", "2:1", "there is no scene 'b'"),
        ("scene drop { gain = 1 }\nchain drop 8, dorp 4", "2:1", "did you mean drop?"),
        ("scene a from b { gain = 1 }", "1:1", "scene b { ... } defines it"),
        ("deck air { gain = 1 }\ndeck aire off", "2:1", "did you mean air?"),
        ("gain = 1\nmute drums", "2:1", "deck drums { ... } begins it"),
        ("recall calm", "1:1", "there is no snapshot 'calm'"),
    ],
)
def test_check_finds_what_would_fail_on_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, place: str, said: str
) -> None:
    path = tmp_path / "s.demon"
    path.write_text(text)
    assert main(["check", str(path)]) == 1
    shown = capsys.readouterr().err
    assert f"{path}:{place}: " in shown
    assert said in shown


def test_check_knows_what_scenes_and_scores_beside_define(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.demon").write_text("scene a { deck air { gain = 1; lpf = 300 } }\ngo a\n")
    (tmp_path / "b.demon").write_text("mute air\nsnapshot calm\nrecall calm\ngo a\n")
    assert main(["check", str(tmp_path)]) == 0
    assert "1 scene of 2 lines\n" in capsys.readouterr().out


def test_check_runs_a_pattern_file_only_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "beat.py"
    path.write_text("from demon_live import dsl as d\nd.deck.blend = d.sine.slw(4)\n")
    assert main(["check", str(path)]) == 1
    assert f"allow it: demon check --python {path}" in capsys.readouterr().err
    assert main(["check", "--python", str(path)]) == 1
    shown = capsys.readouterr().err
    assert f"{path}:2:" in shown
    assert "did you mean slow?" in shown
    path.write_text(path.read_text().replace("slw", "slow"))
    assert main(["check", "--python", str(path)]) == 0
    assert capsys.readouterr().out == f"ok  {path}  main: 1 control\n"
    assert main(["check", "--python", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"ok  {path}  main: 1 control\n"


def test_check_warns_of_a_deck_that_duck_names_and_no_score_beside_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.demon"
    path.write_text("scene a {\n  deck pad { duck = 'drumz:.5' }\n}\ndeck drums { gain = 1 }\n")
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr().err
    assert "there is no deck 'drumz' to duck for" in said
    assert "did you mean drums?" in said
    (tmp_path / "t.demon").write_text("deck drumz { gain = 1 }\n")
    assert main(["check", str(path)]) == 0
    assert "drumz" not in capsys.readouterr().err


def test_check_warns_of_a_source_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.demon"
    path.write_text('source "nowhere.wav"\nblend = 1\n')
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr()
    assert "s.demon:1:1: there is no file nowhere.wav" in said.err
    assert "main: 1 control\n" in said.out


def test_check_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.demon"
    path.write_text("blend=sine . slow( 4 )   # slow\n")
    assert main(["check", "--format", str(path)]) == 0
    assert capsys.readouterr().out == "blend = sine.slow(4)  # slow\n"


@pytest.mark.parametrize("make", ["missing", "folder", "binary"])
@pytest.mark.parametrize("command", ["check", "live", "render"])
def test_what_is_no_score_is_an_error_of_the_user(
    make: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.demon"
    if make == "folder":
        path.mkdir()
    elif make == "binary":
        path.write_bytes(b"\xff\xfe\x00\x01")
    more = ["-o", str(tmp_path / "out.wav")] if command == "render" else []
    assert main([command, str(path), *more]) == 1
    assert "x.demon" in capsys.readouterr().err


def test_a_misspelt_score_is_offered_the_right_one(
    score: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(score.with_name("aa.demon"))]) == 1
    assert f"did you mean {score}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["chekc"],
        ["render"],
        ["render", "x.demon"],
        ["check"],
        ["bench", "nonsense"],
        ["render", "x.demon", "-o", "y.wav", "--cycles", "0"],
        ["render", "x.demon", "-o", "y.wav", "--cycles", "1", "--seconds", "1"],
        ["engines", "info"],
        ["live", "--frobnicate"],
        ["live", "--backend", "nope"],
        ["replay", "x", "--speed", "0"],
        ["help", "blent"],
    ],
)
def test_usage_errors_are_2_and_name_the_remedy(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "hint: " in capsys.readouterr().err


def test_an_unknown_engine_is_3(score: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "info", "impp"]) == 3
    assert "did you mean imp?" in capsys.readouterr().err


def test_an_unknown_set_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "no-such-set"]) == 1
    assert "no-such-set" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["live", "--help"]])
def test_help_and_version_are_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    assert capsys.readouterr().out


def test_version_is_the_packages() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "demon_live", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == f"demon {__version__}"


def test_help_explains_controls_functions_and_words_of_the_panel(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word, says in (("blend", "class step"), ("fast", "p.fast("), ("lead", "playhead")):
        assert main(["help", word]) == 0
        assert says in capsys.readouterr().out


def test_the_whole_reference_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--all"]) == 0
    assert capsys.readouterr().out.startswith("# Reference")


def test_the_tour_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tour"]) == 2
    assert "the tour needs a terminal" in capsys.readouterr().err


def test_every_command_is_known_to_the_parser() -> None:
    text = parser().format_help()
    assert all(f"  {command} " in text for command in COMMANDS)


HEAVY = ("torch", "onnxruntime", "sounddevice", "soundfile", "scipy", "prompt_toolkit", "watchdog")


@pytest.mark.parametrize("words", [["check"], ["help", "blend"], ["engines"]])
def test_light_commands_load_nothing_heavy(words: list[str], score: Path) -> None:
    program = (
        "import sys; from demon_live.cli import main; code = main(sys.argv[1:]);"
        f"sys.exit(code or sorted(set({HEAVY!r}) & set(sys.modules)) or 0)"
    )
    more = [str(score)] if words == ["check"] else []
    done = subprocess.run(
        [sys.executable, "-c", program, *words, *more], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_no_colour_where_nobody_asked_for_it(
    score: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", str(score)])
    assert "\x1b" not in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m demon_live help --all | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("# Reference")
    assert "Traceback" not in done.stderr


def test_every_score_of_the_tour_is_right_and_finds_its_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shipped("patterns")
    scores = sorted(folder.glob("*.demon"))
    assert len(scores) >= 6
    assert main(["check", *map(str, scores)]) == 0
    assert "there is no file" not in capsys.readouterr().err
    for path in scores:
        named = [
            line.split('"')[1]
            for line in path.read_text().splitlines()
            if line.strip().startswith('source "')
        ]
        assert named or "\nsource notes\n" in path.read_text()
        assert all((folder / name).is_file() for name in named)


def test_doctor_gives_a_verdict_and_a_remedy_for_each_check() -> None:
    checks = doctor.examine()
    assert len({c.name for c in checks}) >= 12
    assert all(c.verdict in ("ok", "warn", "fail") for c in checks)
    assert all(c.remedy for c in checks if c.verdict != "ok")
    report = "".join(text for _, text in doctor.report(checks, as_json=True))
    assert len(json.loads(report)["checks"]) == len(checks)


def test_an_engine_that_was_never_fetched_is_nothing_to_worry_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path))
    (found,) = (c for c in doctor.examine() if c.name == "engine ace-step-v15-turbo")
    assert found.verdict == "ok"
    assert found.remedy == "if you want it: demon engines fetch ace-step-v15-turbo"


def test_doctor_keeps_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    checks = [
        doctor.Check("power", "ok", "mains " * 30, "plug it in"),
        doctor.Check("engine with-a-very-long-name", "warn", "not there", "fetch it"),
    ]
    told = "".join(text for _, text in doctor.report(checks, as_json=False)).splitlines()
    assert max(map(len, told)) < 80
    assert {line.index(word) for line in told for word in ("not there", "fetch it", "plug it in")
            if word in line} == {25}  # fmt: skip


def test_a_runtime_folder_that_is_asked_for_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEMON_RUNTIME", str(tmp_path / "a" / "run"))
    assert places.runtime_dir().parent == tmp_path / "a" / "run"


@pytest.mark.parametrize("kind", ["link", "owner"])
def test_nothing_is_removed_or_written_in_a_runtime_folder_of_somebody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / f"demon-{os.getuid()}"
    (tmp_path / "theirs" / "live-999999999-1").mkdir(parents=True)
    (folder.symlink_to if kind == "link" else (tmp_path / "theirs").rename)(
        tmp_path / "theirs" if kind == "link" else folder
    )
    if kind == "owner":
        monkeypatch.setattr(places, "is_own", lambda found: False)
    monkeypatch.setenv("DEMON_RUNTIME", str(tmp_path))
    with pytest.raises(FileError, match="belongs to somebody else"):
        Live(random_weights=True, audio="null")
    assert [path.name for path in folder.iterdir()] == ["live-999999999-1"]


def test_the_sweep_removes_what_is_ours_and_follows_no_link(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    folder = tmp_path / "run"
    for made in (away, folder / "live-999999999-1", folder / "live-999999999-2"):
        made.mkdir(parents=True)
        (made / "file").touch()
    (folder / "live-999999999-3").symlink_to(away)
    (folder / "live-999999999-1" / "link").symlink_to(away)
    inode = (folder / "live-999999999-2").stat().st_ino
    monkeypatch.setattr(pcm_files, "is_own", lambda found: found.st_ino != inode)
    pcm_files.sweep(folder)
    assert (away / "file").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "live-999999999-2",
        "live-999999999-3",
    ]


def test_a_score_that_is_not_there_is_answered_with_what_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for there, hint in (
        ((), "demon new NAME"),
        (("friday.demon",), "scores there: friday.demon"),
        (("nosuck.demon",), "did you mean nosuck.demon?"),
    ):
        for name in there:
            Path(name).write_text("gain = 1\n")
        assert main(["live", "nosuch.demon", "--no-tty"]) == 1
        assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["check", "NAME.demon"],
        ["live", "--no-tty", "NAME.demon"],
        ["render", "NAME", "-o", "x.wav"],
        ["render", "NAME.demon", "-o", "x.wav"],
        ["replay", "NAME"],
        ["set", "verify", "NAME"],
        ["send", "NAME.demon"],
        ["new", "NAME"],
    ],
)
def test_a_name_that_no_file_can_have_is_an_error_like_others(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DEMON_RUNTIME", str(tmp_path))
    assert main([word.replace("NAME", "x" * 5000) for word in words]) == 1
    assert "xxx" in capsys.readouterr().err


def test_a_score_that_names_such_a_file_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = tmp_path / "x.demon"
    score.write_text(f'source "{"x" * 5000}.wav"\nblend = .5\n')
    assert main(["check", str(score)]) == 0
    assert "there is no file" in capsys.readouterr().err


def test_doctor_survives_a_check_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Check]:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    assert doctor.examine()[0].verdict == "fail"


def test_bench_of_the_language_counts_sixteen_lanes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("demon_live.bench.lang.TRIAL_S", 0.0)
    assert main(["bench", "lang", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["lang"]["lanes"] == 16
    assert figures["lang"]["lanes_16x1500_ms"] > 0
    assert figures["machine"]["demon"] == __version__


def test_live_without_a_terminal_plays_what_comes_through_the_pipe(tmp_path: Path) -> None:
    """The whole instrument: score, statements through a pipe, a recording, and its replay."""
    score = tmp_path / "x.demon"
    score.write_text("tempo 240\nloop 1\nblend = .5\n")
    env = {**os.environ, "DEMON_STATE": str(tmp_path / "state")}
    command = [sys.executable, "-m", "demon_live"]
    live = ["live", str(score), "--audio", "null", "--no-tty", "--record", "friday"]
    with subprocess.Popen(
        [*command, *live], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as playing:
        said, _ = playing.communicate("blend = .25 now\nwrong = 1\n", timeout=60)
    assert playing.returncode == 0
    assert "blend = .25" in said
    assert 'there is no control "wrong"' in said
    assert (tmp_path / "state" / "sets" / "friday.set.jsonl").is_file()
    again = subprocess.run(
        [*command, "replay", "friday", "--audio", "null", "--no-tty", "--seconds", "1"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=60,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "blend = .5" in again.stdout


def test_live_ends_cleanly_when_it_is_terminated(tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("blend = .5\n")
    wav = tmp_path / "out.wav"
    live = [sys.executable, "-m", "demon_live", "live", str(score), "--no-tty"]
    with subprocess.Popen(
        [*live, "--audio", f"file:{wav}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as playing:  # fmt: skip
        assert playing.stdout is not None
        assert playing.stdout.readline().startswith("demon ")
        playing.terminate()
        playing.communicate(timeout=60)
    assert playing.returncode == 0
    assert wav.stat().st_size > 44


def test_gpus_are_those_of_this_machine(
    score: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("demon_live.cli.live._play_here", lambda a, start, *_: told.append(start))
        main(["live", str(score), "--no-tty", "--gpus", "2"])
    assert [start.live["gpus"] for start in told] == [2]  # type: ignore[attr-defined]
    assert main(["live", str(score), "--no-tty", "--engine", "ray://there/imp", "--gpus", "2"]) == 2
    assert "--gpus counts the GPUs of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "places", "paths"),
    [
        (["--osc-to", "10.0.0.1:9000", "x.demon"], ["10.0.0.1:9000"], ["x.demon"]),
        (["x.demon", "--osc-to", "a:1", "b:2"], ["a:1", "b:2"], ["x.demon"]),
        (["--osc-to", "a:1", "--osc-to", "[::1]:2"], ["a:1", "[::1]:2"], []),
    ],
)
def test_destinations_are_told_from_scores(
    words: list[str], places: list[str], paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demon_live.cli import live

    seen: list[Any] = []
    monkeypatch.setattr(live, "_scores", lambda given, python=False: list(given))
    monkeypatch.setattr(live, "_play", lambda args, shown, what: seen.append((args, shown)) or 0)
    assert main(["live", *words]) == 0
    ((args, shown),) = seen
    assert args.osc_to == places
    assert shown == paths
    assert args.ahead == 200
