"""What is kept of a measurement, and the Markdown table that is made of it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measurements, table
from benchmarks.measurements import RESULTS, Row, find_result, read_results, save_result


def _measured(set_name: str = "hard", method: str = "a", seed: int = 3, **more: Any) -> dict[str, Any]:
    return {"set": set_name, "method": method, "seed": seed, **more}


def _told(factor: str, corrected: float, transformation: float = 0.0) -> dict[str, Any]:
    of_z = {"corrected": transformation}
    sap = corrected - transformation
    return {"factor": factor, "content": {"corrected": corrected}, "transformation": of_z, "sap_corrected": sap}


def _cells(rows: Sequence[Row]) -> Mapping[str, str]:
    """The cells of the table's one row by their column."""
    head, _, row = (line.strip("| ").replace("\\|", "/").split(" | ") for line in table.markdown(rows).splitlines())
    return dict(zip(head, row, strict=True))


def test_a_measurement_is_found_again_with_every_figure(tmp_path: Path, capsys) -> None:
    pose = {"factor": "pose", "content": {"corrected": -0.0547, "seeds": [0.1, 0.2]}, "transformation": None}
    counts = {"1bxn": [0, 99], "3j9i": [100, 0]}
    verdict = '4 classes: "far", apart'
    save_result(tmp_path, _measured(ari=1.0, auto_k=4, verdict=verdict, disentanglement=[pose], auto_counts=counts))
    assert json.loads(capsys.readouterr().out)["disentanglement"] == [pose]
    found = find_result(tmp_path, "hard", "a", 3)
    assert found is not None
    assert found["disentanglement.pose.content.corrected"] == -0.0547
    assert found["auto_counts.1bxn"] == "0 99"
    assert (found["ari"], found["auto_k"], found["verdict"]) == (1.0, 4, verdict)
    # Whole numbers are counts: the table shows them without decimals.
    assert (type(found["ari"]), type(found["auto_k"])) == (float, int)
    assert not any("transformation" in column for column in found)
    assert find_result(tmp_path, "hard", "a", 4) is None
    assert find_result(tmp_path, "easy", "a", 3) is None


def test_a_method_measured_again_replaces_its_row_and_no_other(tmp_path: Path) -> None:
    save_result(tmp_path, _measured(method="b", ari=0.1))
    save_result(tmp_path, _measured(seed=10, accuracy=0.5))
    save_result(tmp_path, _measured(seed=3, ari=0.2))
    save_result(tmp_path, _measured(seed=3, ari=0.3))
    rows = read_results(tmp_path, "hard")
    assert [(row["method"], row["seed"], row.get("ari")) for row in rows] == [
        ("a", 3, 0.3),
        ("a", 10, None),
        ("b", 3, 0.1),
    ]
    assert rows[1]["accuracy"] == 0.5


def test_benchmarks_that_end_at_the_same_time_keep_every_row(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from benchmarks.measurements import save_result\n"
        "for seed in range(40): save_result(Path(sys.argv[1]), {'set': 'hard', 'method': sys.argv[2], 'seed': seed})"
    )
    root = Path(measurements.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", script, str(tmp_path)]
    both = [subprocess.Popen([*command, name], env=environment, stdout=subprocess.DEVNULL) for name in "ab"]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(read_results(tmp_path, "hard")) == 80


def test_every_kept_row_is_of_the_set_its_table_is_named_after() -> None:
    tables = {file.stem: read_results(RESULTS, file.stem) for file in RESULTS.glob("*.csv")}
    assert {"easy", "hard", "paper", "mnist"} <= set(tables)
    for name, rows in tables.items():
        assert {row["set"] for row in rows} == {name}
        assert len({(row["method"], row["seed"]) for row in rows}) == len(rows)
        if name == "picks-junk":  # no protein, so nothing to tell apart
            assert all("ari" not in row and row["classes.junk_outside"] <= 1 for row in rows)
            continue
        if name.startswith("centring-"):  # where particles lie, not which are alike
            assert all(0 <= row["recentred.far"] <= row["as_picked.far"] <= 1 for row in rows)
            continue
        assert all(isinstance(row["ari"], int | float) and -0.5 <= row["ari"] <= 1 for row in rows)


def test_table_gives_median_and_range(tmp_path: Path) -> None:
    for seed, ari in ((3, 0.2), (4, 0.6), (5, 0.5)):
        save_result(tmp_path, _measured(seed=seed, ari=ari))
    save_result(tmp_path, _measured("easy", ari=1.0))
    lines = table.markdown(read_results(tmp_path, "hard")).splitlines()
    assert lines == ["| method | seeds | ARI |", "|---|---|---|", "| a | 3, 4, 5 | 0.500 (0.200–0.600) |"]


def test_table_gives_leakage_above_shuffled_particles(tmp_path: Path) -> None:
    def row(factor: str, value: float, shuffled: float) -> dict[str, Any]:
        return {"factor": factor, "content": {"value": value, "shuffled_mean": shuffled}}

    leakage = [row("orientation", 0.25, -0.1), row("wedge_particle", -0.05, -0.1)]
    save_result(tmp_path, _measured("easy", leakage=leakage))
    cells = _cells(read_results(tmp_path, "easy"))
    assert cells["R² of pose from c, less shuffled"] == "0.350"
    assert cells["R² of wedge from c, less shuffled"] == "0.050"


def test_table_counts_proteins_as_the_published_set_does(tmp_path: Path) -> None:
    published = {"ari": 1.0, "accuracy": 1.0, "disentanglement": [_told("protein", 1.0), _told("conformation", 0.4)]}
    ours = [_told("protein", 0.9), _told("conformation", 0.3), _told("pose", 0.1)]
    save_result(tmp_path, _measured("paper", ari=0.8, disentanglement=ours, as_published=published))
    save_result(tmp_path, _measured("paper", "b", ari=0.5))
    cells = _cells(table.as_published(read_results(tmp_path, "paper")))
    found = [cells[name] for name in ("method", "ARI", "D(c/c)", "D(z/c), conformation", "D(z/c), pose")]
    assert found == ["a", "1.000", "1.000", "0.400", "0.100"]


def test_a_score_the_published_set_has_not_is_not_taken_from_ours(tmp_path: Path) -> None:
    """One protein alone: nothing tells it from others."""
    nothing = {"factor": "protein", "content": None, "transformation": None, "sap_corrected": None}
    published = {"ari": 1.0, "accuracy": 1.0, "disentanglement": [nothing]}
    ours = [_told("protein", 0.9), _told("pose", 0.1)]
    save_result(tmp_path, _measured("paper", ari=0.8, disentanglement=ours, as_published=published))
    cells = _cells(table.as_published(read_results(tmp_path, "paper")))
    assert "D(c/c)" not in cells
    assert cells["D(z/c), pose"] == "0.100"


def test_table_reads_digits_where_others_have_proteins(tmp_path: Path) -> None:
    rows = [_told("digit", 0.5, 0.25), _told("rotation", 0.5, 0.125)]
    save_result(tmp_path, _measured("mnist", ari=0.2, disentanglement=rows))
    cells = _cells(read_results(tmp_path, "mnist"))
    assert (cells["D(c/c)"], cells["D(c/z)"], cells["D(z/z), rotation"]) == ("0.500", "0.250", "0.125")
    assert not any("pose" in name for name in cells)


def test_table_shows_the_states_that_were_found(tmp_path: Path) -> None:
    name = "tetrasome-snr0.1"
    for seed, n_states, ari in ((3, 6, 1.0), (4, 5, 0.82), (5, 6, 1.0)):
        save_result(tmp_path, _measured(name, "states-true", seed, ari=1.0, n_states_found=n_states, ari_found=ari))
    cells = _cells(read_results(tmp_path, name))
    assert (cells["states found"], cells["ARI of those"]) == ("6 (5–6)", "1.000 (0.820–1.000)")
