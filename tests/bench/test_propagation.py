"""Onset and convergence of every control, against the classes, the formulas and the stamps."""

import pytest

from demon_live.bench.propagation import propagation_table
from demon_live.controls import names
from demon_live.engine import Ring
from tests.helpers.velocity_models import Linear, request


@pytest.fixture(scope="module")
def propagation():
    return {(row["control"], row["policy"]): row for row in propagation_table(8, 4)}


def test_every_control_of_its_class(propagation):
    assert {name for name, _ in propagation} == {
        *(name for name in names("step") if name != "detail"),  # changes no latent
        *names("slot"),
        "lora.x",
    }
    for (name, policy), row in propagation.items():
        if policy == "admitted":
            assert (row["onset_min"], row["onset_max"]) == (8, 9)
        else:
            # The last step adds no noise, so that of the noise curve is heard a tick later.
            late = 1 if name == "noise" else 0
            assert (row["onset_min"], row["onset_max"]) == (1 + late, 2 + late)
            assert row["converged_max"] <= 9


def test_deviations_are_those_that_the_formulas_explain(propagation):
    def converged(name, policy):
        return propagation[name, policy]["converged_max"]

    # Morph acts in the second half only; blend forgets the steps before; feedback feeds on itself.
    assert converged("morph", "shared") == 5
    assert converged("blend", "shared") < 9
    assert converged("velocity", "shared") == 9
    assert converged("denoise", "admitted") == converged("seed", "admitted") == 9
    assert converged("denoise", "migrated") == 9
    assert converged("feedback", "admitted") > 9


def share_seen(generation, version):
    """The part of a generation's steps that saw this version of the shared values or a newer."""
    return sum(stamp >= version for stamp in generation.versions) / len(generation.versions)


def first(generations):
    """The tick of the first of some completions; None without any."""
    return min((g.retired for g in generations), default=None)


def onset(generations, version, changed):
    at = first(g for g in generations if share_seen(g, version) > 0)
    return None if at is None else at - changed + 1


def converged(generations, version, changed):
    at = first(g for g in generations if share_seen(g, version) == 1)
    return None if at is None else at - changed + 1


@pytest.mark.parametrize("at", [24, 25])
def test_stamps_of_generations_say_the_same_as_their_sound(propagation, at):
    it = Ring(Linear(), steps=8, depth=4, shift=3.0, on_admit=lambda deck: request())
    it.enlist("main")
    out = []
    for tick in range(50):
        if tick == at:
            it.share("velocity", 0.5)
            version, changed = it.version, it.tick_number
        out += it.tick()
    row = propagation["velocity", "shared"]
    assert onset(out, version, changed) in (row["onset_min"], row["onset_max"])
    assert converged(out, version, changed) in (row["converged_min"], row["converged_max"])
    assert [share_seen(g, version) for g in out if g.retired >= at][:4] == (
        [0.125, 0.375, 0.625, 0.875] if at % 2 else [0.25, 0.5, 0.75, 1.0]
    )
    assert onset(out, version + 1, changed) is None
    assert converged(out, version + 1, changed) is None
    born = first(g for g in out if g.born >= changed and g.request.seed == 0)
    assert born - changed + 1 in (8, 9)
