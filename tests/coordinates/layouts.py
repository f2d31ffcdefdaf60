"""Particles at known places in Å, written in every layout, and read back.

Coordinates are written, and results turned back into Å, by plain arithmetic: each layout's definition stands here once
more, by hand.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.runs import RunFolder
from cryodc.star import particle_block, read_star
from tests.made_runs import make_averages, make_clusters
from tests.simulated import blobs

Array = NDArray[np.float64]
# xyz, Å from the centre of the tomogram's first voxel. Two particles 400 Å apart.
PLACES = np.array([[301.5, 405.0, 198.25], [701.5, 405.0, 198.25]])
SIZE = np.array([960.0, 800.0, 400.0])
VOXEL, TILT_PIXEL, IMAGE_PIXEL, BOX = 10.0, 2.5, 20.0, 8
# Origins in Å, and the frame of RELION 5's pseudo-subtomograms.
ORIGIN = np.array([12.0, -8.0, 4.0])
FRAME = (35.0, 60.0, -110.0)
A_FRAME = Rotation.from_euler("ZYZ", FRAME, degrees=True).inv()
NAMES = ("TS_1", "TS_1")


@dataclass
class Layout:
    """What a STAR says beside the names of images: its columns, optics and data_general."""

    columns: dict[str, list[object]]
    optics: dict[str, list[object]] = field(default_factory=dict)
    general: dict[str, object] = field(default_factory=dict)
    image_pixel: float = IMAGE_PIXEL


def _xyz(label: str, values: Array) -> dict[str, list[object]]:
    return {label.format(axis): list(values[:, i]) for i, axis in enumerate("XYZ")}


def _same(value: object) -> list[object]:
    return [value] * len(PLACES)


def _origins(in_angstrom: bool = True) -> dict[str, list[object]]:
    if in_angstrom:
        return _xyz("rlnOrigin{}Angst", np.tile(ORIGIN, (2, 1)))
    return _xyz("rlnOrigin{}", np.tile(ORIGIN / IMAGE_PIXEL, (2, 1)))


def _optics(**columns: object) -> dict[str, list[object]]:
    """One group, or two where a value is a pair."""
    n = max(len(value) if isinstance(value, tuple) else 1 for value in columns.values())
    told = {"OpticsGroup": list(range(1, n + 1)), "ImageDimensionality": [3] * n}
    told |= {name: list(value) if isinstance(value, tuple) else [value] * n for name, value in columns.items()}
    return {f"rln{name}": values for name, values in told.items()}


def _relion_30() -> Layout:
    # 20 Å: 28 µm · 10⁴ / 14,000. Origins in pixels.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / IMAGE_PIXEL) | _origins(in_angstrom=False)
    columns |= {"rlnMicrographName": list(NAMES), "rlnDetectorPixelSize": _same(28.0), "rlnMagnification": _same(14000)}
    return Layout(columns)


def _warp_1() -> Layout:
    columns = _xyz("rlnCoordinate{}", PLACES / IMAGE_PIXEL)
    names = [f"/far/away/{name}_10.00Apx.mrc" for name in NAMES]
    return Layout(columns | {"rlnMicrographName": names, "rlnPixelSize": _same(IMAGE_PIXEL)})


def _relion_31() -> Layout:
    # Voxels of the tomogram, of which nothing is said: the images were cut without binning.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL) | _origins()
    optics = _optics(ImagePixelSize=VOXEL, ImageSize=BOX)
    return Layout(columns | {"rlnMicrographName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics, image_pixel=VOXEL)


def _relion_31_rows() -> Layout:
    # Warp's coordinates at 5 Å, carried through RELION 3.1; the images are coarser.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / 5.0) | _origins()
    columns |= {"rlnMicrographName": [f"{n}_10.00Apx.mrc" for n in NAMES], "rlnPixelSize": _same(5.0)}
    return Layout(columns | {"rlnOpticsGroup": _same(1)}, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_rows_differ() -> Layout:
    pixels = np.array([[5.0], [8.0]])
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / pixels) | _origins()
    columns |= {"rlnMicrographName": list(NAMES), "rlnPixelSize": [5.0, 8.0], "rlnOpticsGroup": _same(1)}
    return Layout(columns, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_warp(stated_in_rows: bool) -> Layout:
    # WarpTools --3d in RELION 3.1's layout, as the authors of the ribosomes published theirs.
    pixel = 5.0 if stated_in_rows else IMAGE_PIXEL
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / pixel) | _origins()
    columns |= {"rlnMicrographName": [f"{name}.tomostar" for name in NAMES], "rlnOpticsGroup": _same(1)}
    if stated_in_rows:
        columns["rlnPixelSize"] = _same(pixel)
    return Layout(columns, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_micrograph() -> Layout:
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL) | _origins()
    optics = _optics(MicrographPixelSize=VOXEL, ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX)
    return Layout(columns | {"rlnMicrographName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics)


def _relion_4() -> Layout:
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / TILT_PIXEL) | _origins()
    optics = _optics(TomoTiltSeriesPixelSize=TILT_PIXEL, TomoSubtomogramBinning=8, ImagePixelSize=IMAGE_PIXEL)
    return Layout(columns | {"rlnTomoName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics)


def _relion_4_groups() -> Layout:
    # A particle of each optics group; the groups come in another order than their numbers.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / np.array([[1.25], [2.5]])) | _origins()
    optics = _optics(
        OpticsGroup=(2, 1),
        TomoTiltSeriesPixelSize=(2.5, 1.25),
        TomoSubtomogramBinning=(8, 16),
        ImagePixelSize=IMAGE_PIXEL,
        ImageSize=BOX,
    )
    return Layout(columns | {"rlnTomoName": list(NAMES), "rlnOpticsGroup": [1, 2]}, optics)


def _relion_5() -> Layout:
    columns = _xyz("rlnCenteredCoordinate{}Angst", PLACES - SIZE / 2 + A_FRAME.apply(ORIGIN)) | _origins()
    columns |= {f"rlnTomoSubtomogram{name}": _same(FRAME[i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    optics = _optics(TomoTiltSeriesPixelSize=TILT_PIXEL, TomoSubtomogramBinning=8, ImagePixelSize=IMAGE_PIXEL)
    columns |= {"rlnTomoName": list(NAMES), "rlnOpticsGroup": _same(1)}
    return Layout(columns, optics, {"rlnTomoSubTomosAre2DStacks": 0})


def _warptools_2d(tilt_pixel: float, binning: float) -> Layout:
    # Pixels of the images, whatever the tilt series' pixel is said to be.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / IMAGE_PIXEL) | _origins()
    columns |= {"rlnTomoName": [f"{name}.tomostar" for name in NAMES], "rlnOpticsGroup": _same(1)}
    optics = _optics(
        TomoTiltSeriesPixelSize=tilt_pixel, TomoSubtomogramBinning=binning, ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX
    )
    return Layout(columns, optics, {"rlnTomoSubTomosAre2DStacks": 0})


def _imported() -> Layout:
    # What `cryodc import --bin 2` makes of WarpTools --2d at 10 Å: coordinates as they were.
    layout = _warptools_2d(TILT_PIXEL, 8)
    layout.columns |= _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL)
    layout.optics["rlnMicrographPixelSize"] = [VOXEL]
    return layout


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "RELION 3.0": _relion_30,
    "Warp 1, WarpTools --3d": _warp_1,
    "RELION 3.1": _relion_31,
    "RELION 3.1 with rlnPixelSize in the rows": _relion_31_rows,
    "RELION 3.1, rows differ in rlnPixelSize": _relion_31_rows_differ,
    "RELION 3.1 with rlnMicrographPixelSize": _relion_31_micrograph,
    "WarpTools --3d in RELION 3.1": lambda: _relion_31_warp(stated_in_rows=False),
    "WarpTools --3d in RELION 3.1, rlnPixelSize in the rows": lambda: _relion_31_warp(stated_in_rows=True),
    "RELION 4": _relion_4,
    "RELION 4, two tilt-series pixels": _relion_4_groups,
    "RELION 5": _relion_5,
    "WarpTools --2d before 2.0.0dev40": lambda: _warptools_2d(TILT_PIXEL, 8),
    "WarpTools --2d from 2.0.0dev40": lambda: _warptools_2d(IMAGE_PIXEL, 1),
    "cryodc import --bin 2": _imported,
}


def _write_star(layout: Layout, path: Path, extra: dict[str, list[object]] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)

    def loop(name: str, columns: dict[str, list[object]]) -> str:
        rows = zip(*columns.values(), strict=True)
        lines = [f"data_{name}", "", "loop_", *(f"_{label}" for label in columns)]
        return "\n".join([*lines, *(" ".join(map(str, row)) for row in rows)]) + "\n\n"

    text = ""
    if layout.general:
        text += "data_general\n\n" + "".join(f"_{key} {value}\n" for key, value in layout.general.items()) + "\n"
    if layout.optics:
        text += loop("optics", layout.optics)
    path.write_text(text + loop("particles" if layout.optics else "", layout.columns | (extra or {})))
    return path


def _particles(name: str, folder: Path) -> tuple[Path, Layout]:
    """Particles of 3D images with poses, as train, check and average read them."""
    layout = LAYOUTS[name]()
    rng = np.random.default_rng(0)
    images = []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(PLACES)):
        with mrcfile.new(folder / f"{i}.mrc", rng.standard_normal((BOX,) * 3).astype(np.float32)) as mrc:
            mrc.voxel_size = layout.image_pixel
        images.append(f"{i}.mrc")
    angles = {f"rlnAngle{axis}": _same(0.0) for axis in ("Rot", "Tilt", "Psi")}
    extra = {"rlnImageName": images, **angles, "rlnClassNumber": _same(1)}
    return _write_star(layout, folder / "particles.star", extra), layout


def _averaged(name: str, folder: Path) -> tuple[RunFolder, Layout]:
    """The files of an averaged run that export and map-back read: the average is a blob in the middle of its box."""
    star, layout = _particles(name, folder / "run/averages")
    for file in ("class001.mrc", "class001_mask.mrc"):
        voxels = blobs((BOX,) * 3, np.full((1, 3), BOX // 2), 1.0).astype(np.float32)
        voxels = (voxels > 0.02).astype(np.float32) if "mask" in file else voxels
        with mrcfile.new(star.parent / file, voxels) as mrc:
            mrc.voxel_size = layout.image_pixel
    (folder / "run/config.yaml").write_text("{}")
    run = RunFolder(folder / "run")
    names = particle_block(read_star(star)).column("rlnImageName")
    make_clusters(run, names, [0] * len(names))
    make_averages(run, {1: 2 * layout.image_pixel})
    return run, layout


def _assert_at_places(found_xyz_angstrom: Array, tolerance: float = 0.01) -> None:
    np.testing.assert_allclose(found_xyz_angstrom, PLACES, atol=tolerance)


def _converted(kind: str, path: Path) -> Array:
    """Places in Å, xyz, by what each program means."""
    if kind == "csv":
        return pd.read_csv(path)[["x", "y", "z"]].to_numpy() * VOXEL
    if kind == "dynamo":
        table = np.loadtxt(path, ndmin=2)
        return (table[:, 23:26] + table[:, 3:6] - 0.5) * VOXEL
    table = starfile.read(path)
    if kind == "stopgap":
        whole = table[["orig_x", "orig_y", "orig_z"]].to_numpy(dtype=float)
        return (whole + table[["x_shift", "y_shift", "z_shift"]].to_numpy(dtype=float) - 1) * VOXEL
    pixels = table["rlnPixelSize"].to_numpy(dtype=float)[:, None]
    return table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy(dtype=float) * pixels


def _warnings(star: Path) -> list[dict[str, str]]:
    said = CliRunner().invoke(load_verb("check"), [str(star), "--tilt-range", "-60", "60", "--json"])
    return [warning for warning in json.loads(said.output)["warnings"] if "pixel" in warning["problem"]]
