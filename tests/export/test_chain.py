"""The whole chain on tomograms whose names begin alike and whose picks count different pixels.

Each particle is known by its place in Å. From picks of two optics groups, which differ in the pixel of their tilt
series and in their box, through extraction, training, clustering and averaging, every file that another program is
given must have each particle at its place, in its tomogram, of its class and half set. Truth and files are compared
with scipy, pandas and NumPy alone.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryodc.averaging import average_run
from cryodc.clustering import cluster_run
from cryodc.simulation import phantom
from cryodc.training import TrainRequest, train_run

BOX, VOXEL = 24, 15.0
# Names of which one begins as the other; optics group, pixel of the tilt series and box of RELION's extraction.
TOMOGRAMS = {"Position_1": (1, 3.75, 48), "Position_1_2": (2, 1.875, 96)}
SHAPE = (40, 100, 124)
PER_TOMOGRAM = 12
# How a half set may be written, and how a tomogram's voxels are kept: each is a chain of its own.
HALF_SETS = ["{:d}", "{:.1f}"]
VOXELS = [np.float32, np.uint8]


@dataclass
class Chain:
    """The truth of every particle, and where the chain wrote its files."""

    truth: pd.DataFrame
    folder: Path


def _places() -> NDArray[np.float64]:
    """xyz, voxels: on a grid, so that no box holds a part of another particle, and off its points by a fraction."""
    x, y, z = np.meshgrid([18, 47, 76, 105], [18, 47, 76], [20], indexing="ij")
    grid = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(float)
    return grid + np.random.default_rng(7).uniform(-0.5, 0.5, grid.shape)


def _write_tomogram(path: Path, truth: pd.DataFrame, voxels: Any) -> None:
    density = np.random.default_rng(len(path.stem)).standard_normal(SHAPE)
    for row in truth.itertuples():
        body = phantom(row.kind).mean_map(BOX, VOXEL).numpy().astype(float)
        body *= 6 / body.max()
        matrix = Rotation.from_euler("ZYZ", [row.rot, row.tilt, row.psi], degrees=True).inv().as_matrix()[::-1, ::-1]
        centre = np.array([row.z, row.y, row.x])
        low = np.round(centre).astype(int) - BOX // 2
        # The reference at Aᵀ (x − place), where A takes it to the particle.
        offset = matrix.T @ (low - centre) + BOX // 2
        box = tuple(slice(a, a + BOX) for a in low)
        density[box] += affine_transform(body, matrix.T, offset, output_shape=(BOX,) * 3, order=3)
    if voxels is np.uint8:
        grey = np.clip(np.round(128 + 12 * density), 0, 255).astype(np.uint8)
        # Mode 0 as IMOD wrote it before it knew signed bytes: extremes above 127 and its stamp, flags 0.
        with mrcfile.new(path, grey.view(np.int8)) as mrc:
            mrc.voxel_size = VOXEL
        content = bytearray(path.read_bytes())
        content[76:88] = struct.pack("<3f", grey.min(), grey.max(), grey.mean())
        content[152:160] = struct.pack("<2i", 1146047817, 0)
        path.write_bytes(content)
        return
    with mrcfile.new(path, density.astype(voxels)) as mrc:
        mrc.voxel_size = VOXEL


def _write_picks(path: Path, truth: pd.DataFrame, half_set: str) -> None:
    """A RELION 4 particles.star: coordinates in pixels of each group's tilt series."""
    lines = ["# version 30001", "", "data_optics", "", "loop_", "_rlnOpticsGroup", "_rlnOpticsGroupName"]
    lines += ["_rlnTomoTiltSeriesPixelSize", "_rlnTomoSubtomogramBinning", "_rlnImagePixelSize", "_rlnImageSize"]
    lines += [f"{group} group{group} {pixel} 2 {2 * pixel} {box}" for group, pixel, box in TOMOGRAMS.values()]
    lines += ["", "data_particles", "", "loop_", "_rlnTomoName", *(f"_rlnCoordinate{axis}" for axis in "XYZ")]
    lines += ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi", "_rlnOpticsGroup", "_rlnRandomSubset"]
    for row in truth.itertuples():
        group, pixel, _ = TOMOGRAMS[row.tomogram]
        coordinates = [f"{at * VOXEL / pixel:.5f}" for at in (row.x, row.y, row.z)]
        cells = [row.tomogram, *coordinates, row.rot, row.tilt, row.psi, group, half_set.format(row.half)]
        lines.append(" ".join(map(str, cells)))
    path.write_text("\n".join(lines) + "\n")


def _truth() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for number, name in enumerate(TOMOGRAMS):
        angles = Rotation.random(PER_TOMOGRAM, rng=rng).as_euler("ZYZ", degrees=True)
        for i, place in enumerate(_places()):
            kind = ("bilobe", "barrel")[(i + number) % 2]
            rows.append([name, *place, *angles[i], kind, 1 + (i // 2 + number) % 2])
    # Rows of both tomograms in turn, so that no order is an accident of the file.
    table = pd.DataFrame(rows, columns=["tomogram", "x", "y", "z", "rot", "tilt", "psi", "kind", "half"])
    return table.iloc[np.random.default_rng(1).permutation(len(table))].reset_index(drop=True)


def _do(*command: object) -> str:
    verb, *rest = map(str, command)
    done = CliRunner().invoke(load_verb(verb), rest, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(
    scope="module",
    params=[(half_set, voxels) for half_set in HALF_SETS for voxels in VOXELS],
    ids=lambda param: f"halves {param[0].format(1)}, {np.dtype(param[1]).name}",
)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Everything from tomograms and picks to what other programs are given."""
    half_set, voxels = request.param
    folder, truth = tmp_path_factory.mktemp("chain"), _truth()
    for name in TOMOGRAMS:
        _write_tomogram(folder / f"{name}.mrc", truth[truth["tomogram"] == name], voxels)
    _write_picks(folder / "picks.star", truth, half_set)
    # The files in another order than the groups, and one with what Warp adds to its name.
    (folder / "Position_1.mrc").rename(folder / "Position_1_15.00Apx.mrc")
    files = [folder / "Position_1_2.mrc", folder / "Position_1_15.00Apx.mrc"]
    options = ["--picks", folder / "picks.star", "--box", BOX, "--tilt-range", -60, 60, "--out", folder / "sub"]
    said = _do("extract", *files, *options)
    assert "pixels of 1.875 and 3.75 Å (rlnTomoTiltSeriesPixelSize), from the corner of the tomogram" in said
    overrides = {
        "model": {"width": 8, "max_channels": 16},
        "optimisation": {"epochs": 2, "batch_size": 8},
    }
    run, _ = train_run(TrainRequest(folder / "sub/particles.star", folder / "run", overrides=overrides))
    cluster_run(run, 2)
    average_run(run)
    _do("export", run.path, "--relion", "--warp", "--dynamo", "--out", folder / "exported")
    _do("map-back", run.path, "--out", folder / "mapped")
    for file in files:
        _do("map-back", run.path, "--tomogram-file", file, "--out", folder / f"onto {file.stem}")
    _do("select", run.path, "--keep", "1", "--out", folder / "kept.star")
    return Chain(truth, folder)


def _bare(names: pd.Series) -> list[str]:
    return [str(name).removesuffix(".tomostar").removesuffix("_15.00Apx") for name in names]


def _which(chain: Chain, tomograms: list[str], places_xyz_angstrom: NDArray[np.float64]) -> NDArray[np.int64]:
    """The particle at each place, which must be there to a hundredth of an Å, in its tomogram; none twice."""
    found = np.zeros(len(tomograms), dtype=np.int64)
    for name in TOMOGRAMS:
        rows = np.flatnonzero(chain.truth["tomogram"] == name)
        tree = cKDTree(chain.truth.loc[rows, ["x", "y", "z"]].to_numpy() * VOXEL)
        mine = np.array([tomogram == name for tomogram in tomograms])
        distances, nearest = tree.query(places_xyz_angstrom[mine])
        assert (distances < 0.01).all()
        found[mine] = rows[nearest]
    assert len(set(found.tolist())) == len(found)
    return found


def _classes(chain: Chain) -> NDArray[np.int64]:
    """The class of each particle of the truth, by the place that clusters.star has it at."""
    table = starfile.read(chain.folder / "run/clusters/clusters.star")["particles"]
    places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * VOXEL
    classes = np.zeros(len(chain.truth), dtype=np.int64)
    classes[_which(chain, _bare(table["rlnTomoName"]), places)] = table["rlnClassNumber"]
    assert set(classes.tolist()) == {1, 2}
    return classes


def test_extracted_particles_are_cut_from_their_tomogram_in_their_place(chain: Chain) -> None:
    table = starfile.read(chain.folder / "sub/particles.star")["particles"]
    places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * VOXEL
    which = _which(chain, _bare(table["rlnTomoName"]), places)
    assert sorted(which) == list(range(2 * PER_TOMOGRAM))
    assert table["rlnRandomSubset"].astype(float).tolist() == chain.truth["half"].iloc[which].tolist()
    # Turned back by its pose, each box is its own kind of body more than it is the other.
    bodies = {kind: phantom(kind).mean_map(BOX, VOXEL).numpy() for kind in ("bilobe", "barrel")}
    inside = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0) < BOX / 2 - 2
    for row, image in zip(which, table["rlnImageName"], strict=True):
        with mrcfile.open(chain.folder / "sub" / image) as mrc:
            voxels = mrc.data.astype(float)
        true = chain.truth.iloc[row]
        matrix = Rotation.from_euler("ZYZ", true[["rot", "tilt", "psi"]].to_numpy(dtype=float), degrees=True).inv()
        turn = matrix.as_matrix()[::-1, ::-1]
        centre = np.full(3, BOX // 2)
        aligned = affine_transform(voxels, turn, centre - turn @ centre, order=3)
        scores = {kind: np.corrcoef(aligned[inside], body[inside])[0, 1] for kind, body in bodies.items()}
        assert max(scores, key=lambda kind: scores[kind]) == true["kind"]
        assert scores[true["kind"]] > 0.5


def _given_relion(chain: Chain) -> pd.DataFrame:
    tables = starfile.read(chain.folder / "exported/particles.star")
    table, optics = tables["particles"], tables["optics"]
    origins = table[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy()
    pixel = float(optics["rlnMicrographPixelSize"].iloc[0])
    places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * pixel - origins
    return _frame(_bare(table["rlnTomoName"]), places, table["rlnClassNumber"], table["rlnRandomSubset"])


def _given_warp(chain: Chain) -> pd.DataFrame:
    table = starfile.read(chain.folder / "exported/warp.star")
    places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * table["rlnPixelSize"].to_numpy()[:, None]
    return _frame(_bare(table["rlnMicrographName"]), places, table["rlnClassNumber"], table["rlnRandomSubset"])


def _given_dynamo(chain: Chain) -> pd.DataFrame:
    table = np.loadtxt(chain.folder / "exported/dynamo.tbl")
    names = pd.read_csv(chain.folder / "exported/dynamo.tomograms.csv").set_index("number")["tomogram"]
    places = (table[:, 23:26] + table[:, 3:6] - 0.5) * VOXEL
    return _frame(_bare(names.loc[table[:, 19].astype(int)]), places, table[:, 21], None)


def _given_points(chain: Chain, folder: str) -> pd.DataFrame:
    parts = []
    for path in sorted((chain.folder / folder).glob("*.csv")):
        name, number = path.stem.rsplit("_class", 1)
        places = pd.read_csv(path)[["axis-2", "axis-1", "axis-0"]].to_numpy() * VOXEL
        parts.append(_frame(_bare(pd.Series([name] * len(places))), places, [int(number)] * len(places), None))
    return pd.concat(parts, ignore_index=True)


def _frame(tomograms: list[str], places: NDArray[np.float64], classes: Any, halves: Any) -> pd.DataFrame:
    table = pd.DataFrame(places, columns=["x", "y", "z"])
    table["tomogram"], table["class"] = tomograms, np.asarray(classes, dtype=int)
    table["half"] = 0 if halves is None else np.asarray(halves, dtype=float)
    return table


@pytest.mark.parametrize("program", ["relion", "warp", "dynamo", "points", "points on tomograms"])
def test_every_export_has_each_particle_in_its_place_class_and_half(chain: Chain, program: str) -> None:
    if program == "points on tomograms":
        parts = [_given_points(chain, f"onto {stem}") for stem in ("Position_1_2", "Position_1_15.00Apx")]
        table = pd.concat(parts, ignore_index=True)
    elif program == "points":
        table = _given_points(chain, "mapped")
    else:
        table = {"relion": _given_relion, "warp": _given_warp, "dynamo": _given_dynamo}[program](chain)
    # Poses in the STAR were kept, so no particle has moved.
    which = _which(chain, table["tomogram"].tolist(), table[["x", "y", "z"]].to_numpy())
    assert sorted(which) == list(range(2 * PER_TOMOGRAM))
    assert table["class"].tolist() == _classes(chain)[which].tolist()
    if program in ("relion", "warp"):
        assert table["half"].tolist() == chain.truth["half"].iloc[which].tolist()


def test_what_is_selected_has_its_places_and_images(chain: Chain) -> None:
    table = starfile.read(chain.folder / "kept.star")["particles"]
    places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * VOXEL
    which = _which(chain, _bare(table["rlnTomoName"]), places)
    assert sorted(which) == np.flatnonzero(_classes(chain) == 1).tolist()
    assert all((chain.folder / image).is_file() for image in table["rlnImageName"])
    assert table["rlnRandomSubset"].astype(float).tolist() == chain.truth["half"].iloc[which].tolist()


def test_maps_are_placed_in_the_tomogram_of_their_particles(chain: Chain) -> None:
    for stem in ("Position_1_2", "Position_1_15.00Apx"):
        with mrcfile.open(chain.folder / f"onto {stem}/{stem}.mrc") as mrc:
            density = mrc.data.astype(float)
        assert density.shape == SHAPE
        mine = chain.truth[chain.truth["tomogram"] == stem.removesuffix("_15.00Apx")]
        other = chain.truth[chain.truth["tomogram"] != stem.removesuffix("_15.00Apx")]
        assert len(mine) == len(other) == PER_TOMOGRAM
        # Density lies within half a box of a particle, and nowhere else.
        tree = cKDTree(mine[["z", "y", "x"]].to_numpy())
        there = np.argwhere(density > 0.2 * density.max())
        assert tree.query(there)[0].max() < BOX / 2
        assert len(set(tree.query(there)[1].tolist())) == PER_TOMOGRAM
