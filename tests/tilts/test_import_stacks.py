"""Subtomograms made of 2D stacks, against equations written out and the published ribosomes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.alignment import balanced_halves
from cryodc.dataset import load_dataset
from cryodc.fourier import ParticleStack, TiltOptics, fourier_crop, soft_sphere
from cryodc.io import read_volume
from cryodc.maps import average_particles
from cryodc.particles import read_particles
from cryodc.tilts import import_tilt_stacks
from tests.tilts.stacks import BLOBS, PIXEL, TILTS, N, Stacks, _agreement, _imported, _phantom, _projection, _seen


@pytest.mark.parametrize("layout", ["warp", "relion"])
def test_a_subtomogram_is_the_protein_seen_through_its_weight(tmp_path: Path, layout: str) -> None:
    star = Stacks(tmp_path / "in", layout=layout).write()
    volume, weights = _imported(import_tilt_stacks(star, tmp_path / "out"))
    phantom = _phantom(BLOBS)
    assert weights.shape == (2 * N, N, N // 2 + 1)
    right = _agreement(volume, weights, phantom)
    assert right > 0.985
    for axis in range(3):
        mirrored = np.roll(phantom[tuple(slice(None, None, -1 if a == axis else 1) for a in range(3))], 1, axis)
        assert _agreement(volume, weights, mirrored) < right - 0.05
        for step in (-1, 1):
            assert _agreement(volume, weights, np.roll(phantom, step, axis)) < right - 0.01


def test_subtomogram_angles_turn_the_volume_into_their_frame(tmp_path: Path) -> None:
    angles = (40.0, 110.0, -65.0)
    star = Stacks(tmp_path / "in", layout="relion", subtomogram=angles).write()
    volume, weights = _imported(import_tilt_stacks(star, tmp_path / "out"))
    # x_tomogram = A x_subtomogram, with RELION's matrix A.
    to_tomogram = Rotation.from_euler("ZYZ", angles, degrees=True).inv()
    assert _agreement(volume, weights, _phantom(to_tomogram.inv().apply(BLOBS))) > 0.985
    assert _agreement(volume, weights, _phantom(BLOBS)) < 0.9


def test_binning_keeps_place_and_grey_value_and_box_cuts(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in", size=48).write()
    summary = import_tilt_stacks(star, tmp_path / "out", binning=2, box_size=20)
    assert (summary.box_size, summary.spacing_angstrom) == (20, 2 * PIXEL)
    volume, weights = _imported(summary)
    phantom = fourier_crop(torch.from_numpy(_phantom(BLOBS, 40)), 20).numpy()
    assert _agreement(volume, weights, phantom) > 0.98
    assert np.polyfit(_seen(weights, phantom).ravel(), volume.ravel(), 1)[0] == pytest.approx(1.0, abs=0.1)


def test_premultiplied_and_plain_stacks_give_the_same_volume(tmp_path: Path) -> None:
    results = []
    for premultiplied in (True, False):
        folder = tmp_path / str(premultiplied)
        star = Stacks(folder / "in", premultiplied=premultiplied, size=32).write()
        results.append(_imported(import_tilt_stacks(star, folder / "out", hand="-1")))
    (first, first_weights), (second, second_weights) = results
    assert np.abs(first - second).max() < 0.01 * np.abs(first).max()
    np.testing.assert_array_equal(first_weights, second_weights)


def test_a_tilt_that_is_not_visible_is_left_out(tmp_path: Path) -> None:
    visible = [1] * len(TILTS)
    visible[0] = visible[9] = 0
    results = []
    for layout in ("warp", "relion"):
        star = Stacks(tmp_path / layout / "in", layout=layout, visible=visible).write()
        results.append(_imported(import_tilt_stacks(star, tmp_path / layout / "out", hand="-1")))
    # WarpTools keeps a place for it in the stack, RELION does not: nothing of that place may come through.
    for warp, relion in zip(*results, strict=True):
        np.testing.assert_allclose(warp, relion, atol=2e-5 * float(np.abs(relion).max()))
    assert np.abs(results[0][0]).max() < 100
    everything = _imported(import_tilt_stacks(Stacks(tmp_path / "all").write(), tmp_path / "all out", hand="-1"))
    assert everything[1].sum() > 1.05 * results[0][1].sum()


def _twin(stacks: Stacks, box: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same backprojection, voxel by voxel, every image transformed exactly where it is needed."""
    edge, images = 2 * box, stacks.images(0)
    axis = np.arange(stacks.size) - stacks.size // 2
    data = np.zeros((edge, edge, edge), dtype=complex)
    weight = np.zeros((edge, edge, edge))
    frequencies = np.fft.fftfreq(edge, 1 / box)
    for z, y, x in np.ndindex(edge, edge, edge):
        k = np.array([frequencies[x], frequencies[y], frequencies[z]])
        if np.linalg.norm(k) > box / 2 or np.abs(k).max() >= box / 2:
            continue
        for f, tilt in enumerate(TILTS):
            px, py, pz = _projection(tilt) @ k
            share = 2 * (1 - 2 * abs(pz))
            if share <= 0:
                continue
            wave = np.exp(-2j * np.pi * (px * axis[None, :] + py * axis[:, None]) / stacks.size)
            length = stacks.size * PIXEL
            data[z, y, x] += share * (images[f] * wave).sum()
            weight[z, y, x] += share * float(stacks.transfer(0, f, py / length, px / length)) ** 2
    rim = max(2.0, 0.1 * box)
    sphere = soft_sphere(box, box / 2 - rim, rim).numpy()
    keep = slice(edge // 2 - box // 2, edge // 2 + box // 2)
    volume = np.fft.fftshift(np.fft.ifftn(data).real)[keep, keep, keep] * sphere
    spread = np.fft.fftshift(np.fft.ifftn(weight).real)[keep, keep, keep] * sphere
    return volume, np.fft.rfftn(np.fft.ifftshift(spread)).real


def test_a_twin_written_in_loops_gives_the_same_volume_and_weight(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path / "in", size=8, n_particles=1, noise=0.5)
    volume, weights = _imported(import_tilt_stacks(stacks.write(), tmp_path / "out", hand="-1"))
    expected, expected_weight = _twin(stacks, 8)
    assert np.linalg.norm(volume - expected) < 0.03 * np.linalg.norm(expected)
    clipped = np.where(expected_weight > 1e-4 * expected_weight.max(), expected_weight, 0)
    assert np.abs(weights[:8] - clipped).max() < 1e-3 * clipped.max()


def test_phase_plate_bfactor_and_damage_follow_their_equations() -> None:
    one = torch.ones(1)
    plain = TiltOptics(300, 2.7, 0.1, 15e3 * one, 15e3 * one, 0 * one, 0 * one, 0 * one, one, 0 * one)
    k = torch.stack([torch.zeros(50), torch.linspace(0, 0.2, 50)], dim=1)
    at = torch.zeros(1)
    ctf = plain.transfer(0, k, at)[0]
    # A phase plate of 90° turns the sine into a cosine of the same argument; at k = 0 that is √(1 − Q²), not Q.
    plate = replace(plain, phase_shift_degrees=90 * one).transfer(0, k, at)[0]
    torch.testing.assert_close(ctf**2 + plate**2, torch.ones(50))
    assert (float(ctf[0]), float(plate[0])) == pytest.approx((0.1, np.sqrt(0.99)), abs=1e-6)
    square = k[:, 1] ** 2
    blurred = replace(plain, bfactor=80 * one, scale=0.5 * one).transfer(0, k, at)[0]
    torch.testing.assert_close(blurred, 0.5 * ctf * torch.exp(-20 * square))
    damaged = replace(plain, dose=30 * one, bfactor_per_dose=4.0).transfer(0, k, at)[0]
    torch.testing.assert_close(damaged, ctf * torch.exp(-30 * square))
    # More defocus at a particle's depth is the same as more defocus.
    torch.testing.assert_close(
        plain.transfer(0, k, at + 2e3)[0],
        replace(plain, defocus_u_angstrom=17e3 * one, defocus_v_angstrom=17e3 * one).transfer(0, k, at)[0],
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("true_hand", [1, -1])
def test_the_sign_of_the_defocus_gradient_is_read_off_the_images(tmp_path: Path, true_hand: int) -> None:
    star = Stacks(tmp_path / "in", hand=true_hand, stated_hand=-1, noise=1.0, n_particles=6, size=32).write()
    (hand,) = import_tilt_stacks(star, tmp_path / "out").hands.values()
    assert (hand.measured, hand.value, hand.stated) == (true_hand, true_hand, -1)
    told = import_tilt_stacks(star, tmp_path / "told", hand="-1").hands["TS_1"]
    assert (told.value, told.measured) == (-1, 0)


def test_where_images_do_not_say_the_file_is_believed(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in", premultiplied=False, stated_hand=1, noise=1.0).write()
    (hand,) = import_tilt_stacks(star, tmp_path / "out").hands.values()
    assert (hand.measured, hand.value) == (0, 1)


def test_the_real_ribosomes_average_to_the_published_map(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "real" / "ribosome70s"
    (star,) = (folder / "tilt_stacks").glob("*_optimisation_set.star")
    summary = import_tilt_stacks(star, tmp_path / "out")
    dataset = load_dataset(read_particles(summary.star))
    poses = dataset.particles.poses
    assert poses is not None
    average = average_particles(
        ParticleStack(dataset.volumes, dataset.weights, dataset.weight_index),
        torch.from_numpy(poses.rotations).float(),
        torch.from_numpy(poses.origins_angstrom).float() / summary.spacing_angstrom,
        balanced_halves(len(dataset), 0),
    ).average
    published = torch.from_numpy(read_volume(folder / "published_average.mrc").voxels)
    mask = soft_sphere(32, 12.0, 3.0)
    a, b = (np.fft.fftn((m * mask).numpy()) for m in (torch.roll(average.flip(0), 1, 0), published))
    k = np.fft.fftfreq(32, 1 / 32)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for low, high, least in ((1, 2.5, 0.95), (2.5, 5, 0.86), (5, 8, 0.66)):
        x, y = a[(radius >= low) & (radius < high)], b[(radius >= low) & (radius < high)]
        assert (x * y.conj()).real.sum() / (np.linalg.norm(x) * np.linalg.norm(y)) > least
    # Every tilt series of this set tilts the other way than its rlnTomoHand says.
    assert {hand.measured for hand in summary.hands.values()} == {1}
