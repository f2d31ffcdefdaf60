"""``cryodc export --chimerax``: commands read as ChimeraX does, beside the STAR turned by scipy and map-back."""

import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from cryodc.export import map_back
from cryodc.io import write_volume
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, phantom, write_simulation
from cryodc.volumes import Volume
from tests.made_runs import make_averages, make_clusters
from tests.simulated import blobs

BOX, SPACING = 24, 10.0
MARKER_XYZ = np.array([7.0, 14.0, 16.0])
"""Voxel of the one bright point of class 1, off the centre along every axis; class 2 has it in the middle."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Twelve particles in two tomograms, in turn of class 1 and 2, and none for the last."""
    folder = tmp_path_factory.mktemp("chimerax")
    config = SimulationConfig(n_per_map=12, snr=2.0, n_tomograms=2, box_size=BOX, spacing_angstrom=SPACING)
    write_simulation({"wheel": phantom("wheel")}, config, folder / "sim", with_poses=True)
    run = RunFolder(folder / "run")
    run.averages.mkdir(parents=True)
    tables = starfile.read(folder / "sim/particles.star")
    tables["particles"]["rlnClassNumber"] = [1, 2] * 5 + [1, 0]
    # Tomograms of half the size, in every direction.
    for axis in "XYZ":
        tables["particles"][f"rlnCoordinate{axis}"] /= 2
    starfile.write(tables, run.averages / "particles.star")
    for number, marker in ((1, MARKER_XYZ[::-1]), (2, np.full(3, BOX / 2))):
        voxels = blobs((BOX,) * 3, [marker], 1.5).astype(np.float32)
        write_volume(run.averages / f"class{number:03d}.mrc", Volume(voxels, SPACING))
        write_volume(run.averages / f"class{number:03d}_mask.mrc", Volume(np.ones((BOX,) * 3, np.float32), SPACING))
    run.config.write_text("{}")
    names = list(tables["particles"]["rlnImageName"])
    make_clusters(run, names, [0, 1] * 6)
    make_averages(run, {1: 20.0, 2: 20.0})
    return run


@pytest.fixture(scope="module")
def scenes(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "out"
    done = CliRunner().invoke(load_verb("export"), [str(run.path), "--chimerax", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out / "chimerax"


def models(scene: Path) -> list[tuple[Path, NDArray[np.float64]]]:
    """The map and the 4 × 4 matrix of every model that a scene opens."""
    opened: dict[str, Path] = {}
    found = []
    for line in scene.read_text().splitlines():
        if match := re.fullmatch(r"open (\S+\.mrc) id (#\d+) name \S+", line):
            opened[match[2]] = scene.parent / match[1]
        elif match := re.fullmatch(r"view matrix models (#\d+),(.+)", line):
            rows = np.array(match[2].split(","), dtype=float).reshape(3, 4)
            found.append((opened[match[1]], np.vstack([rows, [0, 0, 0, 1]])))
    assert len(found) == len(opened)
    return found


def brightest_xyz_angstrom(path: Path) -> NDArray[np.float64]:
    """ChimeraX has the first voxel of a map without an origin at 0 Å."""
    with mrcfile.open(path) as file:
        assert not any(file.header[name] for name in ("nxstart", "nystart", "nzstart"))
        assert file.header.origin.tolist() == (0, 0, 0)
        at = np.unravel_index(file.data.argmax(), file.data.shape)
        return np.array(at[::-1]) * file.voxel_size.x


def test_the_marker_of_each_particle_lies_where_relion_says_it_does(run: RunFolder, scenes: Path) -> None:
    table = starfile.read(run.averages / "particles.star")["particles"]
    for tomogram, rows in table[table["rlnClassNumber"] > 0].groupby("rlnMicrographName"):
        shown = models(scenes / f"{tomogram}.cxc")
        assert len(shown) == len(rows)
        expected = []
        for _, row in rows.iterrows():
            angles = [row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"]]
            matrix = Rotation.from_euler("ZYZ", angles, degrees=True).inv()
            place = [row[f"rlnCoordinate{axis}"] * SPACING - row[f"rlnOrigin{axis}Angst"] for axis in "XYZ"]
            arm = (MARKER_XYZ - BOX // 2) * SPACING if row["rlnClassNumber"] == 1 else np.zeros(3)
            expected.append((row["rlnClassNumber"], *(np.array(place) + matrix.apply(arm))))
        found = [(int(path.stem[-3:]), *(matrix @ [*brightest_xyz_angstrom(path), 1])[:3]) for path, matrix in shown]
        np.testing.assert_allclose(sorted(found), sorted(expected), atol=0.01)


def test_the_marker_lies_where_map_back_draws_it(run: RunFolder, scenes: Path, tmp_path: Path) -> None:
    for mapped in map_back(run, tmp_path / "mapped"):
        with mrcfile.open(mapped.density) as file:
            density = file.data.astype(float)
        markers, mirrored = [], []
        for path, matrix in models(scenes / f"{mapped.name}.cxc"):
            point = brightest_xyz_angstrom(path)
            markers.append((matrix @ [*point, 1])[:3])
            mirrored.append((matrix @ [*(BOX * SPACING - point), 1])[:3])
        values, others = (
            map_coordinates(density, np.array(points)[:, ::-1].T / SPACING, order=1) for points in (markers, mirrored)
        )
        assert values.min() > 0.8 * density.max()
        # Class 2 has its marker in the middle, which is its own mirror image.
        assert np.sort(others)[: len(others) // 2].max() < 0.3 * density.max()


def test_artiax_reads_positions_in_angstrom_and_the_same_poses(scenes: Path) -> None:
    for scene in scenes.glob("*_artiax.cxc"):
        name = scene.name.removesuffix("_artiax.cxc")
        lines = scene.read_text().splitlines()
        stars = [line.split()[1] for line in lines if line.endswith("format relion")]
        assert stars == sorted(path.name for path in scenes.glob(f"{name}_class*.star"))
        # ArtiaX: position = coordinate, rotation = the inverse of RELION's intrinsic ZYZ rotation.
        places, matrices = [], []
        for star in stars:
            table = starfile.read(scenes / star)
            places.append(table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy())
            angles = table[[f"rlnAngle{axis}" for axis in ("Rot", "Tilt", "Psi")]].to_numpy()
            matrices.append(Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix())
        bare = [matrix for _, matrix in models(scenes / f"{name}.cxc")]
        np.testing.assert_allclose(np.concatenate(matrices), np.array(bare)[:, :3, :3], atol=1e-5)
        middle = np.array([*np.full(3, BOX // 2 * SPACING), 1])
        np.testing.assert_allclose(np.concatenate(places), (np.array(bare) @ middle)[:, :3], atol=0.01)
        for at, star in enumerate(stars):
            assert f"artiax attach #{at + 2} toParticleList #1.2.{at + 1}" in lines
            assert f"open {star[-13:-5]}.mrc id #{at + 2}" in lines


def test_surfaces_have_the_colours_of_the_figures(scenes: Path) -> None:
    from cryodc.figures import class_colour

    text = next(iter(scenes.glob("*1.cxc"))).read_text()
    for number in (1, 2):
        assert re.search(rf"^volume #\d+-\d+ style surface step 1 level \S+ color {class_colour(number)}$", text, re.M)
