"""The whole chain on RELION 4 subtomograms of two optics groups that differ in tilt-series pixel, image pixel and box.

Names begin alike, half sets are written as floats, and one group's volumes are unsigned bytes. What every program is
given is judged against the truth with scipy, pandas and NumPy alone; see :mod:`tests.export.test_chain`.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryodc.averaging import average_run
from cryodc.clustering import cluster_run
from cryodc.simulation import phantom
from cryodc.training import TrainRequest, train_run
from tests.export.test_chain import (
    SHAPE,
    VOXEL,
    Chain,
    _bare,
    _do,
    _frame,
    _given_dynamo,
    _given_points,
    _given_warp,
    _truth,
    _which,
    _write_tomogram,
)


@dataclass(frozen=True)
class Group:
    """An optics group: number, pixel of the tilt series (Å), binning, and box of the subtomograms."""

    number: int
    tilt_pixel: float
    binning: int
    box: int
    unsigned_bytes: bool

    @property
    def pixel(self) -> float:
        return self.tilt_pixel * self.binning


GROUPS = {"Position_1": Group(1, 3.75, 4, 24, False), "Position_1_2": Group(2, 3.0, 4, 32, True)}
COMMON = (24, 15.0)


def _wedge(group: Group) -> NDArray[np.float32]:
    """What tilts about y from -60 to 60 degrees measure, half-Fourier in FFT order."""
    z, _, x = np.meshgrid(*[np.fft.fftfreq(group.box)] * 2, np.fft.rfftfreq(group.box), indexing="ij")
    return (np.abs(z) <= np.tan(np.radians(60)) * np.abs(x) + 1e-6).astype(np.float32)


def _write_volume(path: Path, row: pd.Series, group: Group, rng: np.random.Generator) -> None:
    """The body in its pose, its missing wedge taken out, with noise."""
    body = phantom(row["kind"]).mean_map(group.box, group.pixel).numpy().astype(float)
    matrix = Rotation.from_euler("ZYZ", [row["rot"], row["tilt"], row["psi"]], degrees=True).inv().as_matrix()
    turn, centre = matrix[::-1, ::-1], np.full(3, group.box // 2)
    posed = affine_transform(6 * body / body.max(), turn.T, centre - turn.T @ centre, order=3)
    noisy = posed + rng.standard_normal(posed.shape)
    seen = np.fft.irfftn(np.fft.rfftn(np.fft.ifftshift(noisy)) * _wedge(group), s=noisy.shape, axes=(0, 1, 2))
    voxels = np.fft.fftshift(seen).astype(np.float32)
    if group.unsigned_bytes:
        grey = np.clip(np.round(128 + 12 * voxels), 0, 255).astype(np.uint8)
        with mrcfile.new(path, grey.view(np.int8)) as mrc:
            mrc.voxel_size = group.pixel
        # Mode 0 as IMOD wrote it before it knew signed bytes: extremes above 127 and its stamp, flags 0.
        content = bytearray(path.read_bytes())
        content[76:88] = struct.pack("<3f", grey.min(), grey.max(), grey.mean())
        content[152:160] = struct.pack("<2i", 1146047817, 0)
        path.write_bytes(content)
        return
    with mrcfile.new(path, voxels) as mrc:
        mrc.voxel_size = group.pixel


def _write_particles(folder: Path, truth: pd.DataFrame) -> Path:
    rng = np.random.default_rng(2)
    lines = ["# version 30001", "", "data_optics", "", "loop_"]
    labels = ["OpticsGroup", "OpticsGroupName", "TomoTiltSeriesPixelSize", "TomoSubtomogramBinning", "ImagePixelSize"]
    lines += [f"_rln{label}" for label in [*labels, "ImageSize", "ImageDimensionality", "Voltage"]]
    for group in GROUPS.values():
        with mrcfile.new(folder / f"wedge{group.number}.mrc", _wedge(group)) as mrc:
            mrc.voxel_size = group.pixel
        sizes = f"{group.tilt_pixel} {group.binning} {group.pixel} {group.box}"
        lines.append(f"{group.number} group{group.number} {sizes} 3 300.0")
    lines += ["", "data_particles", "", "loop_"]
    columns = ["TomoName", "TomoParticleName", "CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt"]
    columns += ["AnglePsi", "OriginXAngst", "OriginYAngst", "OriginZAngst", "OpticsGroup", "ImageName", "CtfImage"]
    lines += [f"_rln{label}" for label in [*columns, "RandomSubset"]]
    for i, row in truth.iterrows():
        group = GROUPS[row["tomogram"]]
        _write_volume(folder / f"{i}_data.mrc", row, group, rng)
        place = [f"{at * VOXEL / group.tilt_pixel:.5f}" for at in (row["x"], row["y"], row["z"])]
        pose = [row["rot"], row["tilt"], row["psi"], 0, 0, 0]
        files = [group.number, f"{i}_data.mrc", f"wedge{group.number}.mrc", f"{row['half']:.1f}"]
        lines.append(" ".join(map(str, [row["tomogram"], f"{row['tomogram']}/{i}", *place, *pose, *files])))
    (folder / "particles.star").write_text("\n".join(lines) + "\n")
    return folder / "particles.star"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Everything from two groups of subtomograms to what other programs are given."""
    folder, truth = tmp_path_factory.mktemp("grids"), _truth()
    star = _write_particles(folder, truth)
    for name, group in GROUPS.items():
        kind = np.uint8 if group.unsigned_bytes else np.float32
        _write_tomogram(folder / f"{name}.mrc", truth[truth["tomogram"] == name], kind)
    said = _do("check", star)
    assert "all are read at box 24, 15 Å" in " ".join(said.split())
    overrides = {"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 2, "batch_size": 8}}
    run, _ = train_run(TrainRequest(star, folder / "run", overrides=overrides))
    cluster_run(run, 2)
    average_run(run)
    _do("export", run.path, "--relion", "--warp", "--dynamo", "--out", folder / "exported")
    for name in GROUPS:
        _do("map-back", run.path, "--tomogram-file", folder / f"{name}.mrc", "--out", folder / f"onto {name}")
    _do("select", run.path, "--keep", "1", "--out", folder / "kept.star")
    _do("report", run.path)
    assert "particles are not shown" not in (run.path / "report.html").read_text()
    return Chain(truth, folder)


def _places(table: pd.DataFrame, groups: pd.DataFrame) -> NDArray[np.float64]:
    """In Å: coordinates count pixels of the tilt series of each group."""
    pixels = groups.set_index("rlnOpticsGroup")["rlnTomoTiltSeriesPixelSize"].loc[table["rlnOpticsGroup"]].to_numpy()
    origins = table[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy()
    return table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * pixels[:, None] - origins


def _given_relion(folder: Path) -> pd.DataFrame:
    tables = starfile.read(folder)
    table = tables["particles"]
    places = _places(table, tables["optics"])
    return _frame(_bare(table["rlnTomoName"]), places, table["rlnClassNumber"], table["rlnRandomSubset"])


def _class_of(chain: Chain) -> NDArray[np.int64]:
    """The class of each particle of the truth, by its name in clusters.star."""
    table = starfile.read(chain.folder / "run/clusters/clusters.star")["particles"]
    classes = np.zeros(len(chain.truth), dtype=np.int64)
    classes[[int(name.rsplit("/")[-1]) for name in table["rlnTomoParticleName"]]] = table["rlnClassNumber"]
    assert set(classes.tolist()) == {1, 2}
    return classes


def test_averages_are_the_bodies_at_the_common_grid(chain: Chain) -> None:
    classes = _class_of(chain)
    for number in (1, 2):
        with mrcfile.open(chain.folder / f"run/averages/class{number:03d}.mrc") as mrc:
            assert (mrc.data.shape, float(mrc.voxel_size.x)) == ((COMMON[0],) * 3, COMMON[1])
            average = mrc.data.astype(float)
        # A class may mix both bodies: it is the mean of what is in it, of both groups.
        bodies = [phantom(kind).mean_map(*COMMON).numpy() for kind in chain.truth["kind"][classes == number]]
        expected = np.sum([body / body.max() for body in bodies], axis=0)
        inside = np.linalg.norm(np.indices((COMMON[0],) * 3) - COMMON[0] // 2, axis=0) < COMMON[0] / 2 - 3
        assert np.corrcoef(average[inside], expected[inside])[0, 1] > 0.9


@pytest.mark.parametrize("program", ["relion", "warp", "dynamo", "points on tomograms"])
def test_every_export_has_each_particle_in_its_place_class_and_half(chain: Chain, program: str) -> None:
    if program == "points on tomograms":
        parts = [_given_points(chain, f"onto {name}") for name in GROUPS]
        table = pd.concat(parts, ignore_index=True)
    elif program == "relion":
        table = _given_relion(chain.folder / "exported/particles.star")
    else:
        table = {"warp": _given_warp, "dynamo": _given_dynamo}[program](chain)
    # Poses in the STAR were kept, so no particle has moved.
    which = _which(chain, table["tomogram"].tolist(), table[["x", "y", "z"]].to_numpy())
    assert sorted(which) == list(range(len(chain.truth)))
    assert table["class"].tolist() == _class_of(chain)[which].tolist()
    if program in ("relion", "warp"):
        assert table["half"].tolist() == chain.truth["half"].iloc[which].tolist()


def test_the_star_for_relion_has_the_optics_groups_as_they_were(chain: Chain) -> None:
    """RELION goes on with the images of each group, at their own pixel and box."""
    optics = starfile.read(chain.folder / "exported/particles.star")["optics"].set_index("rlnOpticsGroup")
    for group in GROUPS.values():
        row = optics.loc[group.number]
        assert (row["rlnImageSize"], row["rlnImagePixelSize"]) == (group.box, group.pixel)
        assert row["rlnTomoTiltSeriesPixelSize"] == group.tilt_pixel


def test_what_is_selected_has_its_places_and_images(chain: Chain) -> None:
    table = _given_relion(chain.folder / "kept.star")
    which = _which(chain, table["tomogram"].tolist(), table[["x", "y", "z"]].to_numpy())
    assert sorted(which) == np.flatnonzero(_class_of(chain) == 1).tolist()
    images = starfile.read(chain.folder / "kept.star")["particles"]["rlnImageName"]
    assert all((chain.folder / image).is_file() for image in images)


def test_maps_are_placed_in_the_tomogram_of_their_particles(chain: Chain) -> None:
    for name in GROUPS:
        with mrcfile.open(chain.folder / f"onto {name}/{name}.mrc") as mrc:
            density = mrc.data.astype(float)
        assert density.shape == SHAPE
        tree = cKDTree(chain.truth[chain.truth["tomogram"] == name][["z", "y", "x"]].to_numpy())
        there = np.argwhere(density > 0.2 * density.max())
        assert tree.query(there)[0].max() < COMMON[0] / 2
        assert len(set(tree.query(there)[1].tolist())) == len(tree.data)
