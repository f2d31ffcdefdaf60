"""``cryodc map-back``: every tomogram has files of its own, and too large a volume is refused before it is written."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export import describe_bytes, map_back
from cryodc.runs import RunFolder
from tests.made_runs import make_averages, make_clusters

BOX, SPACING = 8, 20.0


def _run(folder: Path, rows: list[tuple[str, float, float, float]]) -> RunFolder:
    """An averaged run of one class whose average is a ball; coordinates in voxels of 20 Å."""
    averages = folder / "run/averages"
    averages.mkdir(parents=True)
    labels = ["rlnMicrographName", *(f"rlnCoordinate{a}" for a in "XYZ"), "rlnImageName", "rlnClassNumber"]
    labels += [f"rlnAngle{a}" for a in ("Rot", "Tilt", "Psi")]
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup", "_rlnImagePixelSize", "_rlnMicrographPixelSize"]
    lines += [f"1 {SPACING} {SPACING}", "", "data_particles", "", "loop_", *(f"_{label}" for label in labels)]
    lines += [" ".join(map(str, [*row, f"{i}.mrc", 1, 0, 0, 0])) for i, row in enumerate(rows)]
    (averages / "particles.star").write_text("\n".join(lines) + "\n")
    distance = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0)
    for name in ("class001.mrc", "class001_mask.mrc"):
        with mrcfile.new(averages / name, (distance < 2.5).astype(np.float32)) as mrc:
            mrc.voxel_size = SPACING
    (folder / "run/config.yaml").write_text("{}")
    run = RunFolder(folder / "run")
    make_clusters(run, [f"{i}.mrc" for i in range(len(rows))], [0] * len(rows))
    make_averages(run, {1: 2 * SPACING})
    return run


def _places(folder: Path) -> dict[str, list[list[float]]]:
    """What each file of points says, x, y, z in voxels."""
    return {
        path.name.removesuffix("_class001.csv"): pd.read_csv(path)[["axis-2", "axis-1", "axis-0"]].to_numpy().tolist()
        for path in folder.glob("*.csv")
    }


def _density(path: Path) -> NDArray[np.float64]:
    with mrcfile.open(path) as mrc:
        return mrc.data.astype(float)


def test_tomograms_of_equal_names_have_files_of_their_own(tmp_path: Path) -> None:
    run = _run(tmp_path, [("a/TS.mrc", 10, 11, 12), ("b/TS.mrc", 20, 21, 22)])
    map_back(run, tmp_path / "out")
    assert _places(tmp_path / "out") == {"a_TS": [[10, 11, 12]], "b_TS": [[20, 21, 22]]}
    for name, (x, y, z) in {"a_TS": (10, 11, 12), "b_TS": (20, 21, 22)}.items():
        assert _density(tmp_path / f"out/{name}.mrc")[z, y, x] == pytest.approx(1, abs=0.01)


def test_a_tomogram_named_as_the_labels_of_another_keeps_both(tmp_path: Path) -> None:
    run = _run(tmp_path, [("TS", 10, 11, 12), ("TS_classes", 20, 21, 22)])
    written = map_back(run, tmp_path / "out")
    assert len({path for tomogram in written for path in (tomogram.density, tomogram.labels)}) == 4
    for tomogram, (x, y, z) in zip(written, [(10, 11, 12), (20, 21, 22)], strict=True):
        assert _density(tomogram.density)[z, y, x] == pytest.approx(1, abs=0.01)
        assert _density(tomogram.labels)[z, y, x] == 1
        assert _density(tomogram.density).sum() == pytest.approx(_density(written[0].density).sum(), rel=1e-3)


@pytest.mark.parametrize(("name", "place"), [("Position_1", [20, 21, 12]), ("Position_1_2", [10, 11, 12])])
def test_a_tomogram_file_is_given_the_particles_of_its_name_only(name: str, place: list[int], tmp_path: Path) -> None:
    run = _run(tmp_path, [("Position_1_2", 10, 11, 12), ("Position_1", 20, 21, 12)])
    for file in (f"{name}.mrc", f"{name}_10.00Apx.mrc"):
        with mrcfile.new(tmp_path / file, np.zeros((24, 32, 32), np.float32)) as mrc:
            mrc.voxel_size = SPACING
        (written,) = map_back(run, tmp_path / f"out {file}", tomogram_file=tmp_path / file)
        assert (written.n_placed, written.outside) == (1, ())
        ((placed,),) = _places(tmp_path / f"out {file}").values()
        assert placed == place


def test_a_tomogram_is_named_by_the_same_rule(tmp_path: Path) -> None:
    run = _run(tmp_path, [("Position_1_2.tomostar", 10, 11, 12), ("Position_1.tomostar", 20, 21, 12)])
    map_back(run, tmp_path / "out", tomograms=["Position_1"])
    assert list(_places(tmp_path / "out")) == ["Position_1"]
    with pytest.raises(InputError, match="no such tomogram"):
        map_back(run, tmp_path / "none", tomograms=["Position"])


@pytest.mark.parametrize(
    ("x", "size", "problem"),
    [
        (1e8, None, "too large"),
        (1e12, None, "farther off than a volume can reach"),
        (1e300, None, "farther off than a volume can reach"),
        (10, (2**31, 2**31, 2**31), "too large"),
        (10, (10**6, 10**6, 10**6), "too large"),
    ],
)
def test_what_is_too_far_or_too_large_is_one_error_before_anything_is_written(
    x: float, size: tuple[int, int, int] | None, problem: str, tmp_path: Path
) -> None:
    run = _run(tmp_path, [("TS", 10, 11, 12), ("TS", x, 1e4, 1e4)])
    with pytest.raises(InputError, match=problem) as caught:
        map_back(run, tmp_path / "out", size_xyz=size)
    assert "--size" in str(caught.value.remedy)
    if problem != "too large":
        assert caught.value.row == 22
    assert not (tmp_path / "out").exists()


def test_far_particles_lie_outside_a_size_that_is_given(tmp_path: Path) -> None:
    run = _run(tmp_path, [("TS", 10, 11, 12), ("TS", 1e300, -1e300, 1e9)])
    (written,) = map_back(run, tmp_path / "out", size_xyz=(32, 32, 24))
    assert (written.n_placed, written.outside) == (1, (22,))


def test_the_command_says_how_much_it_will_write_and_how_it_read_positions(tmp_path: Path) -> None:
    run = _run(tmp_path, [("TS", 96, 60, 36), ("other", 10, 11, 12)])
    said = CliRunner().invoke(
        load_verb("map-back"), [str(run.path), "--out", str(tmp_path / "out")], env={"COLUMNS": "200"}
    )
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0] == "Coordinates: pixels of 20 Å (rlnMicrographPixelSize), from the corner of the tomogram"
    assert "2 tomograms of up to 100 × 64 × 40 voxels" in lines[1]
    voxels = sum(path.stat().st_size - 1024 for path in (tmp_path / "out").glob("*.mrc"))
    assert lines[1].startswith(f"Writing {describe_bytes(voxels)}:")
    given = CliRunner().invoke(
        load_verb("map-back"),
        [str(run.path), "--coordinate-spacing", "10", "--out", str(tmp_path / "half")],
        env={"COLUMNS": "200"},
    )
    assert given.output.startswith("Coordinates: pixels of 10 Å (as given)")
    assert _places(tmp_path / "half")["TS"] == [[48, 30, 18]]
