"""Alignment of one class of particles from nothing: no poses, no reference.

1. *Starts.* From one random particle each: stochastic EM over a grid of rotations × shifts. Poses are drawn from
   the posterior at a temperature that lowers the number of poses a particle is spread over; radius grows.
   The start with the best score is kept.
2. *Halves.* Its map, low-passed to ``START_RADIUS`` shells, is the only thing the two half sets share. Each is
   then aligned to its own average: global searches, then continuous refinement. The FSC between the half maps
   weights each new reference (Wiener) and sets how far in Fourier space the next round looks.
3. *Verdict.* Beyond the shared shells the halves know nothing of each other, so they agree only if there is
   something to agree on. Noise aligned to a reference agrees inside them and nowhere else.
4. *Together.* Half maps are registered, and all poses refined once more against the joint average, within the
   resolution the independent halves have shown.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.ops.correlate import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    phase_ramps,
    sample_spectrum,
    score_poses,
    shift_lattice,
    slices,
)
from cryodc.ops.filters import low_pass, soft_sphere
from cryodc.ops.fsc import fourier_shell_correlation
from cryodc.ops.reconstruct import volume_from_ball
from cryodc.ops.refine import fine_gradient, refine_poses
from cryodc.ops.rotations import random_rotations, rotation_grid
from cryodc.register import register_map
from cryodc.volumes import Volume

__all__ = ["Alignment", "align_class", "register_map"]

START_RADIUS = 5.0
"""Shells that the half sets' common start fills."""

EVIDENCE_THRESHOLD = 0.35
"""Mean FSC of independently aligned halves, just beyond the shared shells, from which a class counts as aligned."""


@dataclass(frozen=True)
class Alignment:
    """Poses of the particles of one class, and what speaks for them.

    Parameters
    ----------
    rotations, origins_voxels
        ``(n, 3, 3)`` and ``(n, 3)`` zyx, as in :class:`cryodc.particles.Poses`.
    independent
        Rotations and origins before the halves were brought together: each half by itself.
    half_sets
        ``(n,)`` 1 or 2: particles of one half were aligned without the other's.
    scores
        ``(n,)`` normalised correlation with the final reference, in units of the noise.
    fsc
        Between the averages of the independently aligned halves, masked by a soft sphere.
    evidence
        Mean FSC over the three shells beyond those that the halves' start shares.
    aligned
        Whether the evidence reaches the threshold.
    """

    rotations: Float[Tensor, "n 3 3"]
    origins_voxels: Float[Tensor, "n 3"]
    independent: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]
    half_sets: Int[NDArray[np.int64], " n"]
    scores: Float[Tensor, " n"]
    fsc: Float[NDArray[np.float64], " shells"]
    evidence: float
    aligned: bool


@dataclass
class _Pose:
    rotations: Tensor
    shifts: Tensor
    scores: Tensor


class _Class:
    """Particles of a class as spectra, their noise per shell, and averages of them in given poses."""

    def __init__(self, volumes: Tensor, weights: Tensor, weight_index: Tensor, radius: float) -> None:
        self.box_size = volumes.shape[-1]
        self.ball = fourier_ball(self.box_size, radius, volumes.device)
        self.spectra: Complex[Tensor, "n p"] = ball_spectra(volumes, self.ball)
        self.weights: Float[Tensor, "m p"] = ball_weights(weights, self.ball)
        self.weight_index = weight_index
        self.mask = soft_sphere(self.box_size, self.box_size / 2 - 3, 3.0, volumes.device)
        full = torch.fft.rfftn(volumes, dim=(-3, -2, -1))
        fine = [
            fine_spectrum(
                torch.fft.irfftn(full[c] * weights[weight_index[c]], s=volumes.shape[1:], dim=(-3, -2, -1)), radius
            )
            for c in chunks(len(volumes), 8)
        ]
        self.fine: Tensor = torch.cat(fine)
        spread = torch.fft.irfftn(weights.square() + 0j, s=volumes.shape[1:], dim=(-3, -2, -1))
        spread = torch.fft.fftshift(spread, dim=(-3, -2, -1))
        self.fine_power = torch.cat([fine_spectrum(spread[c], radius)[:, :1] for c in chunks(len(spread), 8)])
        self.measured = (self.weights.abs() > 0.1 * self.weights.abs().max()).float()
        # Until poses are known all power counts as noise: low shells, which hold the signal, weigh less.
        self.noise = self.shell_mean(self.spectra.abs().square(), self.measured[weight_index])

    def __len__(self) -> int:
        return len(self.spectra)

    def shell_mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted mean over rows of each shell, ``(shells,)``."""
        n_shells = self.box_size // 2 + 1
        w = torch.ones_like(values) if weights is None else weights.expand_as(values)
        zero = torch.zeros(n_shells, device=values.device)
        rows = values.reshape(-1, len(self.ball)), w.reshape(-1, len(self.ball))
        top = zero.index_add(0, self.ball.shells, (rows[0] * rows[1]).sum(dim=0))
        return top / zero.index_add(0, self.ball.shells, rows[1].sum(dim=0)).clamp_min(1e-9)

    def sums(self, rows: Tensor, rotations: Tensor, shifts: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of an average of particles ``rows``, in the whole ball (0 beyond radius)."""
        inside = self.ball.mask(radius)
        ball = self.ball.within(radius)
        numerator = torch.zeros(len(self.ball), dtype=torch.complex64, device=self.fine.device)
        denominator = torch.zeros(len(self.ball), device=self.fine.device)
        part_numerator, part_denominator = numerator[inside], denominator[inside]
        for c in chunks(len(rows), max(1, 300_000 // len(ball))):
            rotated = ball.frequencies @ rotations[c].transpose(1, 2)
            values = sample_spectrum(self.fine[rows[c]], rotated)
            angle = torch.einsum("bpi,bi->bp", rotated, shifts[c]) * (2 * math.pi / self.box_size)
            ramp = torch.polar(torch.ones_like(angle), -angle)
            part_numerator += (torch.complex(values[:, 0], values[:, 1]) * ramp).sum(dim=0)
            which = self.weight_index[rows[c]]
            if len(self.fine_power) == 1:
                points = rotated.reshape(1, -1, 3)
                power = sample_spectrum(self.fine_power, points)[0, 0].reshape(len(which), -1)
            else:
                power = sample_spectrum(self.fine_power[which], rotated)[:, 0]
            part_denominator += power.clamp_min(0).sum(dim=0)
        numerator[inside], denominator[inside] = part_numerator, part_denominator
        return numerator, denominator

    def volume(self, numerator: Tensor, denominator: Tensor, inverse_ssnr: Tensor) -> Tensor:
        """Wiener-filtered, masked average."""
        mean = self.shell_mean(denominator[None])
        damped = denominator + (mean * inverse_ssnr + 1e-6)[self.ball.shells]
        return volume_from_ball(numerator / damped, self.ball) * self.mask

    def reference(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Wiener-filtered averages of two halves, and their FSC.

        Each map is filtered by its own signal-to-noise, ``FSC / (1 − FSC)``.
        """
        # One average particle of regularisation keeps unmeasured voxels from blowing up before the FSC is known.
        floor = [1.0 / (self.shell_mean(d[None]) / self.one).clamp_min(1e-3) for _, d in (first, second)]
        maps = [self.volume(n, d, f) for (n, d), f in zip((first, second), floor, strict=True)]
        fsc = torch.from_numpy(fourier_shell_correlation(maps[0], maps[1])).float().to(self.fine.device)
        known = fsc.clamp(0.02, 0.98)
        inverse = (1 - known) / known
        return self.volume(*first, inverse), self.volume(*second, inverse), fsc

    @property
    def one(self) -> Tensor:
        """Mean ``H²`` per shell: what one average particle adds to the denominator."""
        return self.shell_mean(self.weights.square()).clamp_min(1e-9)

    def search(
        self,
        rows: Tensor,
        reference: Tensor,
        radius: float,
        step_degrees: float,
        lattice: Tensor,
        generator: torch.Generator,
        previous: _Pose | None = None,
        n_candidates: int = 3,
        n_steps: int = 5,
    ) -> _Pose:
        """Best of a global grid (turned at random) and the previous pose, refined."""
        part, inside, whitening = self._whitened(radius)
        spectra = self.spectra[rows][:, inside] * whitening
        weights = self.weights[:, inside]
        start = torch.zeros(len(rows), 3, device=spectra.device) if previous is None else previous.shifts
        centred = spectra * phase_ramps(part, start).conj()
        grid = rotation_grid(step_degrees).to(spectra.device) @ random_rotations(1, generator)[0].to(spectra.device)
        fine = fine_spectrum(reference[None], radius)[0]
        best_scores, best_rotations, best_shifts = [], [], []
        for g in chunks(len(grid), 2048):
            columns = slices(fine, part, grid[g]) * whitening
            found = [
                score_poses(centred[c], weights, self.weight_index[rows[c]], columns, part, lattice).max(dim=1)
                for c in chunks(len(rows), max(1, 20_000_000 // (2048 * len(lattice))))
            ]
            score = torch.cat([f.values for f in found])
            where = torch.cat([f.indices for f in found])
            top = score.topk(min(n_candidates, score.shape[1]), dim=1)
            best_scores.append(top.values)
            best_rotations.append(grid[g][top.indices])
            best_shifts.append(lattice[torch.gather(where, 1, top.indices)] + start[:, None])
        score, rotations, shifts = (torch.cat(x, dim=1) for x in (best_scores, best_rotations, best_shifts))
        keep = score.topk(n_candidates, dim=1).indices
        rotations = torch.gather(rotations, 1, keep[:, :, None, None].expand(-1, -1, 3, 3))
        shifts = torch.gather(shifts, 1, keep[:, :, None].expand(-1, -1, 3))
        if previous is not None:
            rotations = torch.cat([rotations, previous.rotations[:, None]], dim=1)
            shifts = torch.cat([shifts, previous.shifts[:, None]], dim=1)
        return self._refine(rows, reference, radius, rotations, shifts, n_steps)

    def refine(self, rows: Tensor, reference: Tensor, radius: float, pose: _Pose, n_steps: int = 5) -> _Pose:
        """Refine poses where they are."""
        return self._refine(rows, reference, radius, pose.rotations[:, None], pose.shifts[:, None], n_steps)

    def estimate_noise(self, rows: Tensor, reference: Tensor, pose: _Pose) -> None:
        """Set the noise of each shell to what the reference, at its best scale, leaves unexplained."""
        fine = fine_spectrum(reference[None])
        total = []
        for c in chunks(len(rows), max(1, 300_000 // len(self.ball))):
            points = (self.ball.frequencies @ pose.rotations[c]).reshape(1, -1, 3)
            values = sample_spectrum(fine, points)[0].reshape(2, -1, len(self.ball))
            weights = self.weights[self.weight_index[rows[c]]]
            model = torch.complex(values[0], values[1]) * weights * phase_ramps(self.ball, pose.shifts[c])
            spectra = self.spectra[rows[c]]
            scale = (spectra * model.conj()).real.sum(dim=1) / model.abs().square().sum(dim=1).clamp_min(1e-20)
            rest = (spectra - scale[:, None] * model).abs().square()
            total.append(self.shell_mean(rest, self.measured[self.weight_index[rows[c]]]) * len(spectra))
        self.noise = torch.stack(total).sum(dim=0) / len(rows)

    def _whitened(self, radius: float) -> tuple[FourierBall, Tensor, Tensor]:
        part, inside = self.ball.within(radius), self.ball.mask(radius)
        return part, inside, self.noise.clamp_min(1e-12).rsqrt()[part.shells]

    def _refine(
        self, rows: Tensor, reference: Tensor, radius: float, rotations: Tensor, shifts: Tensor, n_steps: int
    ) -> _Pose:
        """Refine ``(n, k)`` candidates and keep the best of each particle."""
        part, inside, whitening = self._whitened(radius)
        n, k = rotations.shape[:2]
        turned, moved, scores = refine_poses(
            (self.spectra[rows][:, inside] * whitening).repeat_interleave(k, dim=0),
            self.weights[:, inside] * whitening,
            self.weight_index[rows].repeat_interleave(k),
            fine_gradient(reference, radius)[None],
            torch.zeros(n * k, dtype=torch.long, device=rows.device),
            part,
            rotations.flatten(0, 1),
            shifts.flatten(0, 1),
            n_steps,
            max_shift_voxels=0.25 * self.box_size,
        )
        best = scores.reshape(n, k).argmax(dim=1) + k * torch.arange(n, device=rows.device)
        return _Pose(turned[best], moved[best], scores[best])


def balanced_halves(n_particles: int, seed: int) -> Int[NDArray[np.int64], " n"]:
    """1 or 2 for each particle, at random, as many of each as can be."""
    order = torch.randperm(n_particles, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.where(order % 2 == 0, 1, 2).astype(np.int64)


@torch.no_grad()
def align_class(
    volumes: Float[Tensor, "n d h w"],
    weights: Float[Tensor, "m d h hw"],
    weight_index: Int[Tensor, " n"],
    *,
    seed: int = 0,
    n_starts: int = 4,
    half_sets: Int[NDArray[np.int64], " n"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Alignment:
    """Align the particles of one class from scratch.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)``, standardised; at least 4.
    weights, weight_index
        ``(m, d, h, w // 2 + 1)`` transfers, and which of them each particle has.
    seed
        Same seed, same result.
    n_starts
        Random starts, of which the best is kept.
    half_sets
        ``(n,)`` 1 or 2, or None for a random split.
    progress
        Told what is being done.

    Raises
    ------
    ValueError
        If there are fewer than 4 particles, or a half has fewer than 2.
    """
    n, device = len(volumes), volumes.device
    if n < 4:
        raise ValueError(f"expected at least 4 particles to align, found {n}")
    generator = torch.Generator().manual_seed(seed)
    if half_sets is None:
        half_sets = balanced_halves(n, seed)
    halves = [torch.from_numpy(np.flatnonzero(half_sets == h)).to(device) for h in (1, 2)]
    if min(len(h) for h in halves) < 2:
        raise ValueError(f"expected at least 2 particles in each half, found {[len(h) for h in halves]}")
    finest = 0.8 * (volumes.shape[-1] // 2)
    # Neighbours and noise outside the sphere that every rotation keeps only mislead.
    sphere = soft_sphere(volumes.shape[-1], 0.375 * volumes.shape[-1], 3.0, device)
    particles = _Class(volumes * sphere, weights, weight_index, finest)
    everyone = torch.arange(n, device=device)

    def tell(text: str) -> None:
        if progress is not None:
            progress(text)

    starts = []
    for s in range(n_starts):
        starts.append(_start(particles, generator))
        tell(f"start {s + 1} of {n_starts}: score {starts[-1][1]:.2f}")
    reference = max(starts, key=lambda start: start[1])[0]
    reference = _centred(reference) * particles.mask

    # One global search of everybody at low resolution, then halves that never meet again.
    lattice = shift_lattice(2.6, 1.5, device)
    common = low_pass(reference, START_RADIUS - 1.0, 1.0)
    radius = START_RADIUS
    references = [common, common]
    poses: list[_Pose | None] = [None, None]
    fsc = torch.zeros(1)
    plan = [16.0, 14.0, 14.0, 12.0, None, None, None, None]
    for i, step in enumerate(plan):
        sums = []
        for h, rows in enumerate(halves):
            before = poses[h]
            if step is not None or before is None:
                pose = particles.search(rows, references[h], radius, step or 14.0, lattice, generator, before)
            else:
                pose = particles.refine(rows, references[h], radius, before)
            poses[h] = pose
            sums.append(particles.sums(rows, pose.rotations, pose.shifts, finest))
        first, second, fsc = particles.reference(sums[0], sums[1])
        references = [first, second]
        joined = _join(particles, halves, poses, everyone)
        particles.estimate_noise(everyone, 0.5 * (first + second), joined)
        good = _good_shells(fsc)
        radius = float(min(finest, max(START_RADIUS, good + 2.0), START_RADIUS + 1.0 + 1.5 * i))
        tell(f"round {i + 1} of {len(plan)}: halves agree to shell {good}")

    return _finish(particles, halves, poses, references, sums, half_sets, finest)


def _finish(
    particles: _Class,
    halves: list[Tensor],
    poses: list[_Pose | None],
    references: list[Tensor],
    sums: list[tuple[Tensor, Tensor]],
    half_sets: NDArray[np.int64],
    finest: float,
) -> Alignment:
    everyone = torch.arange(len(particles), device=particles.fine.device)
    # The halves may have drifted apart: register the second on the first, and turn its poses along.
    first, second = (Volume(r.cpu().numpy(), 1.0) for r in references)
    turn, move, _ = register_map(second, first)
    other = poses[1]
    assert other is not None
    rotation = torch.from_numpy(turn).float().to(other.rotations.device)
    shift = torch.from_numpy(move).float().to(other.rotations.device)
    poses[1] = _Pose(other.rotations @ rotation, other.shifts - other.rotations @ shift, other.scores)
    sums = [
        particles.sums(rows, pose.rotations, pose.shifts, finest)
        for rows, pose in zip(halves, poses, strict=True)
        if pose is not None
    ]
    fsc = particles.reference(sums[0], sums[1])[2]
    beyond = fsc[int(START_RADIUS) + 1 : int(START_RADIUS) + 4]
    evidence = float(beyond.mean())
    joined = _join(particles, halves, poses, everyone)
    independent = (joined.rotations, joined.shifts)
    radius = float(min(finest, max(START_RADIUS, _good_shells(fsc) + 1.0)))
    for _ in range(2):
        total = particles.sums(everyone, joined.rotations, joined.shifts, finest)
        known = fsc.clamp(0.02, 0.98)
        reference = particles.volume(*total, (1 - known) / (2 * known))
        joined = particles.refine(everyone, reference, radius, joined)
    return Alignment(
        joined.rotations,
        joined.shifts,
        independent,
        half_sets,
        joined.scores,
        fsc.double().cpu().numpy(),
        evidence,
        evidence >= EVIDENCE_THRESHOLD,
    )


def _start(particles: _Class, generator: torch.Generator, n_most: int = 60) -> tuple[Tensor, float]:
    """One random start on at most ``n_most`` particles: its map and its score."""
    device = particles.fine.device
    rows = torch.randperm(len(particles), generator=generator)[:n_most].to(device)
    eye = torch.eye(3, device=device)[None]
    seed_particle = particles.sums(rows[:1], eye, torch.zeros(1, 3, device=device), 4.0)
    reference = particles.volume(*seed_particle, torch.full_like(particles.one, 0.5))
    lattice = shift_lattice(1.8, 1.8, device)
    # Radius, grid step, poses a particle is spread over.
    for radius, step, spread in ((4.0, 25.0, 100.0), (4.0, 25.0, 60.0), (4.0, 22.0, 30.0), (5.0, 20.0, 12.0)):
        drawn = _draw(particles, rows, reference, radius, step, spread, lattice, generator)
        parts = [particles.sums(rows[k].repeat_interleave(8), *_flat(drawn, k), radius) for k in _split(len(rows))]
        first, second, _ = particles.reference(parts[0], parts[1])
        reference = 0.5 * (first + second)
    pose: _Pose | None = None
    for _ in range(2):
        pose = particles.search(rows, reference, 6.0, 18.0, lattice, generator, pose, n_candidates=2, n_steps=4)
        parts = [particles.sums(rows[k], pose.rotations[k], pose.shifts[k], 6.0) for k in _split(len(rows))]
        first, second, _ = particles.reference(parts[0], parts[1])
        reference = 0.5 * (first + second)
    assert pose is not None
    return reference, float(pose.scores.square().mean().sqrt())


def _draw(
    particles: _Class,
    rows: Tensor,
    reference: Tensor,
    radius: float,
    step_degrees: float,
    spread: float,
    lattice: Tensor,
    generator: torch.Generator,
    n_draws: int = 8,
) -> tuple[Tensor, Tensor]:
    """Poses drawn from each particle's posterior: rotations ``(n, draws, 3, 3)`` and shifts ``(n, draws, 3)``."""
    part, inside, whitening = particles._whitened(radius)
    grid = rotation_grid(step_degrees) @ random_rotations(1, generator)[0]
    grid = grid.to(rows.device)
    columns = slices(fine_spectrum(reference[None], radius)[0], part, grid) * whitening
    scores = score_poses(
        particles.spectra[rows][:, inside] * whitening,
        particles.weights[:, inside],
        particles.weight_index[rows],
        columns,
        part,
        lattice,
    )
    likelihood = 0.5 * scores.clamp_min(0).square().flatten(1)
    temperature = _temperature(likelihood[:: max(1, len(rows) // 12)], spread)
    posterior = torch.softmax(likelihood / temperature, dim=1)
    picked = torch.multinomial(posterior.cpu(), n_draws, replacement=True, generator=generator).to(rows.device)
    return grid[picked % len(grid)], lattice[picked // len(grid)]


def _temperature(likelihood: Tensor, spread: float) -> float:
    """The temperature at which posteriors have, on average, the entropy of ``spread`` equal poses."""
    low, high = 1e-3, 1e4
    relative = likelihood - likelihood.max(dim=1, keepdim=True).values
    for _ in range(18):
        middle = math.sqrt(low * high)
        p = torch.softmax(relative / middle, dim=1)
        entropy = float(-(p * (p + 1e-30).log()).sum(dim=1).mean())
        low, high = (low, middle) if entropy > math.log(spread) else (middle, high)
    return math.sqrt(low * high)


def _flat(drawn: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return drawn[0][rows].flatten(0, 1), drawn[1][rows].flatten(0, 1)


def _split(n: int) -> tuple[Tensor, Tensor]:
    return torch.arange(0, n, 2), torch.arange(1, n, 2)


def _join(particles: _Class, halves: list[Tensor], poses: list[_Pose | None], everyone: Tensor) -> _Pose:
    joined = _Pose(
        torch.zeros(len(everyone), 3, 3, device=everyone.device),
        torch.zeros(len(everyone), 3, device=everyone.device),
        torch.zeros(len(everyone), device=everyone.device),
    )
    for rows, pose in zip(halves, poses, strict=True):
        assert pose is not None
        joined.rotations[rows], joined.shifts[rows], joined.scores[rows] = pose.rotations, pose.shifts, pose.scores
    return joined


def _good_shells(fsc: Tensor, threshold: float = 0.143) -> int:
    """Shells before the FSC first falls below the threshold."""
    below = torch.nonzero(fsc[1:] < threshold)[:, 0]
    return int(below[0]) if len(below) else len(fsc) - 1


def _centred(volume: Tensor) -> Tensor:
    """The volume, its dense part moved to the centre by whole voxels."""
    n = volume.shape[-1]
    dense = (volume - 0.3 * volume.max()).clamp_min(0)
    axis = torch.arange(n, device=volume.device) - n // 2
    total = dense.sum().clamp_min(1e-12)
    shift = [round(float((dense.sum(dim=tuple(d for d in range(3) if d != a)) * axis).sum() / total)) for a in range(3)]
    return torch.roll(volume, [-s for s in shift], (0, 1, 2))
