"""``cryodc export`` and ``cryodc map-back``: read with starfile, pandas and numpy, turned with scipy only."""

import csv
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.export import export_run, map_back
from cryodc.export.back_mapping import make_template, place
from cryodc.io import write_array, write_volume
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, phantom, write_simulation
from cryodc.volumes import Volume
from tests.made_runs import make_averages, make_clusters
from tests.simulated import blobs

BOX, SPACING = 32, 10.0
NAME = "wheel"


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an averaged run of one class that export reads; particles of a known phantom in known poses."""
    folder = tmp_path_factory.mktemp("export")
    config = SimulationConfig(n_per_map=30, snr=2.0, n_tomograms=2, box_size=BOX, spacing_angstrom=SPACING)
    write_simulation({NAME: phantom(NAME)}, config, folder / "sim", with_poses=True)
    averages = folder / "run/averages"
    averages.mkdir(parents=True)
    text = (folder / "sim/particles.star").read_text().splitlines()
    rows = [i for i, line in enumerate(text) if "subtomograms/" in line]
    last = rows[0] - 1
    n_labels = int(text[last].split("#")[1])
    text.insert(last + 1, f"_rlnClassNumber #{n_labels + 1}\n_rlnRandomSubset #{n_labels + 2}")
    text = [line + f"\t1\t{1 + i % 2}" if "subtomograms/" in line else line for i, line in enumerate(text)]
    (averages / "particles.star").write_text("\n".join(text) + "\n")
    write_volume(averages / "class001.mrc", Volume(truth().astype(np.float32), SPACING))
    write_volume(averages / "class001_mask.mrc", Volume((truth() > 0.05).astype(np.float32), SPACING))
    (folder / "run/config.yaml").write_text("{}")
    names = [line.split()[0] for line in text if "subtomograms/" in line]
    make_clusters(RunFolder(folder / "run"), names, [0] * len(names))
    make_averages(RunFolder(folder / "run"), {1: 20.0})
    return folder


def truth() -> np.ndarray:
    voxels = phantom(NAME).mean_map(BOX, SPACING).numpy()
    return voxels / voxels.max()


def read(path: Path) -> np.ndarray:
    with mrcfile.open(path) as file:
        return file.data.astype(float)


def turn_back(voxels: np.ndarray, particle_from_reference_xyz: np.ndarray, shift_zyx: np.ndarray) -> np.ndarray:
    """The reference as one particle shows it, whose centre lies at ``shift`` from the middle of its box."""
    matrix = particle_from_reference_xyz[::-1, ::-1]
    centre = np.full(3, BOX // 2)
    return affine_transform(voxels, matrix, centre + shift_zyx - matrix @ centre, order=3)


def agreement(mean: np.ndarray) -> float:
    inside = np.linalg.norm(np.indices(mean.shape) - BOX // 2, axis=0) < 11
    smooth = gaussian_filter(truth(), 1.0)
    return float(np.corrcoef(gaussian_filter(mean, 1.0)[inside], smooth[inside])[0, 1])


def test_relion_poses_average_to_the_truth(averaged: Path, tmp_path: Path) -> None:
    export_run(RunFolder(averaged / "run"), tmp_path / "out", ["relion"])
    table = starfile.read(tmp_path / "out/particles.star")["particles"]
    total, unturned = np.zeros((BOX,) * 3), np.zeros((BOX,) * 3)
    for row in table.itertuples():
        angles = [row.rlnAngleRot, row.rlnAngleTilt, row.rlnAnglePsi]
        # RELION: shift by +origin, then rotate by the inverse of the intrinsic ZYZ rotation.
        matrix = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
        origin = np.array([row.rlnOriginZAngst, row.rlnOriginYAngst, row.rlnOriginXAngst]) / SPACING
        voxels = read(averaged / "sim" / row.rlnImageName)
        total += turn_back(voxels, matrix, -origin)
        unturned += voxels
    assert agreement(total) > 0.9
    assert agreement(unturned) < 0.8 * agreement(total)
    assert set(table["rlnClassNumber"]) == {1}
    assert set(table["rlnRandomSubset"]) == {1, 2}


def test_a_dynamo_table_averages_to_the_truth(averaged: Path, tmp_path: Path) -> None:
    """Dynamo: tdrot, tilt, narot are extrinsic about z, x, z and bring the reference onto the particle, transposed."""
    export_run(RunFolder(averaged / "run"), tmp_path / "out", ["dynamo"])
    table = np.loadtxt(tmp_path / "out/dynamo.tbl")
    names = pd.Series(starfile.read(averaged / "sim/particles.star")["particles"]["rlnImageName"])
    total = np.zeros((BOX,) * 3)

    def about(axis: int, degrees: float) -> np.ndarray:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[a, a], matrix[b, b], matrix[a, b], matrix[b, a] = c, c, -s, s
        return matrix

    for row in table:
        tdrot, tilt, narot = row[6:9]
        onto_reference = about(2, narot) @ about(0, tilt) @ about(2, tdrot)
        voxels = read(averaged / "sim" / names[int(row[0]) - 1])
        total += turn_back(voxels, onto_reference.T, row[3:6][::-1])
    assert agreement(total) > 0.9
    assert (tmp_path / "out/dynamo.tomograms.csv").exists()


def test_warp_has_the_origins_in_the_coordinates(averaged: Path, tmp_path: Path) -> None:
    export_run(RunFolder(averaged / "run"), tmp_path / "out", ["warp"])
    warp, relion = (
        starfile.read(tmp_path / "out/warp.star"),
        starfile.read(averaged / "sim/particles.star")["particles"],
    )
    for axis in "XYZ":
        moved = relion[f"rlnCoordinate{axis}"] - relion[f"rlnOrigin{axis}Angst"] / SPACING
        np.testing.assert_allclose(warp[f"rlnCoordinate{axis}"], moved, atol=1e-5)
    for name in ("Rot", "Tilt", "Psi"):
        np.testing.assert_allclose(warp[f"rlnAngle{name}"], relion[f"rlnAngle{name}"], atol=1e-5)
    assert set(warp["rlnMicrographName"]) == {f"{name}.tomostar" for name in relion["rlnMicrographName"]}
    assert not [label for label in warp if "Origin" in label]
    assert set(warp["rlnPixelSize"]) == {SPACING}


def test_relion5_turns_by_both_rotations_and_counts_from_the_centre(tmp_path: Path, averaged: Path) -> None:
    run = RunFolder(Path(shutil.copytree(averaged / "run", tmp_path / "run")))
    labels = [*(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"), *(f"rlnTomoSubtomogram{a}" for a in ANGLES)]
    labels += [*(f"rlnAngle{a}" for a in ANGLES), *(f"rlnOrigin{a}Angst" for a in "XYZ"), "rlnTomoName"]
    labels += ["rlnClassNumber", "rlnImageName", "rlnOpticsGroup"]
    values = [100.0, -50.0, 20.0, 30, 40, 50, 10, 60, -20, 5.0, -7.0, 11.0, "TS_1_10.00Apx", 1, "a.mrc", 1]
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, 1))
    optics_labels = "_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n_rlnTomoSubtomogramBinning #3"
    optics = f"data_optics\n\nloop_\n{optics_labels}\n1 2.5 4\n"
    text = f"{optics}\ndata_particles\n\nloop_\n{header}\n" + " ".join(map(str, values)) + "\n"
    (run.averages / "particles.star").write_text(text)
    with pytest.raises(InputError, match="--tomogram-size"):
        export_run(run, tmp_path / "no", ["warp"])
    with pytest.raises(InputError, match="--size X Y Z"):
        map_back(run, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    export_run(run, tmp_path / "out", ["warp"], tomogram_size_xyz=(200, 300, 100))
    warp = starfile.read(tmp_path / "out/warp.star").iloc[0]
    frame, own = (Rotation.from_euler("ZYZ", a, degrees=True).inv() for a in ([30, 40, 50], [10, 60, -20]))
    expected = (np.array([100.0, -50, 20]) - frame.apply([5.0, -7, 11])) / SPACING + np.array([100, 150, 50])
    np.testing.assert_allclose([warp[f"rlnCoordinate{a}"] for a in "XYZ"], expected, atol=1e-5)
    assert warp["rlnMicrographName"] == "TS_1.tomostar"
    found = Rotation.from_euler("ZYZ", [warp[f"rlnAngle{a}"] for a in ANGLES], degrees=True).inv()
    assert (found.inv() * (frame * own)).magnitude() < 1e-5


ANGLES = ("Rot", "Tilt", "Psi")


def test_nothing_is_overwritten_and_unknown_classes_are_named(averaged: Path, tmp_path: Path) -> None:
    run = RunFolder(averaged / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    for verb in (lambda out: export_run(run, out, ["relion"]), lambda out: map_back(run, out)):
        with pytest.raises(InputError, match="refusing to overwrite"):
            verb(tmp_path / "full")
    with pytest.raises(InputError, match="no such class"):
        export_run(run, tmp_path / "out", ["relion"], classes=[4])
    with pytest.raises(InputError, match="no such tomogram"):
        map_back(run, tmp_path / "out", tomograms=["TS_99"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_an_asymmetric_body_lies_where_its_pose_says_to_a_fraction_of_a_voxel(scale: float) -> None:
    """Gaussians at A c + p, written down; no volume is turned to make them."""
    points = np.array([[0.0, 1, -5], [4, -2, 1], [-2, 4.5, 2], [1, 5, -1]])
    heights = np.arange(1, len(points) + 1)
    body = blobs((BOX,) * 3, points + BOX // 2, 2.0, heights)
    template = make_template(Volume(body.astype(np.float32), SPACING), np.ones((BOX,) * 3, np.float32), scale * SPACING)
    matrix = Rotation.from_euler("xyz", [25, 130, -70], degrees=True).as_matrix()
    shape, position = (36, 41, 38), np.array([17.3, 21.6, 18.45])
    density = np.zeros(shape, np.float32)
    box, above = place(density, template, matrix, position, scale * SPACING)
    expected = blobs(shape, points @ matrix.T / scale + position, 2.0 / scale, heights)
    assert np.corrcoef(density.ravel(), expected.ravel())[0, 1] > 0.995
    assert np.abs(density - expected).max() < 0.1 * expected.max()
    centroid = np.argwhere(density[box] * above > 0).mean(axis=0) + [s.start for s in box]
    np.testing.assert_allclose(centroid, np.argwhere(expected > template.threshold).mean(axis=0), atol=0.3)


def test_overlaps_keep_the_larger_value_and_far_positions_touch_nothing() -> None:
    body = blobs((BOX,) * 3, np.full((1, 3), BOX // 2), 2.0).astype(np.float32)
    template = make_template(Volume(body, SPACING), np.ones((BOX,) * 3, np.float32), SPACING)
    density = np.zeros((40, 40, 40), np.float32)
    for _ in range(2):
        place(density, template, np.eye(3), np.full(3, 20.0), SPACING)
    assert density.max() == pytest.approx(1, abs=1e-3)
    before = density.copy()
    assert place(density, template, np.eye(3), np.full(3, 500.0), SPACING) is None
    np.testing.assert_array_equal(density, before)


def test_a_tomogram_is_filled_and_those_outside_are_named(averaged: Path, tmp_path: Path) -> None:
    table = starfile.read(averaged / "run/averages/particles.star")["particles"]
    name = table["rlnMicrographName"][0]
    mine = table[table["rlnMicrographName"] == name]
    moved = np.stack([mine[f"rlnCoordinate{a}"] - mine[f"rlnOrigin{a}Angst"] / SPACING for a in "ZYX"], axis=1) / 2
    shape = tuple(int(edge) for edge in np.median(moved, axis=0))
    # A tomogram of twice the voxel: coordinates are in voxels of the subtomograms.
    write_array(tmp_path / f"{name}.mrc", np.zeros(shape, np.float32), 2 * SPACING)
    command = ["--tomogram-file", str(tmp_path / f"{name}.mrc"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(load_verb("map-back"), [str(averaged / "run"), *command], catch_exceptions=False)
    inside = ((moved > -0.5) & (moved < np.array(shape) - 0.5)).all(axis=1)
    assert f"{inside.sum()} particles" in done.output
    assert f"left out: {(~inside).sum()}, lines" in done.output
    density, labels = (read(tmp_path / f"out/{name}{suffix}.mrc") for suffix in ("", "_classes"))
    assert density.shape == labels.shape == shape
    assert set(np.unique(labels)) == {0, 1}
    with (tmp_path / f"out/{name}_class001.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", "axis-0", "axis-1", "axis-2"]
    np.testing.assert_allclose(np.array(rows[1:], dtype=float)[:, 1:], moved[inside], atol=1e-3)


def test_the_command_exports_for_every_program(averaged: Path, tmp_path: Path) -> None:
    command = [str(averaged / "run"), "--relion", "--warp", "--dynamo", "--class", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(load_verb("export"), command, catch_exceptions=False)
    assert "30 particles, 2 maps" in done.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"particles.star", "warp.star", "dynamo.tbl", "class001.mrc", "class001_mask.mrc"} <= written
