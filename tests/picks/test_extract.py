"""``cryodc extract``: a pick is in the middle of its box, in its pose, whatever program wrote it."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.extract import extract
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.check import check_particles
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import fourier_shift, low_pass
from cryodc.geometry import resample
from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.picks import ExtractRequest, extract_subtomograms, read_picks
from cryodc.star import read_star
from tests.simulated import blobs

SPACING = 8.0
SHAPE = (40, 72, 88)
# xyz, 0-based voxels; far enough apart that each box of 16 holds one.
POSITIONS = np.array([[20.25, 18.5, 16.0], [60.0, 20.75, 20.3], [30.1, 50.4, 22.7], [68.9, 52.0, 18.45]])
ANGLES = np.array([[10.0, 20.0, 30.0], [-75.5, 140.0, 3867.465], [170.0, 5.0, -12.0], [33.0, 91.0, 200.0]])
# Three blobs, no symmetry: xyz from the centre in voxels, of the reference.
BLOBS = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.5, 1.0]])
SIGMA = 1.3


def _matrices() -> NDArray[np.float64]:
    """RELION's A, xyz: reference → tomogram."""
    return Rotation.from_euler("ZYZ", ANGLES, degrees=True).inv().as_matrix()


def _blobs(shape: tuple[int, ...], centres_xyz: NDArray[np.float64], sigma: float = SIGMA) -> NDArray[np.float32]:
    return blobs(shape, centres_xyz[:, ::-1], sigma).astype(np.float32)


def _particle(pose: int, box: int, scale: float = 1.0) -> NDArray[np.float32]:
    """What the box of a particle must hold: its blobs around index N // 2, turned by its pose."""
    return _blobs((box,) * 3, BLOBS @ _matrices()[pose].T * scale + box // 2, SIGMA * scale)


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four particles at positions between voxels."""
    path = tmp_path_factory.mktemp("tomogram") / "TS_07.mrc"
    centres = np.concatenate([BLOBS @ a.T + p for a, p in zip(_matrices(), POSITIONS, strict=True)])
    with mrcfile.new(path, _blobs(SHAPE, centres)) as mrc:
        mrc.voxel_size = SPACING
    return path


def _star(labels: list[str], rows: list[list[object]], optics: str = "", general: str = "") -> str:
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, start=1))
    return (
        f"{general}{optics}data_particles\n\nloop_\n{header}\n"
        + "\n".join(" ".join(map(str, row)) for row in rows)
        + "\n"
    )


def _angles(label: str = "rlnAngle") -> list[str]:
    return [f"{label}{name}" for name in ("Rot", "Tilt", "Psi")]


def _xyz(label: str, ending: str = "") -> list[str]:
    return [f"{label}{axis}{ending}" for axis in "XYZ"]


def _write_picks(kind: str, folder: Path) -> Path:
    """The same four picks as each program writes them, by formulas that are not the package's."""
    inverse = Rotation.from_matrix(np.swapaxes(_matrices(), 1, 2))
    if kind == "relion 3.0":
        origins = np.array([1.5, -2.0, 0.25])
        rows = [["TS_07.mrc", *(p + origins), *a, *origins] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        text = _star(["rlnMicrographName", *_xyz("rlnCoordinate"), *_angles(), *_xyz("rlnOrigin")], rows)
    elif kind == "relion 3.1":
        origins = np.array([12.0, -16.0, 2.0])
        rows = [["TS_07", *(p + origins / SPACING), *a, *origins] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        labels = ["rlnTomoName", *_xyz("rlnCoordinate"), *_angles(), *_xyz("rlnOrigin", "Angst")]
        text = _star(labels, rows, "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n1 4.0\n\n")
    elif kind == "relion 4":
        # Pixels of the tilt series, four to a voxel.
        rows = [["TS_07", *(4 * p), *a, 1] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 2.0\n\n"
        text = _star(["rlnTomoName", *_xyz("rlnCoordinate"), *_angles(), "rlnOpticsGroup"], rows, optics)
    elif kind == "relion 5":
        # Å from the centre, pose split into frame and rest, origin in the frame.
        frames = Rotation.from_euler("ZYZ", [[40, 60, -20]] * 4, degrees=True)
        rest = frames * Rotation.from_matrix(_matrices())
        eulers = rest.inv().as_euler("ZYZ", degrees=True)
        origins = np.array([10.0, -6.0, 4.0])
        centred = (POSITIONS - np.array(SHAPE[::-1]) / 2) * SPACING + frames.inv().apply(origins)
        rows = [["TS_07", *c, 40, 60, -20, *e, *origins] for c, e in zip(centred, eulers, strict=True)]
        labels = ["rlnTomoName", *_xyz("rlnCenteredCoordinate", "Angst"), *_angles("rlnTomoSubtomogram"), *_angles()]
        text = _star(
            [*labels, *_xyz("rlnOrigin", "Angst")], rows, general="data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n"
        )
    elif kind == "dynamo":
        # tdrot, tilt, narot bring the particle onto the reference; the first voxel's centre is 0.5.
        eulers = inverse.as_euler("zxz", degrees=True)
        shift = np.array([0.5, -1.25, 2.0])
        rows = []
        for i, (p, e) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            row = [i, 1, 1, *shift, *e, *[0] * 10, 7, 0, 3, 0, *(p + 0.5 - shift), *[0] * 9]
            rows.append(" ".join(str(value) for value in row))
        text = "\n".join(rows) + "\n"
    elif kind == "stopgap":
        # phi, the, psi bring the reference onto the particle; the first voxel is 1.
        eulers = inverse.inv().as_euler("zxz", degrees=True)
        labels = "motl_idx tomo_num object subtomo_num halfset orig_x orig_y orig_z score x_shift y_shift z_shift "
        labels += "phi psi the class"
        rows = []
        for i, (p, (phi, the, psi)) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            rows.append([i, 7, 1, i, "AB"[i % 2], *np.round(p + 1), 0.5, *(p + 1 - np.round(p + 1)), phi, psi, the, 3])
        text = _star(labels.split(), rows).replace("data_particles", "data_stopgap_motivelist")
    elif kind == "copick":
        points = []
        for p, a in zip(POSITIONS * SPACING, _matrices(), strict=True):
            affine = np.eye(4)
            affine[:3, :3] = a
            points.append(
                {"location": dict(zip("xyz", p, strict=True)), "transformation_": affine.tolist(), "instance_id": 0}
            )
        text = json.dumps({"run_name": "TS_07", "voxel_spacing": 10.0, "unit": "angstrom", "points": points})
    elif kind == "portal":
        lines = [
            {"type": "orientedPoint", "location": dict(zip("xyz", p, strict=True)), "xyz_rotation_matrix": a.tolist()}
            for p, a in zip(POSITIONS, _matrices(), strict=True)
        ]
        # As in the portal: no line end behind the last.
        text = "\n".join(json.dumps(line) for line in lines)
        path = folder / "TS_07/Reconstructions/VoxelSpacing8.000/Annotations/101/ribosome-1.0_orientedpoint.ndjson"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path
    elif kind == "em":
        # The same angles and first voxel as STOPGAP's, packed by hand: 512 bytes, then 20 floats a particle.
        eulers = inverse.inv().as_euler("zxz", degrees=True)
        body = b""
        for i, (p, (phi, the, psi)) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            row = [0.5, 0, 0, i, 7, 1, 0, *np.round(p + 1), *(p + 1 - np.round(p + 1)), 0, 0, 0, phi, psi, the, 3]
            body += struct.pack("<20f", *row)
        header = bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, len(POSITIONS), 1)
        path = folder / "picks.em"
        path.write_bytes(header.ljust(512, b"\0") + body)
        return path
    else:
        rows = [[*p, "TS_07", *a] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        text = "X,Y,Z,tomogram,rot,tilt,psi\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    ending = {"dynamo": "tbl", "copick": "json", "csv": "csv"}.get(kind, "star")
    path = folder / f"picks.{ending}"
    path.write_text(text)
    return path


def test_the_shift_in_a_copick_transformation_moves_the_pick(tmp_path: Path) -> None:
    """copick: the particle is at location + transformation[:3, 3], in Å."""
    matrix = np.eye(4)
    matrix[:3, 3] = [5, -10, 20]
    point = {"location": {"x": 100, "y": 200, "z": 300}, "transformation_": matrix.tolist()}
    (tmp_path / "a.json").write_text(json.dumps({"run_name": "TS_07", "points": [point]}))
    np.testing.assert_allclose(read_picks(tmp_path / "a.json").in_voxels(SPACING, None) * SPACING, [[320, 190, 105]])


KINDS = ["relion 3.0", "relion 3.1", "relion 4", "relion 5", "dynamo", "stopgap", "em", "copick", "portal", "csv"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b + b"\0", lambda b: b[:200], lambda b: b"\0" * 4 + b[4:]]
)
def test_a_damaged_em_motivelist_is_one_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _write_picks("em", tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        read_picks(path)
    assert caught.value.file == path


@pytest.mark.parametrize("kind", KINDS)
def test_a_pick_of_any_program_is_in_the_middle_of_its_box_and_in_its_pose(
    tomogram: Path, tmp_path: Path, kind: str
) -> None:
    picks = _write_picks(kind, tmp_path)
    before = picks.read_bytes()
    request = ExtractRequest([tomogram], picks, tmp_path / "out", 16, tilt_range=(-60, 50), normalise=False)
    result = extract_subtomograms(request)
    assert result.n_extracted == {"TS_07": 4}
    assert picks.read_bytes() == before
    particles = read_particles(result.star)
    assert (particles.box_size, particles.spacing_angstrom, set(particles.tomograms)) == (16, SPACING, {"TS_07"})
    for i, image in enumerate(particles.images):
        volume = read_volume(image)
        np.testing.assert_allclose(volume.voxels, _particle(i, 16), atol=0.01)
    assert particles.poses is not None
    np.testing.assert_allclose(particles.poses.rotations, _matrices()[:, ::-1, ::-1], atol=1e-6)
    # Aligned by those poses, all four are the reference.
    volumes = torch.stack([torch.from_numpy(read_volume(image).voxels) for image in particles.images])
    aligned = resample(volumes, torch.from_numpy(particles.poses.rotations).float()).numpy()
    reference = _blobs((16,) * 3, BLOBS + 8)
    for volume in aligned:
        assert np.corrcoef(volume.ravel(), reference.ravel())[0, 1] > 0.98


def test_binning_keeps_the_middle_and_the_object(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("csv", tmp_path), tmp_path / "out", 8, binning=2, normalise=False)
    result = extract_subtomograms(request)
    particles = read_particles(result.star)
    assert particles.spacing_angstrom == 2 * SPACING
    for i, image in enumerate(particles.images):
        found, expected = read_volume(image).voxels, _particle(i, 8, 0.5)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
        # The middle is where the object says: the centroids agree to a tenth of a voxel.
        grid = np.indices(found.shape).reshape(3, -1)
        centroids = [(grid * v.ravel()).sum(axis=1) / v.sum() for v in (found, expected)]
        assert np.abs(centroids[0] - centroids[1]).max() < 0.1


def test_training_reads_what_was_written_at_once(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("stopgap", tmp_path), tmp_path / "out", 16, tilt_range=(-60, 50))
    result = extract_subtomograms(request)
    assert check_particles(result.star).problems == ()
    particles = read_particles(result.star)
    dataset = load_dataset(particles)
    assert dataset.weights.shape == (1, 16, 16, 9)
    # Normalised as asked, white as the tomogram is.
    voxels = read_volume(particles.images[0]).voxels
    assert abs(voxels.mean()) < 1e-4
    assert voxels.std() == pytest.approx(1, abs=1e-3)
    block = read_star(result.star).block("particles")
    assert block.column("rlnClassNumber") == ["3"] * 4
    assert block.column("rlnRandomSubset") == ["2", "1", "2", "1"]
    inverted = extract_subtomograms(
        ExtractRequest([tomogram], request.picks, tmp_path / "black", 16, tilt_range=(-60, 50), invert=True)
    )
    black = read_volume(read_particles(inverted.star).images[0]).voxels
    np.testing.assert_allclose(black, -voxels, atol=1e-6)


def test_every_tomogram_has_its_own_wedge(tomogram: Path, tmp_path: Path) -> None:
    other = tmp_path / "TS_08_8.00Apx.mrc"
    other.write_bytes(tomogram.read_bytes())
    rows = [f"{x},{y},{z},{name}" for name in ("TS_07", "TS_08") for x, y, z in POSITIONS]
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z,tomogram\n" + "\n".join(rows) + "\n")
    ranges = {"TS_07": (-60.0, 60.0), "TS_08_8.00Apx": (-40.0, 50.0)}
    result = extract_subtomograms(
        ExtractRequest([tomogram, other], picks, tmp_path / "out", 16, tilt_ranges=ranges, tilt_axis="x")
    )
    dataset = load_dataset(read_particles(result.star))
    assert result.n_extracted == {"TS_07": 4, "TS_08_8.00Apx": 4}
    measured = dataset.weights.mean(dim=(1, 2, 3))
    assert measured[dataset.weight_index[0]] > measured[dataset.weight_index[4]]
    with pytest.raises(InputError, match="no tilt range"):
        extract_subtomograms(
            ExtractRequest([tomogram, other], picks, tmp_path / "b", 16, tilt_ranges={"TS_07": (-60, 60)})
        )
    assert not (tmp_path / "b").exists()


def test_picks_of_other_tomograms_are_left_out_only_if_asked(tomogram: Path, tmp_path: Path) -> None:
    picks = tmp_path / "picks.csv"
    rows = "".join(f"{x},{y},{z},TS_07\n{x},{y},{z},TS_70\n" for x, y, z in POSITIONS)
    picks.write_text("x,y,z,tomogram\n" + rows)
    with pytest.raises(InputError, match="no tomogram has this pick's name") as caught:
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out"))
    assert caught.value.row == 3
    result = extract_subtomograms(_request([tomogram], picks, tmp_path / "out", skip_others=True))
    assert (dict(result.n_extracted), result.n_skipped) == ({"TS_07": 4}, 4)
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_70\n")
    with pytest.raises(InputError, match="no pick is from these tomograms"):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "b", skip_others=True))


def test_boxes_beyond_the_edge_are_dropped_and_listed_or_padded_with_their_mean(tomogram: Path, tmp_path: Path) -> None:
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n20.25,18.5,16\n8,8,8\n7.9,18.5,16\n2,18.5,16\n-9,18.5,16\n80,18.5,16\n80.6,18.5,16\n")
    said = CliRunner().invoke(
        extract,
        [str(tomogram), "--picks", str(picks), "--box", "16", "--out", str(tmp_path / "out")],
        env={"COLUMNS": "200"},
    )
    assert said.exit_code == 0, said.output
    # A box of 16 around voxel c spans c − 8 … c + 7: 8 and 80 are the last that fit.
    dropped = (tmp_path / "out" / "dropped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in dropped] == ["line", "5", "6", "8"]
    assert "Dropped 3 of 7" in said.output
    assert "line 6" in said.output
    padded = extract_subtomograms(
        ExtractRequest([tomogram], picks, tmp_path / "padded", 16, edge="pad", normalise=False)
    )
    assert [pick.row for pick in padded.dropped] == [6]
    volume = read_volume(read_particles(padded.star).images[3]).voxels
    with mrcfile.open(tomogram) as mrc:
        part = mrc.data[4:28, 6:30, 0:14]
    # Six columns lie outside; what was moved by half a voxel may ring beside the border.
    np.testing.assert_allclose(volume[:, :, :5], part.mean(), atol=0.02)


def test_a_pick_that_holds_no_image_is_dropped_with_the_reason(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).standard_normal((24, 24, 64)).astype(np.float32)
    voxels[:, :, 32:] = 0
    with mrcfile.new(tmp_path / "t.mrc", voxels) as mrc:
        mrc.voxel_size = SPACING
    with mrcfile.mmap(tmp_path / "t.mrc", "r+") as mrc:
        mrc.data[12, 12, 4] = np.nan
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n22,12,12\n8,12,12\n52,12,12\n")
    result = extract_subtomograms(ExtractRequest([tmp_path / "t.mrc"], picks, tmp_path / "out", 8))
    assert [(pick.row, pick.why) for pick in result.dropped] == [
        (3, "the box holds voxels that are NaN or infinite"),
        (4, "the box is constant: it holds no image"),
    ]


def test_where_every_box_is_dropped_no_folder_is_left_and_reasons_are_counted(tmp_path: Path) -> None:
    """The next try, in another unit or at other picks, is not refused because of the first."""
    voxels = np.random.default_rng(0).standard_normal((24, 24, 60)).astype(np.float32)
    voxels[:, :, :16] = 5.0
    with mrcfile.new(tmp_path / "t.mrc", voxels) as mrc:
        mrc.voxel_size = 10.0
        mrc.data[12, 12, 50] = np.nan
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n8,12,12\n7,12,12\n52,12,12\n")
    with pytest.raises(InputError, match="no particle is left") as caught:
        extract_subtomograms(ExtractRequest([tmp_path / "t.mrc"], picks, tmp_path / "out", 8))
    assert "the box is constant: it holds no image (2 of 3)" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def _request(tomograms: list[Path], picks: Path, out: Path, **options: object) -> ExtractRequest:
    return ExtractRequest(tomograms, picks, out, **{"box_size": 16, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("x,y,z,tomogram\n20,18,16,TS_09\n", {}, "no tomogram has this pick's name"),
        ("x,y,z,tomogram\n20,18,16,../../TS_99\n", {}, "no tomogram has this pick's name"),
        ("x,y\n20,18\n", {}, "lack columns"),
        ("x,y,z\n20,18,many\n", {}, "expected numbers"),
        ("x,y,z\n20,18,nan\n", {}, "expected numbers"),
        ("x,y,z\n", {}, "no picks"),
        ("x,y,z\n2000,18,16\n", {}, "no particle is left"),
        ("x,y,z\n1e300,-1e300,16\n", {"edge": "pad"}, "no particle is left"),
        ("x,y,z\n20,18,16\n", {"box_size": 15}, "box size cannot be used"),
        ("x,y,z\n20,18,16\n", {"tilt_range": (60, -60)}, "tilt range cannot be used"),
    ],
)
def test_a_mistake_is_one_error_before_any_box_is_written(
    tomogram: Path, tmp_path: Path, text: str, options: dict[str, object], problem: str
) -> None:
    picks = tmp_path / "picks.csv"
    picks.write_text(text)
    with pytest.raises(InputError, match=problem):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tbl", "1 2 3\n"),
        ("a.tbl", "x " * 35 + "\n"),
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2}}]}'),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": [[1]]}]}'),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2, "z": NaN}}]}'),
        ("a.star", "data_particles\nloop_\n_rlnImageName\na.mrc\n"),
        ("a.star", "data_m\nloop_\n_orig_x\n_orig_y\n1 2\n"),
        ("a.em", "x"),
        ("a.csv", "\0"),
        ("a.tbl.gz", "not gzip"),
    ],
)
def test_picks_that_cannot_be_read_are_one_error_that_names_them(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_picks(path)
    assert caught.value.file == path


def test_nothing_is_overwritten_and_spacings_must_agree(tomogram: Path, tmp_path: Path) -> None:
    picks = _write_picks("csv", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="refusing to overwrite"):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out"))
    other = tmp_path / "TS_08.mrc"
    with mrcfile.new(other, np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)) as mrc:
        mrc.voxel_size = 9.0
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_07\n20,18,16,TS_08\n")
    with pytest.raises(InputError, match="differ in voxel spacing"):
        extract_subtomograms(_request([tomogram, other], picks, tmp_path / "b"))
    with mrcfile.mmap(other, "r+") as mrc:
        mrc.voxel_size = 0
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_08\n")
    with pytest.raises(InputError, match="states no voxel spacing"):
        extract_subtomograms(_request([other], picks, tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_no_tomogram_name_leads_out_of_the_folder(tomogram: Path, tmp_path: Path) -> None:
    work = tmp_path / "deep" / "deeper"
    work.mkdir(parents=True)
    names = ["...mrc", "a b;$(x).mrc", "-rf.mrc", "a_b__$x_.mrc"]
    for name in names:
        (work / name).write_bytes(tomogram.read_bytes())
    rows = "".join(f'20,18,16,"{name}"\n' for name in names)
    (work / "picks.csv").write_text("x,y,z,tomogram\n" + rows)
    before = set(tmp_path.rglob("*"))
    result = extract_subtomograms(_request([work / name for name in names], work / "picks.csv", work / "out"))
    made = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(work / "out") for path in made)
    images = [image.path.resolve() for image in read_particles(result.star).images]
    assert len(set(images)) == len(names)
    assert all(image.is_relative_to(work / "out" / "subtomograms") for image in images)


def test_only_the_boxes_of_a_large_tomogram_are_read(tmp_path: Path) -> None:
    script = f"""
import resource, sys
from pathlib import Path
import mrcfile, numpy as np
from cryodc.picks import ExtractRequest, extract_subtomograms
path, picks = Path({str(tmp_path / "big.mrc")!r}), Path({str(tmp_path / "picks.csv")!r})
with mrcfile.new_mmap(path, (1024, 1024, 1024), mrc_mode=2, overwrite=True) as mrc:
    mrc.voxel_size = 8
    mrc.data[488:536, 488:536, 488:536] = np.random.default_rng(0).standard_normal((48, 48, 48))
picks.write_text("x,y,z\\n512,512,512\\n510.5,511,513\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extract_subtomograms(ExtractRequest([path], picks, Path({str(tmp_path / "out")!r}), 32))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    # The file claims 4 GiB of voxels; two boxes are a few MB.
    assert float(finished.stdout) < 0.3


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-5, 5)] * 3), st.integers(0, 2**20))
def test_a_shift_and_its_opposite_give_the_volume_back(shift: tuple[float, float, float], seed: int) -> None:
    volume = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(seed))
    whole = torch.tensor(shift).round()
    rolled = volume.roll([int(s) for s in whole], (0, 1, 2))
    torch.testing.assert_close(fourier_shift(volume, whole), rolled, atol=1e-4, rtol=0)
    smooth = low_pass(volume, 4.0, 1.0)
    there = fourier_shift(smooth, torch.tensor(shift))
    torch.testing.assert_close(fourier_shift(there, -torch.tensor(shift)), smooth, atol=1e-4, rtol=0)


class _Killed(BaseException):
    """What ends a process, and no one catches."""


def test_an_extraction_that_was_killed_is_begun_again(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("csv", tmp_path), tmp_path / "out", 16, tilt_range=(-60, 50))

    def kill(n_done: int, n_total: int) -> None:
        if n_done == 2:
            raise _Killed

    with pytest.raises(_Killed):
        extract_subtomograms(request, kill)
    assert not request.out.exists()
    result = extract_subtomograms(request)
    assert sum(result.n_extracted.values()) == len(list(request.out.glob("subtomograms/*/*.mrc"))) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
