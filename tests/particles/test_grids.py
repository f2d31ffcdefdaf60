"""Optics groups of different box and pixel: particles are read on one grid, as physics says they look there."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.check import check_particles
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import fourier_crop, regrid, regrid_weights
from cryodc.particles import read_particles
from tests.simulated import blobs

PLACES = np.array([[0, 0, 0], [40, 0, 0], [0, -60, 10], [-20, 25, 50]], dtype=float)  # zyx, Å
HEIGHTS = [1.0, 0.8, 0.7, 0.9]
SIGMA = 18.0
# Box and pixel of each group; both hold 240 Å, the common grid is 24 voxels of 10 Å.
GROUPS = {"1": (32, 7.5), "2": (24, 10.0)}


def body(box: int, pixel: float, places: NDArray[np.float64] = PLACES) -> NDArray[np.float32]:
    return blobs((box,) * 3, places / pixel + box // 2, SIGMA / pixel, HEIGHTS).astype(np.float32)


@pytest.mark.parametrize("ratio", [1.0, 1.25, 4 / 3, 1.6])
def test_a_smooth_body_is_the_same_body_on_another_grid(ratio: float) -> None:
    """Each voxel of the new grid holds what the body is there, with no turn, shift or scale."""
    box, pixel = 36, 8.0
    new = 2 * int(box / ratio / 2)
    found = regrid(torch.from_numpy(body(box, pixel)), new, ratio).numpy()
    np.testing.assert_allclose(found, body(new, ratio * pixel), atol=0.01)


def test_a_whole_ratio_is_fourier_cropping() -> None:
    volume = torch.from_numpy(body(32, 7.5))
    torch.testing.assert_close(regrid(volume, 16, 2.0), fourier_crop(volume, 16), atol=2e-3, rtol=0)


def test_noise_above_the_new_nyquist_frequency_is_dropped() -> None:
    """White noise keeps its density below the new Nyquist frequency: as much variance as there are waves below it."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((32, 32, 32))).float()
    for ratio in (1.25, 1.5, 2.0):
        variance = float(regrid(noise, 2 * int(32 / ratio / 2), ratio).var())
        below = sum(abs(wave) < 16 / ratio for wave in range(-16, 16))
        assert variance == pytest.approx((below / 32) ** 3, rel=0.05)


def test_weights_are_those_of_the_same_frequencies() -> None:
    """A weight that is a function of frequency is that function on the other grid."""

    def weight(box: int, pixel: float) -> torch.Tensor:
        z, y = np.fft.fftfreq(box, pixel)[:, None, None], np.fft.fftfreq(box, pixel)[None, :, None]
        x = np.fft.rfftfreq(box, pixel)[None, None]
        damped = np.exp(-((z**2 + y**2 + x**2) * 600)) * (1 + 0.3 * np.sin(90 * z) * np.sin(70 * y))
        return torch.from_numpy(damped).float()

    found, expected = regrid_weights(weight(40, 6.0), 28, 8.0 / 6.0), weight(28, 8.0)
    # The Nyquist frequency stands for both signs.
    inside = np.abs(np.fft.fftfreq(28, 1 / 28)) < 14
    kept = np.ix_(inside, inside, np.arange(15) < 14)
    np.testing.assert_allclose(found.numpy()[kept], expected.numpy()[kept], atol=0.02)


def write_set(folder: Path, groups: dict[str, tuple[int, float]], *, weights: bool = True, n: int = 6) -> Path:
    """Particles of RELION 3.1, one in two of each group, turned about z by 10 degrees more each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        number = list(groups)[i % len(groups)]
        box, pixel = groups[number]
        turned = Rotation.from_euler("z", 10 * i, degrees=True).apply(PLACES[:, ::-1])[:, ::-1]
        with mrcfile.new(folder / f"p{i}.mrc", body(box, pixel, turned)) as mrc:
            mrc.voxel_size = pixel
        z, y = np.fft.fftfreq(box, pixel)[:, None, None], np.fft.fftfreq(box, pixel)[None, :, None]
        x = np.fft.rfftfreq(box, pixel)[None, None]
        seen = (np.abs(z) <= 2 * x + 0.008) * np.ones_like(y) * np.exp(-300 * (z**2 + y**2 + x**2))
        with mrcfile.new(folder / f"w{i}.mrc", seen.astype(np.float32)) as mrc:
            mrc.voxel_size = pixel
        rows.append(f"p{i}.mrc{f' w{i}.mrc' if weights else ''} TS_1 {number} {-10.0 * i} 0 0 0 0 0 {1 + i // 3}")
    labels = ["rlnImageName", *(["rlnCtfImage"] if weights else []), "rlnTomoName", "rlnOpticsGroup", "rlnAngleRot"]
    labels += ["rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
    labels += ["rlnRandomSubset"]
    optics = ["rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"]
    text = "data_optics\n\nloop_\n" + "\n".join(f"_{label}" for label in optics) + "\n"
    text += "\n".join(f"{number} {pixel} {box} 3" for number, (box, pixel) in groups.items()) + "\n\n"
    text += "data_particles\n\nloop_\n" + "\n".join(f"_{label}" for label in labels) + "\n" + "\n".join(rows) + "\n"
    (folder / "particles.star").write_text(text)
    return folder / "particles.star"


def test_groups_of_other_box_and_pixel_are_read_as_one_set(tmp_path: Path) -> None:
    """As if every particle had been extracted at the coarsest pixel."""
    two = load_dataset(read_particles(write_set(tmp_path / "two", GROUPS)))
    one = load_dataset(read_particles(write_set(tmp_path / "one", {"1": (24, 10.0)})))
    assert (two.particles.box_size, two.particles.spacing_angstrom) == (24, 10.0)
    assert two.volumes.shape == one.volumes.shape
    np.testing.assert_allclose(two.volumes.numpy(), one.volumes.numpy(), atol=0.05)
    ours, theirs = (data.weights[data.weight_index].numpy() for data in (two, one))
    low = np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(24, 1 / 24)] * 2, np.arange(13), indexing="ij")), axis=0)
    # But for the edge of the wedge, which lies between voxels of either grid.
    differ = np.abs(ours - theirs)[:, low < 11]
    assert (differ < 0.05).mean() > 0.9
    assert two.particles.poses is not None
    assert one.particles.poses is not None
    np.testing.assert_allclose(two.particles.poses.rotations, one.particles.poses.rotations)


def test_check_says_what_is_done_with_them(tmp_path: Path) -> None:
    report = check_particles(write_set(tmp_path, GROUPS))
    assert report.problems == ()
    assert (report.box_size, report.spacing_angstrom) == (24, 10.0)
    note = "optics groups differ: box 32 at 7.5 Å and box 24 at 10 Å; all are read at box 24, 10 Å"
    assert note in [*report.notes]


def test_the_common_box_lies_within_every_box(tmp_path: Path) -> None:
    """32 voxels of 7.5 Å and 40 of 8 Å: 240 and 320 Å, so 30 voxels of 8 Å."""
    particles = read_particles(write_set(tmp_path, {"1": (32, 7.5), "2": (40, 8.0)}))
    assert (particles.box_size, particles.spacing_angstrom) == (30, 8.0)
    volumes = load_dataset(particles).volumes.numpy()
    for i in range(len(particles)):
        turned = Rotation.from_euler("z", 10 * i, degrees=True).apply(PLACES[:, ::-1])[:, ::-1]
        assert np.corrcoef(volumes[i].ravel(), body(30, 8.0, turned).ravel())[0, 1] > 0.999


FAULTS = {
    "a file of the other group's box": (lambda d: (d / "p0.mrc").write_bytes((d / "p1.mrc").read_bytes()), "box size"),
    "a weight of the other group's box": (lambda d: (d / "w0.mrc").write_bytes((d / "w1.mrc").read_bytes()), "shape"),
    "an odd box": (
        lambda d: (d / "particles.star").write_text((d / "particles.star").read_text().replace("10.0 24", "10.0 25")),
        "odd",
    ),
    "no box of one group": (
        lambda d: (d / "particles.star").write_text((d / "particles.star").read_text().replace("10.0 24", "10.0 0")),
        "not a positive number",
    ),
    "nothing in common": (
        lambda d: (d / "particles.star").write_text((d / "particles.star").read_text().replace("10.0 24", "99.0 24")),
        "no box is common",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_its_own_group_is_named(fault: str, tmp_path: Path) -> None:
    damage, match = FAULTS[fault]
    star = write_set(tmp_path, GROUPS)
    damage(tmp_path)
    with pytest.raises(InputError, match=match) as caught:
        read_particles(star)
    assert caught.value.file is not None
