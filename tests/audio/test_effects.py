"""Effects of the strip against closed forms, on their samples; and the end of tails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demon_live.audio import effects
from demon_live.audio.channel import LOOK
from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.process import mapped_tails
from demon_live.core import Floats, Gate, Loop, MixDeck, MixPoints, MixState
from tests.audio.test_mixer import SECOND, constant, loop, noise, points, tone

LAP = 4 * SECOND


def impulse(at: int, value: float = 0.5, n: int = LAP) -> Floats:
    audio = np.zeros((n, 2), np.float32)
    audio[at] = value
    return audio


def played(audio: Floats, curves: dict[str, MixPoints], blocks: int = 100) -> Floats:
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=len(audio)), audio)
    mixer.set_mix("main", curves)
    return mixer.render(blocks)


def echoing(
    send: float = 0.8, time: float = 5000, feedback: float = 0.5, **more: MixPoints
) -> dict[str, MixPoints]:
    return {
        "delay": points((0, send)),
        "delaytime": points((0, time)),
        "delayfeedback": points((0, feedback)),
        **more,
    }


# --- echo ------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [48, 700, 5000])
def test_echoes_of_an_impulse_are_a_geometric_row_on_their_samples(time: int) -> None:
    out = played(impulse(1000), echoing(0.8, time, 0.5))[:, 0]
    wanted = np.zeros(len(out))
    wanted[1000] = 0.5
    places = np.arange(1000 + time, len(out), time)
    wanted[places] = 0.5 * 0.8 * 0.5 ** np.arange(len(places))
    assert np.abs(out - wanted).max() < 1e-6


def test_a_step_of_the_send_takes_effect_on_its_sample() -> None:
    out = played(constant(LAP), echoing(feedback=0.0, delay=points((9999, 0), (10000, 1))))[:, 0]
    assert np.abs(out[:15000] - 0.25).max() < 1e-7
    # 5 ms of moving average, from the very sample on.
    rise = 0.25 + 0.25 * np.minimum(1.0, np.arange(1, 1001) / 240)
    assert np.abs(out[15000:16000] - rise).max() < 1e-6


def test_another_delay_time_fades_in_from_its_sample_on() -> None:
    x = tone(LAP)
    times = points((0, 5000), (19999, 5000), (20000, 7000))
    out = played(x, echoing(1.0, feedback=0.0, delaytime=times))
    line = np.concatenate((np.zeros((LAP, 2)), x))

    def back(time: int) -> Floats:
        return x[: len(out)] + line[LAP - time : LAP - time + len(out)]

    assert np.abs(out[:20000] - back(5000)[:20000]).max() < 1e-6
    rest = 20000 + effects.FADE
    assert np.abs(out[rest:] - back(7000)[rest:]).max() < 1e-6
    assert not np.array_equal(out[20000:20010], back(5000)[20000:20010])


def test_a_sine_through_the_echo_has_the_gain_of_a_comb_filter() -> None:
    hz, time = 480.0, 1225  # 12.25 periods
    out = played(tone(LAP, hz, 0.2), echoing(1.0, time, 0.5), 300)[:, 0]
    tail = out[-SECOND:]
    z = np.exp(-2j * np.pi * hz * time / SECOND)
    gain = abs(1 + z / (1 - 0.5 * z))
    found = 2 * abs(np.mean(tail * np.exp(-2j * np.pi * hz * np.arange(SECOND) / SECOND)))
    assert found == pytest.approx(0.2 * gain, rel=1e-4)


def test_feedback_of_one_still_ends() -> None:
    line = effects.Tails("x")
    curves = {"delay": 1.0, "delaytime": 480.0, "delayfeedback": 1.0, "room": 0.0, "size": 0.5}
    first = np.zeros((BLOCK, 2))
    first[0] = 1.0
    out = [line.process(first, 0, curves)]
    out += [line.process(np.zeros((BLOCK, 2)), a, curves) for a in range(BLOCK, SECOND, BLOCK)]
    found = [block[0, 0] for block in out[1:]]
    assert found == pytest.approx([0.98**k for k in range(len(found))], rel=1e-4)


# --- room ------------------------------------------------------------------------------------


def test_the_first_sound_of_a_room_comes_after_its_shortest_line() -> None:
    out = played(impulse(0), {"room": points((0, 1.0))})[:, 0]
    assert out[0] == 0.5
    # One sample sooner: each line takes a little of its neighbours.
    assert not out[1 : effects.LINES[0] - 1].any()
    assert out[effects.LINES[0]] != 0.0


@pytest.mark.parametrize(("size", "seconds"), [(0.2, 0.546), (0.5, 1.342)])
def test_a_room_falls_by_60_db_in_the_time_of_its_size(size: float, seconds: float) -> None:
    x = np.zeros((LAP, 2), np.float32)
    x[:SECOND] = noise(SECOND)
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=LAP), x)
    mixer.set_mix("main", {"room": points((0, 1.0)), "size": points((0, size))})
    tail = mixer.render(300)[SECOND + 4800 :].astype(np.float64)
    # The low end, where lines lose nothing to their neighbours.
    low = tail[: len(tail) // 96 * 96].reshape(-1, 96, 2).mean(axis=1)
    steps = round(seconds / 3 * 500)
    power = [np.square(low[k : k + 100]).mean() for k in (0, steps)]
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(20, abs=3)


def low_power(audio: Floats) -> float:
    """Mean power below 1.5 kHz."""
    return float(np.square(np.abs(np.fft.rfft(audio, axis=0)[: len(audio) // 32])).mean())


def test_steady_low_noise_comes_back_about_as_loud_as_it_was_sent() -> None:
    x = noise(LAP, level=0.05)
    for size in (0.1, 0.6):
        out = played(x, {"room": points((0, 1.0)), "size": points((0, size))}, 390)
        back = (out - x[: len(out)])[-SECOND:]
        assert 0.6 < low_power(back) / low_power(x[:SECOND]) < 1.6


def test_the_matrix_of_the_room_keeps_all_power() -> None:
    matrix = effects._HADAMARD
    assert np.abs(matrix @ matrix.T - np.eye(16)).max() < 1e-6


# --- drive, crush ----------------------------------------------------------------------------


def test_drive_follows_its_curve() -> None:
    x = tone(LAP)
    out = played(x, {"drive": points((0, 0.4))})
    k = np.expm1(2.0)
    wanted = (1 + k) ** 0.6 * x / (1 + k * np.abs(x))
    assert np.abs(out - wanted[: len(out)]).max() < 1e-6


def test_crush_leaves_so_many_levels_from_its_sample_on() -> None:
    x = tone(LAP)
    out = played(x, {"crush": points((9999, 16), (10000, 4))})
    assert np.array_equal(out[:10000], x[:10000])
    settled = out[10000 + 240 :]
    assert np.array_equal(settled, np.round(x[10240 : len(out)] * 8) / 8)


# --- duck ------------------------------------------------------------------------------------


def test_the_gain_for_the_beat_is_what_the_automation_takes_away() -> None:
    curve = points((9999, 0), (10000, 0.6), (22000, 0))
    out = played(constant(LAP), {"duck": curve})[:, 0]
    assert np.array_equal(out[:10000], constant(10000)[:, 0])
    middle = 0.25 * (1 - 0.6 * (22000 - np.arange(11000, 21000)) / 12000)
    # Smoothed over 5 ms: half of that late.
    assert np.abs(out[11000:21000] - middle).max() < 0.25 * 0.6 * 130 / 12000
    assert np.abs(out[22300:] - 0.25).max() < 1e-6


def test_a_deck_makes_way_for_another_and_comes_back() -> None:
    mixer = Mixer(startup=0.0, stems=True)
    hit = np.zeros((LAP, 2), np.float32)
    hit[10000:12000] = 0.3
    mixer.add_loop(loop("drums", lap=LAP), hit)
    mixer.add_loop(loop("pad", lap=LAP), constant(LAP))
    mixer.set_mix("pad", {"duck drums": points((0, 0.8))})
    _, stems = mixer.render_stems(150)
    pad = stems["pad"][:, 0]
    assert np.abs(pad[:10000] - 0.25).max() < 1e-6
    assert np.abs(pad[10100:12000] - 0.25 * 0.2).max() < 1e-6
    # 150 ms later 1/e of it is left.
    assert pad[12000 + 7200 + 48] == pytest.approx(0.25 * (1 - 0.8 / np.e), abs=1e-3)
    assert np.array_equal(stems["drums"], hit[: len(pad)])


# --- tails -----------------------------------------------------------------------------------


def both() -> dict[str, MixPoints]:
    return echoing(0.8, 20000, 0.9, room=points((0, 0.5)), size=points((0, 1.0)))


def test_the_same_samples_come_out_however_gates_cut_the_blocks() -> None:
    def run(gates: list[Gate]) -> Floats:
        mixer = Mixer(startup=0.0)
        mixer.add_loop(loop(lap=SECOND), noise(SECOND))
        mixer.set_mix("main", both())
        mixer.set_gates(gates)
        return mixer.render(100)

    cut = [Gate(at, frozenset({"other"} if at % 2 else ())) for at in range(0, 40000, 617)]
    assert np.abs(run([]) - run(cut)).max() < 1e-5


def test_a_muted_deck_and_one_that_has_ended_ring_on() -> None:
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=SECOND), noise(SECOND))
    mixer.set_mix("main", both())
    mixer.set_gates([Gate(0), Gate(9600, frozenset({"main"}))])
    assert np.abs(mixer.render(60)[-BLOCK:]).max() > 1e-3
    mixer.remove_deck("main")
    assert np.abs(mixer.render(10)[-BLOCK:]).max() > 1e-3
    assert mixer.decks == ["main"]


def test_a_tail_that_has_died_away_costs_nothing_and_the_deck_goes() -> None:
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=SECOND), noise(SECOND))
    mixer.set_mix("main", echoing(0.8, 2000, 0.3))
    mixer.render(5)
    mixer.remove_deck("main")
    mixer.set_mix("main", {})
    mixer.render(200)
    assert mixer.decks == []


@pytest.mark.parametrize("deck", [True, False])
def test_hush_ends_tails_of_decks_and_of_the_master(deck: bool) -> None:
    mixer = Mixer(startup=0.0)
    audio = noise(LAP)
    audio[SECOND // 2 :] = 0.0
    sound = {"main": MixDeck((loop(lap=LAP),), 1, both() if deck else {})}
    master = {} if deck else both()
    mixer.apply(MixState(sound, (Gate(),), None, master), lambda _: audio)
    mixer.render(60)
    mixer.apply(MixState(sound, (Gate(hushed=True),), None, master), lambda _: audio)
    assert not mixer.render(10)[2 * BLOCK :].any()
    mixer.apply(MixState(sound, (Gate(),), None, master), lambda _: audio)
    assert not mixer.render(100).any()


def test_tails_outlive_a_change_of_the_loop() -> None:
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=LAP), impulse(1000))
    mixer.set_mix("main", echoing(0.8, 20000, 0.5))
    mixer.render(10)
    mixer.add_loop(loop("main", 10000, LAP, epoch=2), np.zeros((LAP, 2), np.float32))
    out = mixer.render(50)[:, 0]
    assert out[21000 - 10 * BLOCK] == pytest.approx(0.4, abs=1e-6)


def test_the_next_audio_process_goes_on_with_the_tails(tmp_path: Path) -> None:
    def mixer(start: int, resume: bool) -> Mixer:
        made = Mixer(start=start, startup=0.0, memory=mapped_tails(tmp_path, resume))
        made.apply(state, lambda stage: audio)
        return made

    def state_of(stage: Loop) -> MixState:
        return MixState({"main": MixDeck((stage,), 1, echoing(0.8, 20000, 0.5))})

    audio, state = impulse(1000), state_of(loop(lap=LAP))
    mixer(0, False).render(10)
    # It died at 4800 + LOOK and comes back some blocks later.
    begin = 20 * BLOCK
    out = mixer(begin, True).render(50)[:, 0]
    assert out[21000 - begin] == pytest.approx(0.4, abs=1e-6)
    assert np.count_nonzero(np.abs(out) > 1e-6) == 1
    # A session that begins knows nothing of them.
    assert not np.abs(mixer(begin, False).render(50)[1000:]).any()
    assert begin > 10 * BLOCK + LOOK
