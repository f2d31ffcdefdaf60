"""Particles of one class as spectra: averages in given poses, and poses against a given reference."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.alignment.refine import refine_poses
from cryodc.fourier import (
    NoiseModel,
    ParticleSpectra,
    ParticleStack,
    backproject_particles,
    chunks,
    fine_gradient,
    fine_spectrum,
    fourier_ball,
    fourier_shell_correlation,
    mean_noise,
    noise_of_residuals,
    predict,
    score_poses,
    slices,
    soft_sphere,
    stack_spectra,
    sums_in_ball,
    undo_shifts,
    volume_from_ball,
)
from cryodc.geometry import asymmetric_unit, random_rotations, rotation_grid, symmetrise

_AS_GOOD = 0.99
_VALUES_AT_ONCE = 300_000
"""Fourier values that are held at once in the poses of their particles."""


@dataclass
class PoseSet:
    """Poses of some particles.

    Parameters
    ----------
    rotations, shifts, scores
        ``(n, 3, 3)``, ``(n, 3)`` zyx in voxels, ``(n,)``.
    kept
        Share of particles for which a search found nothing clearly better than where they were.
    """

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 3"]
    scores: Float[Tensor, " n"]
    kept: float = 0.0


class ClassSpectra:
    """Particles of a class, their noise, averages of them in given poses, and poses on a reference.

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

    def __init__(self, stack: ParticleStack, radius: float, mask: Tensor | None = None, symmetry: str = "C1") -> None:
        self.box_size = stack.box_size
        # One shell more than is looked at: averages need what lies just beyond their outermost shell.
        self.wider = stack_spectra(stack, fourier_ball(self.box_size, radius + 1, stack.device))
        self.ball = self.wider.ball.within(radius)
        self.symmetry = symmetry
        sphere = soft_sphere(self.box_size, self.box_size / 2 - 3, 3.0, stack.device)
        self.mask = sphere if mask is None else mask
        # Until poses are known all power counts as noise: low shells, which hold the signal, weigh less.
        particles = self.within(radius)
        self.noise: NoiseModel = noise_of_residuals(particles, particles.spectra.abs().square())

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

    def within(self, radius: float, rows: Tensor | None = None) -> ParticleSpectra:
        """Particles, or some of them, up to a radius."""
        particles = self.wider if rows is None else self.wider.select(rows)
        return particles.within(min(radius, self.finest))

    def whitened(self, rows: Tensor, radius: float) -> ParticleSpectra:
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
        for c in chunks(len(rows), max(1, _VALUES_AT_ONCE // len(self.wider.ball))):
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
            zeros = torch.zeros(len(self.ball), device=self.device)
            return zeros.to(torch.complex64), zeros
        numerator, denominator = sums_in_ball(grid, self.ball)
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
        return self.volume(*first, inverse), self.volume(*second, inverse), fsc

    @property
    def one(self) -> Tensor:
        """Mean ``H²`` per shell: what one average particle adds to the denominator."""
        weights = self.wider.weights[:, self.wider.ball.mask(self.finest)]
        return self.ball.shell_mean(weights.square().mean(dim=0)).clamp_min(1e-9)

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
        part = self.whitened(rows, radius)
        start = torch.zeros(len(rows), 3, device=self.device) if previous is None else previous.shifts
        centred = undo_shifts(part.spectra, part.ball, start)
        grid = rotation_grid(step_degrees) @ random_rotations(1, generator)[0]
        grid = (grid if self.symmetry == "C1" else asymmetric_unit(grid, self.symmetry)).to(self.device)
        fine = fine_spectrum(reference[None], radius)[0]
        best_scores, best_rotations, best_shifts = [], [], []
        for g in chunks(len(grid), 2048):
            columns = slices(fine, part.ball, grid[g])
            found = [
                score_poses(centred[c], part.weights, part.weight_index[c], columns, part.ball, lattice).max(dim=1)
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
        # Two steps tell which candidate will win; only that one is refined to the end.
        turned, moved, score = self._climb(rows, reference, radius, rotations, shifts, 2)
        best = score.argmax(dim=1)
        each = torch.arange(len(rows), device=rows.device)
        kept = 0.0
        if previous is not None:
            kept = float((score[:, -1] >= _AS_GOOD * score[each, best]).float().mean())
        pose = PoseSet(turned[each, best], moved[each, best], score[each, best], kept)
        return self.refine(rows, reference, radius, pose, n_steps - 2)

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
        found = self._climb(rows, reference, radius, pose.rotations[:, None], pose.shifts[:, None], n_steps)
        rotations, shifts, scores = (values[:, 0] for values in found)
        return PoseSet(rotations, shifts, scores, pose.kept)

    def estimate_noise(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> None:
        """Set the noise to what the reference, at its best scale, leaves unexplained."""
        self.noise = self.unexplained(rows, reference, pose)

    def unexplained(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> NoiseModel:
        """The noise that the reference, at its best scale for each particle, leaves."""
        fine = fine_spectrum(reference[None])[0]
        parts = []
        for c in chunks(len(rows), max(1, _VALUES_AT_ONCE // len(self.ball))):
            part = self.within(self.finest, rows[c])
            model = predict(fine, part.ball, part.own_weights, pose.rotations[c], pose.shifts[c])
            scale = (part.spectra * model.conj()).real.sum(dim=1) / model.abs().square().sum(dim=1).clamp_min(1e-20)
            rest = (part.spectra - scale[:, None] * model).abs().square()
            parts.append((noise_of_residuals(part, rest), len(part)))
        return mean_noise(parts)

    def _climb(
        self, rows: Tensor, reference: Tensor, radius: float, rotations: Tensor, shifts: Tensor, n_steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine ``(n, k)`` candidates; rotations, shifts and scores of all of them."""
        n, k = rotations.shape[:2]
        part = self.whitened(rows.repeat_interleave(k), radius)
        turned, moved, scores = refine_poses(
            part,
            fine_gradient(reference, radius)[None],
            torch.zeros(n * k, dtype=torch.long, device=rows.device),
            rotations.flatten(0, 1),
            shifts.flatten(0, 1),
            n_steps,
            max_shift_voxels=0.25 * self.box_size,
        )
        return turned.reshape(n, k, 3, 3), moved.reshape(n, k, 3), scores.reshape(n, k)
