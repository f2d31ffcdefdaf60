"""Particles of one class as spectra: averages in given poses, and poses against a given reference."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cryodc.alignment.search import PoseSet, climb, search_grid, search_poses, shared_noise, shared_poses
from cryodc.device import as_the_leader, share, sum_over_team
from cryodc.fourier import (
    FourierBall,
    NoiseModel,
    Particles,
    ParticleSpectra,
    backproject_particles,
    ball_spectra,
    ball_weights,
    fine_gradient,
    fine_spectrum,
    fourier_ball,
    fourier_shell_correlation,
    mean_weights,
    noise_of_residuals,
    predict,
    soft_sphere,
    sums_in_ball,
    volume_from_ball,
)
from cryodc.geometry import symmetrise

_REFINED_AT_ONCE = 400_000
"""Fourier values of particles that are refined at once."""
_VALUES_AT_ONCE = 300_000
"""Fourier values that are held at once in the poses of their particles."""
_SCORES_AT_ONCE = 20_000_000 // 2048
"""Pairs of a particle and a shift that are compared with 2,048 rotations at once."""


class SpectraSource:
    """Spectra of particles in a ball, a few at a time.

    All are held if the particles' ``memory_bytes`` allow. Else they are made whenever they are looked at. Both ways
    give the same numbers.

    Parameters
    ----------
    particles
        In real space.
    ball
        Where their spectra are sampled.
    """

    def __init__(self, particles: Particles, ball: FourierBall) -> None:
        self.ball, self._particles = ball, particles
        n_bytes = len(ball) * (8 * len(particles) + 4 * len(torch.unique(particles.weight_index)))
        self._held = self._made(particles) if n_bytes <= particles.memory_bytes else None

    def __len__(self) -> int:
        return len(self._particles)

    def select(self, rows: Int[Tensor, " b"] | slice) -> ParticleSpectra:
        """Spectra of these particles, with their distinct weights."""
        if self._held is None:
            return self._made(self._particles.select(rows))
        distinct, own = torch.unique(self._held.weight_index[rows], return_inverse=True)
        return ParticleSpectra(self.ball, self._held.spectra[rows], self._held.weights[distinct], own)

    def _made(self, particles: Particles) -> ParticleSpectra:
        device = particles.device
        distinct, own = torch.unique(particles.weight_index.to(device), return_inverse=True)
        # Filled, not joined: the pieces and the whole together would need twice as much.
        spectra = torch.empty(len(particles), len(self.ball), dtype=torch.complex64, device=device)
        weights = torch.empty(len(distinct), len(self.ball), device=device)
        for rows, part in particles.batches(particles.n_at_once):
            spectra[rows] = ball_spectra(part.volumes, self.ball)
            used, first = np.unique(part.weight_index.cpu().numpy(), return_index=True)
            weights[own[rows][first]] = ball_weights(part.weights[used], self.ball)
        return ParticleSpectra(self.ball, spectra, weights, own)


class ClassSpectra:
    """Particles of a class, their noise, averages of them in given poses, and poses on a reference.

    All of it looks at a few particles at a time. Results do not depend on whether spectra are held.

    Parameters
    ----------
    stack
        The particles.
    radius
        Shells that are ever looked at.
    mask
        ``(d, h, w)`` that references are multiplied by; by default the sphere that fits the box.
    symmetry
        Point group of references, whose axes lie where :func:`cryodc.geometry.symmetry_rotations` has them:
        averages are taken over its mates, and of mates only one is searched.
    """

    def __init__(self, stack: Particles, radius: float, mask: Tensor | None = None, symmetry: str = "C1") -> None:
        self.box_size = stack.box_size
        # One shell more than is looked at: averages need what lies just beyond their outermost shell.
        self.wider = SpectraSource(stack, fourier_ball(self.box_size, radius + 1, stack.device))
        self.ball = self.wider.ball.within(radius)
        self.symmetry = symmetry
        sphere = soft_sphere(self.box_size, self.box_size / 2 - 3, 3.0, stack.device)
        self.mask = sphere if mask is None else mask
        # Mean H² per shell: what one average particle adds to the denominator.
        self.one = mean_weights(stack, self.ball)[0].clamp_min(1e-9)
        self._n_at_once = max(1, _VALUES_AT_ONCE // len(self.wider.ball))
        self._most_shift_voxels = 0.25 * self.box_size

        # Until poses are known all power counts as noise: low shells, which hold the signal, weigh less.
        def power(c: slice) -> NoiseModel:
            part = self.within(radius, c)
            return noise_of_residuals(part, part.spectra.abs().square())

        self.noise: NoiseModel = shared_noise(len(self), self._n_at_once, self.one, power)

    def __len__(self) -> int:
        return len(self.wider)

    @property
    def device(self) -> torch.device:
        """Where the particles lie."""
        return self.mask.device

    @property
    def finest(self) -> float:
        """Radius of the outermost voxels that are looked at, shells."""
        return float(self.ball.frequencies.norm(dim=1).max())

    def within(self, radius: float, rows: Tensor | slice) -> ParticleSpectra:
        """Some particles up to a radius."""
        return self.wider.select(rows).within(min(radius, self.finest))

    def whitened(self, rows: Tensor | slice, radius: float) -> ParticleSpectra:
        """Some particles up to a radius, their noise divided out."""
        return self.noise.whiten(self.within(radius, rows))

    def sums(
        self,
        rows: Tensor,
        rotations: Tensor,
        shifts: Tensor,
        radius: float,
        shares: Tensor | None = None,
        symmetric: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of an average of particles ``rows``, in the whole ball (0 beyond radius).

        Each counts as one particle, or as its share ``(n,)``; over all mates, unless not ``symmetric``.

        Parameters
        ----------
        rows
            ``(n,)`` the particles.
        rotations, shifts
            ``(n, 3, 3)`` and ``(n, 3)`` zyx in voxels: their poses.
        radius
            Shells that the sums reach to.
        shares
            ``(n,)`` by which each counts; 1 by default.
        symmetric
            Whether mates of the point group are averaged.
        """
        inside = self.ball.mask(radius)
        grid: Tensor | float = 0.0
        for c in share(len(rows), self._n_at_once):
            part = self.wider.select(rows[c]).within(radius + 1)
            grid = grid + backproject_particles(
                part.spectra,
                part.own_weights,
                part.ball,
                rotations[c],
                shifts[c],
                None if shares is None else shares[c],
            )
        if isinstance(grid, float):
            denominator = torch.zeros(len(self.ball), device=self.device)
            numerator = denominator.to(torch.complex64)
        else:
            numerator, denominator = sums_in_ball(grid, self.ball)
        sum_over_team(numerator, denominator)
        numerator, denominator = numerator * inside, denominator * inside
        if self.symmetry == "C1" or not symmetric:
            return numerator, denominator
        numerator, denominator = symmetrise(numerator, denominator, self.ball, self.symmetry)
        return numerator * inside, denominator * inside

    def volume(self, numerator: Tensor, denominator: Tensor, inverse_ssnr: Tensor) -> Tensor:
        """Wiener-filtered, masked average."""
        denominator = denominator.clamp_min(0)
        mean = self.ball.shell_mean(denominator)
        damped = denominator + (mean * inverse_ssnr + 1e-6)[self.ball.shells]
        return volume_from_ball(numerator / damped, self.ball) * self.mask

    def reference(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Wiener-filtered averages of two halves, and their FSC.

        Each map is filtered by its own signal-to-noise, ``FSC / (1 − FSC)``.
        """
        # One average particle of regularisation keeps unmeasured voxels from blowing up before the FSC is known.
        floor = [1.0 / (self.ball.shell_mean(d) / self.one).clamp_min(1e-3) for _, d in (first, second)]
        maps = [self.volume(n, d, f) for (n, d), f in zip((first, second), floor, strict=True)]
        fsc = torch.from_numpy(fourier_shell_correlation(maps[0], maps[1])).float().to(self.device)
        known = fsc.clamp(0.02, 0.98)
        inverse = (1 - known) / known
        found = self.volume(*first, inverse), self.volume(*second, inverse), fsc
        as_the_leader(*found)
        return found

    def search(
        self,
        rows: Tensor,
        reference: Tensor,
        radius: float,
        step_degrees: float,
        lattice: Tensor,
        generator: torch.Generator,
        previous: PoseSet | None = None,
        n_candidates: int = 3,
        n_steps: int = 5,
    ) -> PoseSet:
        """Best of a global grid (turned at random) and the previous pose, refined.

        Parameters
        ----------
        rows
            ``(n,)`` the particles.
        reference
            ``(d, h, w)`` map.
        radius
            Shells that are looked at.
        step_degrees
            Between rotations of the grid.
        lattice
            ``(t, 3)`` shifts that are tried, zyx in voxels, about the previous ones.
        generator
            Turns the grid.
        previous
            Poses so far; none by default.
        n_candidates, n_steps
            How many poses of the grid are refined, and steps of refinement.
        """
        grid = search_grid(step_degrees, self.symmetry, generator).to(self.device)
        fine, gradient = fine_spectrum(reference[None], radius)[0], fine_gradient(reference, radius)[None]

        def find(c: slice) -> PoseSet:
            known = None if previous is None else previous.select(c)
            candidates = (lattice, known, n_candidates, n_steps, self._most_shift_voxels)
            return search_poses(self.whitened(rows[c], radius), fine, gradient, grid, *candidates)

        return shared_poses(len(rows), max(1, _SCORES_AT_ONCE // len(lattice)), self.device, find)

    def refine(self, rows: Tensor, reference: Tensor, radius: float, pose: PoseSet, n_steps: int = 3) -> PoseSet:
        """Refine poses where they are.

        Parameters
        ----------
        rows
            ``(n,)`` the particles.
        reference
            ``(d, h, w)`` map.
        radius
            Shells that are looked at.
        pose
            Where to start.
        n_steps
            Steps uphill; 0 only scores.
        """
        gradient, kept = fine_gradient(reference, radius)[None], pose.kept
        n_voxels = int(self.ball.mask(radius).sum())

        def find(c: slice) -> PoseSet:
            part = self.whitened(rows[c], radius)
            return climb(part, gradient, pose.select(c), n_steps, self._most_shift_voxels)

        found = shared_poses(len(rows), max(1, _REFINED_AT_ONCE // n_voxels), self.device, find)
        return replace(found, kept=kept)

    def estimate_noise(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> None:
        """Set the noise to what the reference, at its best scale, leaves unexplained."""
        self.noise = self.unexplained(rows, reference, pose)

    def unexplained(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> NoiseModel:
        """The noise that the reference, at its best scale for each particle, leaves."""
        fine = fine_spectrum(reference[None])[0]

        def left(c: slice) -> NoiseModel:
            part = self.within(self.finest, rows[c])
            model = predict(fine, part.ball, part.own_weights, pose.rotations[c], pose.shifts[c])
            scale = (part.spectra * model.conj()).real.sum(dim=1) / model.abs().square().sum(dim=1).clamp_min(1e-20)
            rest = (part.spectra - scale[:, None] * model).abs().square()
            return noise_of_residuals(part, rest)

        return shared_noise(len(rows), self._n_at_once, self.one, left)
