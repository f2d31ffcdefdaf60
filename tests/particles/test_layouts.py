"""Particles of every program's STAR: names, poses, spacing, images."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.particles import Poses, read_particles, with_half_sets, with_poses
from cryodc.star import describe_layout, read_star, write_star
from tests.made_stars import SAMPLES, _data_star, _star_31, _volumes

LAYOUTS = {
    "cryocat_relion_3.0.star": "RELION 3.0, Warp or WarpTools --3d",
    "tom_test_2018.star": "RELION 3.1",
    "cryocat_relion5_1_run_it025_data.star.gz": "RELION 3.1",
    "cryocat_relion_4.0.star.gz": "RELION 4",
    "cylindra_run_it025_data.star": "RELION 5, 2D stacks",
    "cryocat_warp2_particles_matching.star": "WarpTools --2d or RELION 5, 2D stacks",
}


@pytest.mark.parametrize(("name", "what"), SAMPLES.items())
def test_every_sample_is_read_or_refused_with_reason_and_remedy(
    shared_data: Path, name: str, what: tuple[int, int, float] | str
) -> None:
    path = shared_data / "star" / name
    if isinstance(what, str):
        with pytest.raises(InputError, match=what) as caught:
            read_particles(path, check_images=False)
        assert caught.value.remedy
        assert caught.value.file == path
        return
    particles = read_particles(path, check_images=False)
    assert (len(particles), particles.box_size, particles.spacing_angstrom) == what
    assert particles.weight_images is not None
    assert particles.poses is not None
    document = read_star(path)
    for i in (0, len(particles) - 1):
        assert particles.names[i] in document.lines[particles.rows[i] - 1]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS.items())
def test_the_layout_is_detected(shared_data: Path, name: str, layout: str) -> None:
    assert describe_layout(read_star(shared_data / "star" / name)) == layout


def test_particles_of_relion_4_are_named_by_their_particle_name(shared_data: Path) -> None:
    particles = read_particles(shared_data / "star" / "cryocat_relion_4.0.star.gz", check_images=False)
    assert particles.names[0] == "TS_017/68"
    assert particles.tomograms[0] == "TS_017"
    assert particles.half_sets is not None
    assert list(particles.half_sets[:2]) == [2, 1]


def test_a_pose_is_where_relion_puts_the_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    angles = rng.uniform(-400, 400, (6, 3))
    origins_xyz = rng.uniform(-20, 20, (6, 3))
    rows = [f"{i}.mrc 1 {' '.join(map(str, [*angles[i], *origins_xyz[i]]))}" for i in range(6)]
    angle_labels = "rlnAngleRot rlnAngleTilt rlnAnglePsi"
    labels = f"rlnImageName rlnOpticsGroup {angle_labels} rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst"
    path = _data_star(tmp_path, _star_31(rows, labels))
    poses = read_particles(path, check_images=False).poses
    assert poses is not None
    points_xyz = rng.standard_normal((6, 3))
    # RELION: A = R(rot, tilt, psi)⁻¹, intrinsic ZYZ; x_particle = A x_reference.
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(points_xyz)
    found = np.einsum("nij,nj->ni", poses.rotations, points_xyz[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(poses.origins_angstrom[:, ::-1], origins_xyz, atol=1e-12)


def test_origins_of_relion_3_0_are_pixels(tmp_path: Path) -> None:
    text = (
        "data_\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n_rlnAngleTilt #3\n_rlnAnglePsi #4\n_rlnOriginX #5\n"
        "_rlnOriginY #6\n_rlnOriginZ #7\n_rlnPixelSize #8\na.mrc 0 0 0 1 2 3 4.0\n"
    )
    poses = read_particles(_data_star(tmp_path, text), check_images=False).poses
    assert poses is not None
    assert poses.origins_angstrom.tolist() == [[12.0, 8.0, 4.0]]


@pytest.mark.parametrize("has_optics", [True, False])
def test_poses_written_are_the_poses_read(tmp_path: Path, has_optics: bool) -> None:
    text = _star_31([f"{i}.mrc 1" for i in range(5)])
    if not has_optics:
        text = "data_\nloop_\n_rlnImageName #1\n_rlnPixelSize #2\n" + "".join(f"{i}.mrc 10\n" for i in range(5))
    path = _data_star(tmp_path, text)
    particles = read_particles(path, check_images=False)
    assert particles.poses is None
    rng = np.random.default_rng(1)
    poses = Poses(Rotation.random(5, rng=rng).as_matrix(), rng.uniform(-9, 9, (5, 3)))
    document = with_poses(read_star(path), poses, particles)
    write_star(with_half_sets(document, [1, 2, 1, 2, 1]), tmp_path / "posed.star")
    again = read_particles(tmp_path / "posed.star", check_images=False)
    assert again.poses is not None
    np.testing.assert_allclose(again.poses.rotations, poses.rotations, atol=1e-6)
    np.testing.assert_allclose(again.poses.origins_angstrom, poses.origins_angstrom, atol=1e-5)
    assert again.half_sets is not None
    assert again.half_sets.tolist() == [1, 2, 1, 2, 1]
    # RELION 3.0 knows origins in pixels only.
    assert ("rlnOriginXAngst" in document.text()) == has_optics


@pytest.mark.parametrize(
    ("columns", "values", "spacing"),
    [
        ("rlnPixelSize", "3.5", 3.5),
        ("rlnDetectorPixelSize rlnMagnification", "5.364 10000.0", 5.364),
        ("rlnDetectorPixelSize rlnMagnification", "14 50000", 2.8),
    ],
)
def test_spacing_of_layouts_without_optics(tmp_path: Path, columns: str, values: str, spacing: float) -> None:
    header = "".join(f"_{label}\n" for label in columns.split())
    path = _data_star(tmp_path, f"data_\nloop_\n_rlnImageName\n{header}a.mrc {values}\n")
    assert read_particles(path, check_images=False).spacing_angstrom == pytest.approx(spacing)


def test_spacing_of_relion_4_is_the_tilt_series_pixel_times_the_binning(tmp_path: Path) -> None:
    text = (
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n_rlnTomoSubtomogramBinning\n1 1.35 4\n\n"
        "data_particles\nloop_\n_rlnTomoParticleName\n_rlnImageName\n_rlnOpticsGroup\nT/1 a.mrc 1\n"
    )
    particles = read_particles(_data_star(tmp_path, text), check_images=False)
    assert particles.spacing_angstrom == pytest.approx(5.4)
    assert particles.names == ("T/1",)


def test_unused_optics_groups_do_not_matter(shared_data: Path, tmp_path: Path) -> None:
    document = read_star(shared_data / "star" / "cryocat_relion_3.1_optics2.star")
    write_star(document.with_rows("particles", [1, 2]), tmp_path / "group2.star")
    assert read_particles(tmp_path / "group2.star", check_images=False).spacing_angstrom == 3.446


def test_the_real_particles_are_read(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    particles = read_particles(shared_data / "real" / "ribosome70s" / "particles.star")
    assert (len(particles), particles.box_size, particles.spacing_angstrom) == (40, 32, 12.0)
    assert len(set(particles.tomograms)) == 4
    assert all(image.path.is_file() for image in particles.images)


def test_paths_resolve_from_the_current_folder_then_the_star_then_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside, data = tmp_path / "here", tmp_path / "beside", tmp_path / "data"
    for folder in (here, beside, data):
        folder.mkdir()
    monkeypatch.chdir(here)
    star = _data_star(beside, _star_31(["a.mrc 1"]))
    with pytest.raises(InputError, match="does not exist") as caught:
        read_particles(star, data)
    assert all(str(folder) in str(caught.value) for folder in (here, beside, data))
    for folder in (data, beside, here):
        _volumes(folder, ["a.mrc"])
        assert read_particles(star, data).images[0].path == folder / "a.mrc"
