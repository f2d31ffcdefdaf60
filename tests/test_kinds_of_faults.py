"""Kinds of silent fault, and the tests that keep each of them mended: at least three cases of a kind beside the first.

The table is an index: a test that is renamed or taken out fails here, so that no kind loses its cases unsaid.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KINDS: dict[str, dict[str, list[str]]] = {
    "coordinates have one unit and origin": {
        "coordinates/test_other_programs.py": [
            "test_a_unit_that_is_given_wins_over_what_the_file_says",
            "test_convert_to_relion_keeps_the_tilt_series_pixel_of_each_group",
            "test_convert_to_relion_keeps_what_counts_from_the_centre",
        ],
        "coordinates/test_contradictions.py": [
            "test_optics_groups_that_agree_need_no_column_and_unused_ones_no_size",
            "test_two_optics_groups_need_a_column_that_says_which",
            "test_a_pixel_that_is_no_size_is_one_error",
        ],
        "export/test_two_grids.py": ["test_every_export_has_each_particle_in_its_place_class_and_half"],
        "tilts/test_image_series.py": ["test_places_of_particles_are_kept_with_their_pixel"],
    },
    "what is stale is not used": {
        "runs/test_current.py": [
            "test_clusters_of_earlier_codes_are_refused",
            "test_states_of_earlier_averages_are_not_current",
            "test_final_classes_are_the_classes_of_everybody",
        ],
        "runs/test_status.py": [
            "test_what_was_given_to_others_is_stale_where_it_is_of_earlier_results",
            "test_other_codes_make_clusters_and_all_after_them_stale",
        ],
        "dataset/test_broken_packs.py": ["test_a_stale_pack_is_an_error_and_a_runs_own_is_made_anew"],
        "evaluation/test_leakage.py": ["test_the_table_is_measured_once_and_again_when_the_run_has_changed"],
    },
    "names are whole names": {
        "io/test_tomogram_names.py": [
            "test_what_could_be_two_tomograms_is_an_error_that_shows_both",
            "test_tilt_ranges_are_found_by_the_same_rule",
            "test_two_tomograms_of_the_picks_are_not_one_file",
        ],
        "export/test_map_back.py": ["test_a_tomogram_named_as_the_labels_of_another_keeps_both"],
        "coordinates/test_contradictions.py": ["test_two_tomograms_are_never_one_tilt_series_in_warp"],
        "tilts/test_import_files.py": ["test_a_tomogram_whose_name_begins_alike_is_another"],
        "export/test_select.py": ["test_an_image_of_the_same_name_beside_the_selection_is_not_taken_for_it"],
    },
    "values are read, not texts": {
        "star/test_values.py": [
            "test_an_optics_group_is_its_number_in_any_spelling",
            "test_three_dimensions_are_three_in_any_spelling",
            "test_a_flag_is_set_by_its_value",
            "test_what_only_python_takes_for_a_number_is_none",
        ],
        "picks/test_columns.py": [
            "test_half_sets_of_a_motivelist_are_letters_or_numbers",
            "test_half_a_tomogram_is_none",
        ],
        "export/test_select.py": ["test_classes_are_kept_however_they_are_written"],
    },
    "MRC is read as it is in the field": {
        "io/test_mrc.py": [
            "test_axes_other_than_xyz_are_put_in_order",
            "test_a_stack_of_images_is_no_stack_of_volumes",
            "test_a_gzip_that_holds_more_than_its_header_says_is_one_error",
        ],
        "io/test_hostile_mrc.py": ["test_more_than_65535_planes_are_read"],
        "io/test_field_mrc.py": [
            "test_bytes_as_mrcfile_writes_them_stay_signed",
            "test_a_gzipped_tomogram_of_unsigned_bytes_is_cut_as_it_is",
        ],
        "runs/test_current.py": ["test_a_map_that_is_not_whole_is_not_exported"],
    },
    "a refusal names what it is and the remedy": {
        "star/test_layout.py": [
            "test_tilt_images_in_places_of_their_own_are_no_particles",
            "test_single_particles_whose_ctf_was_refined_are_particles",
            "test_tilts_of_another_group_name_in_subtomograms_are_left_alone",
        ],
        "tilts/test_image_series.py": ["test_rows_that_cannot_be_read_are_one_error_that_names_them"],
        "particles/test_grids.py": ["test_what_does_not_fit_its_own_group_is_named"],
        "picks/test_extract_edges.py": ["test_where_every_box_is_dropped_no_folder_is_left_and_reasons_are_counted"],
        "training/test_resume.py": ["test_a_refusal_names_the_one_option_that_differs"],
    },
    "training keeps what it has": {
        "states/test_missing_data.py": [
            "test_copies_in_one_single_orientation_have_no_axes",
            "test_axes_of_particles_seen_along_the_beam_stay_within_the_map",
            "test_a_voxel_that_no_particle_measures_says_nothing",
        ],
        "templates/test_seen_along_the_beam.py": [
            "test_particles_turned_about_z_only_get_finite_codes_that_tell_them_apart"
        ],
        "training/test_resume.py": [
            "test_templates_of_numbers_that_are_none_are_left_out",
            "test_too_few_particles_for_templates_are_said_to_be",
        ],
    },
    "a result is there whole or not at all": {
        "runs/test_whole.py": [
            "test_a_new_folder_that_the_system_kills_is_there_whole_or_not_at_all_and_is_begun_again",
            "test_where_two_folders_cannot_change_places_the_old_one_is_put_back",
            "test_what_another_process_is_building_is_left_alone",
            "test_a_lock_that_its_holder_removed_while_it_was_opened_is_not_held",
        ],
        "runs/test_full_disk.py": [
            "test_a_disk_that_fills_leaves_what_was_there",
            "test_training_that_a_full_disk_stops_is_begun_again",
        ],
        "templates/test_matcher.py": ["test_learning_goes_on_after_a_kill_to_the_same_codes"],
    },
    "no traceback, and no claim that is not so": {
        "runs/test_damaged_verbs.py": ["test_a_damaged_file_is_one_error_of_a_verb_or_its_work"],
        "runs/test_damaged.py": ["test_final_classes_of_another_number_of_particles_are_refused"],
        "io/test_reading.py": ["test_a_pipe_is_no_file", "test_a_structure_that_is_a_gzip_bomb_is_one_error_at_once"],
        "runs/test_whole.py": [
            "test_half_sets_that_leave_one_half_empty_are_split_anew_and_the_summary_says_so",
        ],
        "simulation/test_simulate.py": ["test_a_damaged_truth_is_refused_with_its_line"],
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_fault_has_at_least_three_further_cases(kind: str) -> None:
    n_cases = 0
    for file, names in KINDS[kind].items():
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert set(names) <= there, (file, set(names) - there)
        n_cases += len(names)
    assert n_cases >= 3
