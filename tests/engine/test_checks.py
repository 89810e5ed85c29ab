"""The 25 checks of the ring's specification, and the tests that make each of them.

`CHECKS` is the list for readers; the test below keeps it true: every name in it is a test that
exists. Each test is exact with mock models unless its own words say otherwise.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

CHECKS = {
    1: (
        "schedule: ends, formula, monotone, continuous in denoise; denoise 0 gives the source",
        "engine/schedule::test_ends_formula_and_falling "
        "engine/schedule::test_levels_of_ace_step_turbo "
        "engine/schedule::test_continuous_in_denoise "
        "engine/schedule::test_denoise_0_returns_the_source",
    ),
    2: (
        "N requests at depth 1, 2, 4, 8 are those one at a time, bit for bit (imp: 2e-5)",
        "engine/ring::test_stream_equals_one_at_a_time "
        "engine/imp::test_streaming_equals_one_at_a_time",
    ),
    3: (
        "every row follows its slot's own schedule; an admitted denoise leaves rows in flight",
        "engine/ring::test_every_slot_sees_its_own_schedule "
        "engine/ring::test_a_denoise_edit_leaves_rows_in_flight_alone",
    ),
    4: (
        "completions D/S a tick, largest gap S/D, none lost in a sweep of 60 ticks",
        "engine/ring::test_completions_come_evenly engine/ring::test_a_denoise_sweep_loses_nothing "
        "rigs/policies::test_sweep_reproduces_the_paper",
    ),
    5: (
        "first effect of class slot within S + S/D - 1 ticks; migrated, 1 tick",
        "engine/ring::test_first_effect_admitted "
        "engine/solver::test_first_effect_migrated_is_the_next_completion",
    ),
    6: (
        "class step is seen by the very next tick, one value for all rows",
        "engine/ring::test_shared_values_reach_the_very_next_tick_one_for_all_rows",
    ),
    7: (
        "convergence is ordered by the steps that remain",
        "engine/ring::test_convergence_is_ordered_by_the_steps_that_remain "
        "rigs/policies::test_convergence_curves_match_the_classes",
    ),
    8: (
        "blend: 1 is the plain SDE, 0 ends on the source, each frame for itself",
        "engine/solver::test_blend_1_is_the_plain_sde "
        "engine/solver::test_blend_0_ends_on_the_source_exactly "
        "engine/solver::test_blend_is_per_frame",
    ),
    9: (
        "Euler with a constant velocity; velocity 0",
        "engine/solver::test_euler_with_a_constant_velocity_is_exact "
        "engine/solver::test_velocity_0_stands_still",
    ),
    10: (
        "morph 1 gives the target, 0 changes no bit",
        "engine/solver::test_morph_1_gives_the_target engine/solver::test_morph_0_changes_no_bit",
    ),
    11: (
        "frames of mask 0 end bit-equal to the original",
        "engine/solver::test_mask_0_keeps_the_original",
    ),
    12: (
        "passes: full S, initialize 1, self 0; guide 1 changes no bit",
        "engine/solver::test_negative_passes_are_as_many_as_the_mode_says "
        "engine/solver::test_guide_1_changes_no_bit",
    ),
    13: (
        "channel gain acts on the input, not on the base",
        "engine/solver::test_gain_acts_on_the_input_not_on_the_base",
    ),
    14: (
        "DCW of zeros changes no bit, perfect reconstruction, odd T keeps its length",
        "engine/solver::test_dcw_of_no_strength_changes_no_bit "
        "engine/solver::test_the_haar_transform_reconstructs_and_corrects_each_band",
    ),
    15: (
        "resize: nothing lost, nothing twice, order kept",
        "engine/ring::test_resize_loses_nothing_and_keeps_order "
        "engine/ring::test_another_number_of_steps_loses_nothing",
    ),
    16: (
        "nothing of a dead epoch after a swap, of the same T and of another",
        "engine/ring::test_nothing_of_a_dead_epoch_comes_out",
    ),
    17: (
        "equal sessions, equal latents; noise does not depend on neighbours",
        "engine/ring::test_two_equal_sessions_emit_equal_latents "
        "engine/ring::test_a_held_seed_is_a_held_sound "
        "engine/noise::test_frames_do_not_depend_on_the_length",
    ),
    18: (
        "a curve of a wrong name or length is refused at the call",
        "engine/ring::test_wrong_curves_are_refused_at_the_call "
        "engine/ring::test_a_curve_that_came_before_its_loop_is_refused_by_submit",
    ),
    19: (
        "a window is the whole decode inside the margin; cyclic at the seam; ends",
        "engine/decode::test_cyclic_windows_are_exact_also_at_the_seam "
        "engine/decode::test_open_windows_are_exact_also_at_the_ends "
        "engine/decode::test_one_frame_less_of_margin_is_not_exact "
        "engine/imp::test_windows_are_exact_with_imps_margin",
    ),
    20: (
        "placement: never behind the playhead, every sample each lap, recovers from a stall",
        "runtime/placement::test_nothing_is_written_near_or_behind_the_playhead "
        "runtime/placement::test_every_sample_is_refreshed_each_lap_and_a_stall_leaves_no_hole",
    ),
    21: (
        "no step at splices above the tone's own slope; a constant stays constant",
        "runtime/placement::test_a_constant_stays_constant_through_windows_seam_and_laps "
        "runtime/placement::test_equal_audio_keeps_its_level_and_unlike_audio_its_power "
        "audio/mixer::test_no_step_at_a_switch_beyond_the_tones_own_slope",
    ),
    22: (
        "125 Hz of every control for 60 s: memory flat, the last value wins, ticks unharmed",
        "engine/storm::test_memory_is_flat_the_last_value_wins_and_nobody_else_is_touched",
    ),
    23: (
        "LoRA: strength 0 is the base, a + b composes, removal restores, to the bit",
        "engine/weights::test_strength_0_is_the_base_to_the_bit "
        "engine/weights::test_adapters_compose_in_any_order "
        "engine/weights::test_removal_restores_every_bit_after_a_long_ride "
        "engine/weights::test_strength_0_and_no_adapter_make_the_same_latents",
    ),
    24: (
        "feedback takes the n-th last generation; cleared by a swap",
        "engine/solver::test_feedback_uses_the_nth_last_generation "
        "engine/solver::test_feedback_is_cleared_by_a_new_epoch",
    ),
    25: (
        "written against heard, within a frame, for each class",
        "runtime/aligned::test_slot_class_jumps_are_heard_on_their_sample_at_every_depth "
        "runtime/aligned::test_step_class_curves_are_aligned_by_frames "
        "runtime/aligned::test_mix_class_jumps_are_sample_accurate "
        "engine/weights::test_a_strength_of_a_score_is_heard_on_its_bar "
        "runtime/aligned::test_a_tempo_change_and_a_new_loop_leave_no_gap_and_land_on_the_bar",
    ),
}


@cache
def functions_of(module):
    folder, _, name = module.rpartition("/")
    path = Path(__file__).parents[1] / folder / f"test_{name}.py"
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("number", range(1, 26))
def test_check_is_made_by_tests_that_exist(number):
    words, tests = CHECKS[number]
    assert words
    for test in tests.split():
        module, name = test.split("::")
        assert name in functions_of(module)
