"""What is published of an average: corrected FSC, sharpened map, coverage, fractions."""

import csv
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from cryodc.fourier import ParticleStack, half_map_fsc, shell_frequencies, soft_sphere, wedge_from_tilt_range
from cryodc.fourier.fsc import randomise_phases
from cryodc.maps import average_particles, class_fractions, fractions_table, sharpen
from cryodc.maps.quality import direction_density

BOX = 32


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))


def full_wedge(weight: torch.Tensor) -> np.ndarray:
    """The half-Fourier weight as a full cube with DC in the middle."""
    z = np.fft.fftfreq(BOX, 1 / BOX).round().astype(int)
    k = np.stack(np.meshgrid(z, z, z, indexing="ij"))
    flipped = np.where(k[2] < 0, -k, k)
    return np.fft.fftshift(weight.numpy()[flipped[0] % BOX, flipped[1] % BOX, np.minimum(flipped[2], BOX // 2)])


def test_a_tight_mask_that_makes_noise_agree_is_found_out() -> None:
    """Both halves: one object at low resolution, independent noise beyond; the mask of the object is sharp."""
    shared = gaussian_filter(noise(1)[0].numpy(), 2.5, mode="wrap")
    shared /= shared.std()
    halves = torch.stack([torch.from_numpy(shared) + 0.3 * v for v in noise(2, seed=1)])
    mask = (torch.from_numpy(shared) > 1.5).float()
    found = half_map_fsc(halves, mask)
    assert 2 < found.randomised_from < 12
    beyond = slice(found.randomised_from + 3, None)
    assert found.masked[beyond].mean() > 0.25
    assert abs(found.corrected[beyond].mean()) < 0.1
    np.testing.assert_array_equal(found.corrected[: found.randomised_from], found.masked[: found.randomised_from])


def test_a_wide_mask_needs_no_correction_and_signal_stays() -> None:
    signal = torch.from_numpy(gaussian_filter(noise(1)[0].numpy(), 1.0)) * soft_sphere(BOX, 7, 3)
    halves = signal + 0.02 * noise(2, seed=3)
    found = half_map_fsc(halves, soft_sphere(BOX, 11, 4))
    np.testing.assert_allclose(found.corrected[1:10], found.masked[1:10], atol=0.05)
    assert (found.masked[5:10] > found.unmasked[5:10]).all()


def test_random_phases_keep_amplitudes_and_the_coarse_shells() -> None:
    volume = noise(1)[0]
    drawn = randomise_phases(volume, 6, torch.Generator().manual_seed(9))
    before, after = (np.fft.fftn(v.numpy()) for v in (volume, drawn))
    radius = np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(BOX, 1 / BOX)] * 3, indexing="ij")), axis=0).round()
    np.testing.assert_allclose(after[radius < 6], before[radius < 6], atol=2e-3)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-2, atol=0.5)
    inside = (radius > 8) & (radius < 15)
    assert abs((before * after.conj()).real[inside].sum()) < 0.05 * (np.abs(before[inside]) ** 2).sum()


def test_a_known_fall_of_amplitudes_is_undone_where_there_is_a_fit_range() -> None:
    """White noise blurred by a B-factor of 120 Å² at 1.5 Å: the fit finds it, and the map is white again."""
    spacing, b_factor = 1.5, 120.0
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(BOX, spacing)] * 3, indexing="ij"))
    s2 = (k**2).sum(axis=0)
    white = noise(1)[0].numpy()
    blurred = np.fft.ifftn(np.fft.fftn(white) * np.exp(-b_factor * s2 / 4)).real.astype(np.float32)
    halves = torch.from_numpy(np.stack([blurred, blurred]))
    fsc = np.ones(BOX // 2 + 1)
    sharpened = sharpen(halves, fsc, spacing, 3.2)
    assert sharpened.b_factor == pytest.approx(b_factor, rel=0.1)
    amplitude = np.abs(np.fft.fftn(sharpened.voxels.numpy()))
    bands = [amplitude[(s2 > a**-2) & (s2 < b**-2)].mean() for a, b in ((9, 6), (4.5, 3.5))]
    assert bands[1] / bands[0] == pytest.approx(1, abs=0.15)
    # Nothing is left beyond the resolution but the soft edge of two shells.
    assert amplitude[s2 > (1 / 3.2 + 3 / (BOX * spacing)) ** 2].max() < 1e-2 * bands[0]


def test_at_coarse_spacing_the_map_is_weighted_by_c_ref_and_nothing_else() -> None:
    volume = noise(1)[0]
    fsc = np.full(BOX // 2 + 1, 0.5)
    sharpened = sharpen(torch.stack([volume, volume]), fsc, 10.0, 25.0)
    assert sharpened.b_factor is None
    before, after = np.fft.fftn(volume.numpy()), np.fft.fftn(sharpened.voxels.numpy())
    assert (np.abs(after) / np.abs(before))[0, 0, 3:10] == pytest.approx(np.sqrt(2 * 0.5 / 1.5), rel=1e-3)


def test_coverage_is_the_share_of_turned_wedges_that_hold_a_voxel() -> None:
    """Against the wedge turned by scipy, particle by particle."""
    n = 12
    angles = np.random.default_rng(4).uniform(-40, 40, (n, 3))
    xyz = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    rotations = np.ascontiguousarray(xyz[:, ::-1, ::-1])
    weight = wedge_from_tilt_range(BOX, -50, 50)
    maps = average_particles(
        ParticleStack(noise(n), weight[None], torch.zeros(n, dtype=torch.long)), torch.from_numpy(rotations).float(),
        torch.zeros(n, 3), np.arange(n) % 2 + 1,
    )  # fmt: skip
    cube, centre = full_wedge(weight).astype(float), np.full(3, BOX // 2)
    turned = [affine_transform(cube, a, centre - a @ centre, order=1) for a in rotations]
    expected = np.mean(turned, axis=0)
    radius = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0)
    inside = (radius > 3) & (radius < 13)
    found = maps.coverage.volume.numpy()
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.97
    assert np.abs(found[inside] - expected[inside]).mean() < 0.04
    share = ((radius > 8.5) & (radius <= 9.5), 9)
    assert maps.coverage.measured[9] == pytest.approx((n * expected[share[0]] >= 0.5).mean(), abs=0.03)


def test_one_orientation_covers_its_wedge_and_all_orientations_cover_evenly() -> None:
    n = 40
    weight, index = wedge_from_tilt_range(BOX, -60, 60)[None], torch.zeros(n, dtype=torch.long)
    halves = np.arange(n) % 2 + 1
    same = torch.eye(3).expand(n, 3, 3).contiguous()
    every = torch.from_numpy(Rotation.random(n, rng=0).as_matrix()).float()
    one, all_ = (
        average_particles(ParticleStack(noise(n), weight, index), r, torch.zeros(n, 3), halves).coverage
        for r in (same, every)
    )
    # ±60° leave out a third of each shell's directions.
    assert one.to_shell(12)[0] == pytest.approx(2 / 3, abs=0.04)
    assert one.to_shell(12)[1] < 0.5
    assert one.to_shell(12)[2] < 0.02
    assert all_.to_shell(12)[0] == 1
    assert all_.to_shell(12)[1] > 0.95
    assert all_.to_shell(12)[2] > 0.4


def test_the_density_of_even_directions_is_one_and_of_a_bundle_is_at_its_place() -> None:
    rng = np.random.default_rng(0)
    even = rng.normal(size=(6000, 3))
    even /= np.linalg.norm(even, axis=1, keepdims=True)
    at = even[:50]
    assert direction_density(even, at) == pytest.approx(1, abs=0.45)
    assert direction_density(even, at).mean() == pytest.approx(1, abs=0.1)
    bundle = np.tile([1.0, 0.0, 0.0], (10, 1))
    top, side = direction_density(bundle, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    assert top > 30
    assert side < 1e-6


@pytest.mark.parametrize(("share", "sizes"), [(0.3, [60, 40]), (0.05, [80]), (0.5, [12, 9, 15])])
def test_intervals_hold_the_truth_as_often_as_they_say(share: float, sizes: list[int]) -> None:
    """95 % intervals over 300 simulated draws from a binomial; the binomial error of the count is 1.3 %."""
    rng = np.random.default_rng(1)
    tomograms = [name for i, size in enumerate(sizes) for name in [f"TS_{i}"] * size]
    held = 0
    for seed in range(300):
        labels = (rng.random(sum(sizes)) < share).astype(np.int64)
        everything = class_fractions(labels, tomograms, 2, seed)[0]
        held += bool(everything.low[1] <= share <= everything.high[1])
    assert 0.91 <= held / 300 <= 0.99


def test_a_class_with_no_particle_in_a_tomogram_has_an_upper_bound_above_zero() -> None:
    rows = class_fractions(np.array([0] * 20 + [1] * 20), ["a"] * 20 + ["b, c"] * 20, 2)
    assert [row.tomogram for row in rows] == ["(all)", "a", "b, c"]
    assert rows[1].fractions[1] == rows[1].low[1] == 0
    assert 0.02 < rows[1].high[1] < 0.2
    table = list(csv.reader(fractions_table(rows).splitlines()))
    assert {len(line) for line in table} == {6}
    assert table[-1][:3] == ["b, c", "2", "20"]


def test_every_map_of_a_run_lies_on_the_same_grid(small_run: Path) -> None:
    averages = small_run / "averages"
    summary = json.loads((averages / "summary.json").read_text())["classes"]
    assert sum(row["fraction"] for row in summary) == pytest.approx(1, abs=1e-3)
    for row in summary:
        low, high = row["fraction_interval"]
        assert low <= row["fraction"] <= high
        headers = []
        for suffix in ("", "_half1", "_half2", "_mask", "_postprocess", "_coverage"):
            with mrcfile.open(averages / f"class{row['class']:03d}{suffix}.mrc") as file:
                assert file.data.dtype == np.float32
                headers.append((file.voxel_size.tolist(), file.header.origin.tolist(), file.data.shape))
        assert len({str(header) for header in headers}) == 1
        assert headers[0][0] == pytest.approx((15, 15, 15))
        assert (averages / f"class{row['class']:03d}_quality.png").read_bytes().startswith(b"\x89PNG")
    with (averages / "fsc.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert [float(row["frequency_inverse_angstrom"]) for row in curves[:13]] == pytest.approx(
        shell_frequencies(24, 15.0), abs=1e-6
    )
