"""What a class is taken for: proteins of all shapes are proteins, and what pickers bring beside them is not."""

from functools import cache
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter, zoom
from scipy.spatial.transform import Rotation

from cryodc.fourier import ParticleStack, wedge_from_tilt_range
from cryodc.maps import Verdict, average_particles, judge_class, peak_of

BOX = 32
GRID = np.indices((BOX,) * 3) - BOX // 2
RADIUS = np.sqrt((GRID**2).sum(axis=0))


POSES = torch.from_numpy(Rotation.random(40, random_state=7).as_matrix()).float()


def turned(volume: np.ndarray, rotation: torch.Tensor) -> np.ndarray:
    """A map in a pose: ``V(Aᵀ r)``."""
    matrix, middle = rotation.numpy().T, np.full(3, BOX // 2)
    return affine_transform(volume, matrix, offset=middle - matrix @ middle, order=1)


def particles_of(clean: np.ndarray, snr: float, seed: int) -> torch.Tensor:
    """Noisy particles in ``POSES`` with a missing wedge, standardised; the clean map has variance 1."""
    weight = wedge_from_tilt_range(BOX, -60, 60)
    noise = torch.randn(len(POSES), BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed)) / snr**0.5
    posed = np.stack([turned(clean / clean.std(), pose) for pose in POSES])
    spectrum = torch.fft.rfftn(torch.from_numpy(posed).float() + noise, dim=(1, 2, 3)) * weight
    volumes = torch.fft.irfftn(spectrum, s=(BOX,) * 3, dim=(1, 2, 3))
    return (volumes - volumes.mean(dim=(1, 2, 3), keepdim=True)) / volumes.std(dim=(1, 2, 3), keepdim=True)


def judged_particles(
    volumes: torch.Tensor, poses: torch.Tensor, aligned: bool, note: str, others: np.ndarray
) -> Verdict:
    n = len(volumes)
    stack = ParticleStack(volumes, wedge_from_tilt_range(BOX, -60, 60)[None], torch.zeros(n, dtype=torch.long))
    maps = average_particles(stack, poses[:n], torch.zeros(n, 3), 1 + np.arange(n) % 2)
    return judge_class(maps, stack, aligned, note, peak_of(volumes).numpy(), others)


@cache
def brightness_of_proteins() -> np.ndarray:
    """Peaks of forty particles of a ball of common brightness."""
    return peak_of(particles_of(gaussian_filter((RADIUS < 8).astype(float), 1), 0.1, seed=2)).numpy()


def judged(clean: np.ndarray, snr: float = 0.1, aligned: bool = True) -> Verdict:
    """The verdict on forty particles beside as many of a ball of common brightness."""
    volumes = particles_of(clean, snr, seed=1)
    return judged_particles(volumes, POSES, aligned, "halves disagree", brightness_of_proteins())


def protein(path: Path, share_of_box: float) -> np.ndarray:
    """A published map, centred, so large that its longest side fills this share of the box."""
    volume = mrcfile.read(path)
    volume = np.clip(volume - np.median(volume), 0, None)
    dense = np.argwhere(volume > 0.1 * volume.max())
    low, high = dense.min(axis=0), dense.max(axis=0) + 1
    volume = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    small = np.clip(zoom(volume, share_of_box * BOX / max(volume.shape), order=1), 0, None)
    box = np.zeros((BOX,) * 3)
    box[tuple(slice((BOX - n) // 2, (BOX - n) // 2 + n) for n in small.shape)] = small
    mass = box / box.sum()
    move = [round(float((mass * axis).sum())) for axis in GRID]
    return np.roll(box, [-m for m in move], (0, 1, 2))


@pytest.mark.parametrize("share_of_box", [0.5, 0.8])
def test_every_published_complex_is_a_protein(shared_data: Path, share_of_box: float) -> None:
    paths = sorted((shared_data / "maps").glob("*.mrc.gz"))
    assert len(paths) >= 10
    found = {path.name: judged(protein(path, share_of_box)) for path in paths}
    assert {name: verdict.kind for name, verdict in found.items()} == dict.fromkeys(found, "protein"), found


@pytest.mark.parametrize("radius", [20.0, 35.0, 60.0, 1e6])
def test_a_bilayer_through_the_box_is_membrane_like(radius: float) -> None:
    """Two leaflets four voxels apart, bent or flat, in any orientation."""
    for seed in range(3):
        direction = Rotation.random(random_state=seed).as_matrix()[0]
        if radius < 1e5:
            depth = np.sqrt(((GRID - (direction * radius)[:, None, None, None]) ** 2).sum(axis=0)) - radius
        else:
            depth = np.tensordot(direction, GRID, axes=1)
        leaflets = np.exp(-((depth - 2) ** 2) / 2) + np.exp(-((depth + 2) ** 2) / 2)
        found = judged(leaflets)
        assert found.kind == "membrane-like", found
        assert "at the edge of the box" in found.reason


@pytest.mark.parametrize("radius", [2.5, 3.5, 5.0])
def test_a_gold_bead_is_bead_like(radius: float) -> None:
    bead = gaussian_filter((radius > RADIUS).astype(float), 0.7)
    assert judged(bead, snr=1.6).kind == "bead-like"


def test_a_round_protein_is_not_bead_like() -> None:
    assert judged(gaussian_filter((RADIUS < 4).astype(float), 1)).kind == "protein"
    cage = gaussian_filter(((RADIUS < 9) & (RADIUS > 6)).astype(float), 1)
    assert judged(cage).kind == "protein"


def test_gold_that_was_aligned_by_its_missing_wedge_is_bead_like() -> None:
    """Poses that bring all wedges together leave the average of a round bead streaked, and far from round."""
    generator = torch.Generator().manual_seed(5)
    bead = gaussian_filter((RADIUS < 4).astype(float), 0.7)
    volumes = particles_of(bead, 1.6, seed=4) + 0.3 * particles_of(np.roll(bead, (9, -12), (0, 2)), 1.6, seed=5)
    moves = torch.randint(-2, 3, (len(volumes), 3), generator=generator).tolist()
    volumes = torch.stack([torch.roll(v, move, (0, 1, 2)) for v, move in zip(volumes, moves, strict=True)])
    together = torch.eye(3).expand(len(volumes), 3, 3)
    found = judged_particles(volumes, together, True, "halves agree", brightness_of_proteins())
    assert found.kind == "bead-like", found


def test_a_protein_at_the_edge_of_the_box_is_off_centre() -> None:
    blobs = gaussian_filter((RADIUS < 5).astype(float), 1)
    assert judged(blobs).kind == "protein"
    found = judged(np.roll(blobs, 8, axis=1))
    assert found.kind == "off-centre", found
    assert "25%" in found.reason


def test_a_class_that_is_not_aligned_has_no_common_structure_whatever_it_looks_like() -> None:
    found = judged(gaussian_filter((RADIUS < 8).astype(float), 1), aligned=False)
    assert found.kind == "no-common-structure"
    assert found.reason == "halves disagree"


def test_noise_in_given_poses_has_no_common_structure() -> None:
    volumes = torch.randn(40, BOX, BOX, BOX, generator=torch.Generator().manual_seed(3))
    found = judged_particles(volumes, POSES, True, "poses of the STAR", peak_of(volumes).numpy())
    assert found.kind == "no-common-structure", found
