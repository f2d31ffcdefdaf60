"""Which classes a run has now; who reads what is of earlier ones; and files that are not as they were written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cryodc.averaging import average_run
from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.evaluation.sources import RunSources
from cryodc.export import export_run, map_back, select_run
from cryodc.report import write_report
from cryodc.runs import (
    RunFolder,
    current_averages,
    current_classes,
    current_states,
    load_codes,
    load_config,
    require_averages,
    save_codes,
)
from cryodc.states import find_states


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """The small run, whose files may be changed."""
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


def test_averages_of_an_earlier_clustering_are_used_by_nobody(run: RunFolder, tmp_path: Path) -> None:
    cluster_run(run, 3)
    for reader in (
        lambda: export_run(run, tmp_path / "out", ["relion"]),
        lambda: map_back(run, tmp_path / "mapped"),
        lambda: find_states(run, 1),
        lambda: require_averages(run),
    ):
        with pytest.raises(InputError, match="run `cryodc average` again"):
            reader()
    assert current_averages(run) is None
    assert current_classes(run).n_clusters == 3
    assert len(select_run(run, tmp_path / "kept.star").n_kept) == 3
    assert "of earlier classes" in write_report(run).read_text()
    average_run(run)
    assert len(require_averages(run).classes) == 3
    assert len(export_run(run, tmp_path / "out", ["relion"]).maps) >= 12


def test_the_same_clustering_again_leaves_averages_current(run: RunFolder) -> None:
    cluster_run(run, 2)
    assert current_averages(run) is not None


def test_clusters_of_earlier_codes_are_refused(run: RunFolder, tmp_path: Path) -> None:
    codes = load_codes(run)
    save_codes(run, codes.select(codes.names[::-1]))
    for reader in (
        lambda: current_classes(run),
        lambda: average_run(run),
        lambda: export_run(run, tmp_path / "out", ["relion"]),
        lambda: find_states(run, 1),
    ):
        with pytest.raises(InputError, match="run `cryodc cluster` again"):
            reader()


def test_states_of_earlier_averages_are_not_current(run: RunFolder) -> None:
    find_states(run, 1, 2, n_starts=1)
    assert list(current_states(run)) == [1]
    cluster_run(run, 3)
    average_run(run)
    assert current_states(run) == {}


def test_final_classes_are_the_classes_of_everybody(run: RunFolder) -> None:
    path = run.averages / "summary.json"
    content, clusters = json.loads(path.read_text()), current_classes(run)
    final = 1 - clusters.labels
    content["classification"] = {"verdict": "swapped", "labels": final.tolist(), "confidence": [0.5] * len(final)}
    path.write_text(json.dumps(content))
    assert current_classes(run).verdict == "swapped"
    np.testing.assert_array_equal(RunSources(run, clusters.names).classes, final + 1)


def test_a_damaged_file_is_one_error_that_names_it_and_the_verb_to_run_again(run: RunFolder) -> None:
    summary = run.clusters / "summary.json"
    codes, averages = run.codes, run.averages / "summary.json"
    cases = [
        (codes, b"", "cryodc train", lambda: load_codes(run)),
        (codes, codes.read_bytes()[:700], "cryodc train", lambda: load_codes(run)),
        (codes, b"PK\x03\x04" + bytes(200), "cryodc train", lambda: load_codes(run)),
        (run.config, b"- a\n- b\n", "cryodc train", lambda: load_config(run)),
        (run.config, b"seed: [", "cryodc train", lambda: load_config(run)),
        (run.config, b"\xff\xfe", "cryodc train", lambda: load_config(run)),
        (averages, b"[]", "cryodc average", lambda: require_averages(run)),
        (averages, b'{"classes": []}', "cryodc average", lambda: require_averages(run)),
        (summary, b"{", "cryodc cluster", lambda: current_classes(run)),
        (summary, summary.read_bytes().replace(b'"seed"', b'"sead"'), "cryodc cluster", lambda: current_classes(run)),
        (summary, summary.read_bytes().replace(b'"version": 1', b'"version": 2'), "cryodc cluster",
         lambda: current_classes(run)),
    ]  # fmt: skip
    for path, damage, verb, read in cases:
        whole = path.read_bytes()
        path.write_bytes(damage)
        with pytest.raises(InputError) as caught:
            read()
        assert caught.value.file == path
        assert verb in str(caught.value.remedy)
        path.write_bytes(whole)
    load_codes(run)


@pytest.mark.parametrize("damage", [b"", b"cut", b"twice"])
def test_a_map_that_is_not_whole_is_not_exported(damage: bytes, run: RunFolder, tmp_path: Path) -> None:
    path = run.averages / "class002_half1.mrc"
    whole = path.read_bytes()
    path.write_bytes({b"": b"", b"cut": whole[:-400], b"twice": whole + whole}[damage])
    with pytest.raises(InputError) as caught:
        export_run(run, tmp_path / "out", ["relion"])
    assert caught.value.file == path
    assert not (tmp_path / "out").exists()
