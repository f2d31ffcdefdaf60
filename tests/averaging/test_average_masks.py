"""Masks that users give: what they change, and which are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.average import _masks
from cryodc_cli.learn.average import average as average_command

from cryodc.alignment import ClassSpectra, balanced_halves
from cryodc.averaging.final_classes import ALIGNMENT_BOX, shrink_mask
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, soft_sphere
from cryodc.io import write_volume
from cryodc.maps import average_particles, mask_of
from cryodc.maps.user_masks import is_spherical
from cryodc.simulation import SimulationConfig, phantom, simulate_particles
from cryodc.volumes import Volume

BOX = 24


def ellipsoid(stretch: float) -> torch.Tensor:
    axis = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (1.5 - ((z / stretch) ** 2 + y**2 + x**2).sqrt() / 5).clamp(0, 1).float()


def numpy_fsc(first: np.ndarray, second: np.ndarray, shell: int) -> float:
    axis = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), axis=0)
    a, b = (np.fft.fftn(v)[np.rint(radius) == shell] for v in (first, second))
    return float((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()))


def test_fsc_is_that_of_half_maps_within_the_mask_given() -> None:
    made = simulate_particles({"clamp": phantom("clamp")}, SimulationConfig(n_per_map=12, snr=1.0, box_size=BOX))
    origins = torch.from_numpy(made.poses.origins_angstrom / 10.0).float()
    stack = ParticleStack(made.volumes, made.weights, made.weight_index)
    inputs = (stack, torch.from_numpy(made.poses.rotations).float(), origins)
    mask = ellipsoid(1.4)
    maps = average_particles(*inputs, balanced_halves(12, 0), mask=mask)
    torch.testing.assert_close(maps.mask, mask)
    halves = (maps.halves * mask).double().numpy()
    for shell in (2, 4, 7):
        assert maps.curves.masked[shell] == pytest.approx(numpy_fsc(*halves, shell), abs=1e-4)
    assert np.abs(maps.curves.masked - average_particles(*inputs, balanced_halves(12, 0)).curves.masked).max() > 0.01


def test_references_are_zero_outside_the_mask_given() -> None:
    made = simulate_particles({"clamp": phantom("clamp")}, SimulationConfig(n_per_map=6, snr=1.0, box_size=BOX))
    mask = soft_sphere(BOX, 5.0, 2.0)
    turns = torch.from_numpy(made.poses.rotations).float()
    for given, empty in ((mask, True), (None, False)):
        particles = ClassSpectra(ParticleStack(made.volumes, made.weights, made.weight_index), 8.0, given)
        sums = [particles.sums(rows, turns[rows], torch.zeros(3, 3), 8.0) for rows in torch.arange(6).chunk(2)]
        reference = particles.reference(sums[0], sums[1])[0]
        assert bool((reference[mask == 0].abs() < 1e-6 * reference.abs().max()).all()) is empty


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (soft_sphere(BOX, 6.0, 3.0), True),
        ((soft_sphere(BOX, 6.0, 0.01) > 0.5).float(), True),
        (soft_sphere(BOX, 8.0, 2.0) - soft_sphere(BOX, 3.0, 2.0), True),
        (torch.ones(BOX, BOX, BOX), True),
        (ellipsoid(1.4), False),
        (torch.roll(soft_sphere(BOX, 6.0, 3.0), 2, 0), False),
        (torch.zeros(BOX, BOX, BOX), False),
    ],
    ids=["sphere", "hard", "shell", "everything", "ellipsoid", "off centre", "nothing"],
)
def test_a_mask_is_spherical_if_turning_it_changes_nothing(mask: torch.Tensor, expected: bool) -> None:
    assert is_spherical(mask) is expected


def test_a_sphere_of_a_large_box_is_the_same_sphere_in_the_alignments() -> None:
    large, spacing = soft_sphere(2 * ALIGNMENT_BOX, 30.0, 12.0), 2
    small = shrink_mask(large)
    assert small.shape[-1] == ALIGNMENT_BOX
    torch.testing.assert_close(small, soft_sphere(ALIGNMENT_BOX, 30.0 / spacing, 6.0), atol=0.02, rtol=0)
    torch.testing.assert_close(shrink_mask(small), small, atol=1e-5, rtol=0)


def test_masks_are_by_class_or_for_all() -> None:
    given = _masks(("all.mrc", "2:core.mrc", "/data/a:b.mrc"))
    assert given == {None: Path("/data/a:b.mrc"), 2: Path("core.mrc")}
    assert _masks(("all.mrc",)) == {None: Path("all.mrc")}
    for wrong in ("0:core.mrc", "2:"):
        with pytest.raises(InputError, match="names no class"):
            _masks((wrong,))
    one, other = torch.ones(2, 2, 2), torch.zeros(2, 2, 2)
    assert mask_of(2, {None: one, 2: other}) is other
    assert mask_of(1, {None: one, 2: other}) is one
    assert mask_of(1, {2: other}) is None


def test_masks_without_a_frame_or_that_do_not_fit_are_refused_before_anything_is_replaced(
    small_run: Path, tmp_path: Path
) -> None:
    before = (small_run / "averages/summary.json").read_bytes()

    def refused(mask: torch.Tensor, spacing: float, *options: str, number: str = "") -> str:
        path = tmp_path / "mask.mrc"
        write_volume(path, Volume(mask.numpy(), spacing))
        done = CliRunner().invoke(average_command, [str(small_run), "--mask", f"{number}{path}", *options])
        assert isinstance(done.exception, InputError)
        assert (small_run / "averages/summary.json").read_bytes() == before
        return str(done.exception)

    assert "changes when it is turned" in refused(ellipsoid(1.4), 15.0, "--ignore-poses")
    assert "does not fit" in refused(ellipsoid(1.4)[:20, :20, :20], 15.0)
    assert "does not fit" in refused(ellipsoid(1.4), 10.0)
    assert "no mask" in refused(2 * ellipsoid(1.4), 15.0)
    assert "not there" in refused(ellipsoid(1.4), 15.0, number="9:")
    missing = CliRunner().invoke(average_command, [str(small_run), "--mask", str(tmp_path / "none.mrc")])
    assert isinstance(missing.exception, InputError)
