"""Particles of one class as spectra: averages in given poses, and poses against a given reference."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cryodc.alignment.refine import fine_gradient, refine_poses
from cryodc.fourier import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    fourier_shell_correlation,
    measured_voxels,
    phase_ramps,
    sample_spectrum,
    score_poses,
    slices,
    soft_sphere,
    volume_from_ball,
)
from cryodc.geometry import asymmetric_unit, random_rotations, rotation_grid, symmetrise

_AS_GOOD = 0.99


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
    """Particles of a class, their noise per shell, averages of them in given poses, and poses on a reference.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)``.
    weights, weight_index
        ``(m, d, h, w // 2 + 1)`` transfers, and which of them each particle has, ``(n,)``.
    radius
        Shells that are ever looked at.
    mask
        ``(d, h, w)`` that references are multiplied by; by default the sphere that fits the box.
    symmetry
        Point group of references, whose axes lie where :func:`cryodc.geometry.rotations.symmetry_rotations` has them:
        averages are taken over its mates, and of mates only one is searched.
    """

    def __init__(
        self,
        volumes: Tensor,
        weights: Tensor,
        weight_index: Tensor,
        radius: float,
        mask: Tensor | None = None,
        symmetry: str = "C1",
    ) -> None:
        self.box_size = volumes.shape[-1]
        self.ball = fourier_ball(self.box_size, radius, volumes.device)
        self.spectra: Complex[Tensor, "n p"] = ball_spectra(volumes, self.ball)
        self.weights: Float[Tensor, "m p"] = ball_weights(weights, self.ball)
        self.weight_index = weight_index
        self.symmetry = symmetry
        sphere = soft_sphere(self.box_size, self.box_size / 2 - 3, 3.0, volumes.device)
        self.mask = sphere if mask is None else mask
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
        self.measured = measured_voxels(self.weights).float()
        # Until poses are known all power counts as noise: low shells, which hold the signal, weigh less.
        self.noise = self.mean_power(self.spectra.abs().square(), self.measured[weight_index])

    def __len__(self) -> int:
        return len(self.spectra)

    def mean_power(self, power: Float[Tensor, "n p"], measured: Float[Tensor, "n p"]) -> Float[Tensor, " s"]:
        """Mean over rows and over the measured voxels of each shell."""
        share = measured.mean(dim=0)
        return self.ball.shell_mean((power * measured).mean(dim=0) / share.clamp_min(1e-9), share)

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
        """
        shares = torch.ones(len(rows), device=self.fine.device) if shares is None else shares
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
            part = shares[c, None]
            part_numerator += (torch.complex(values[:, 0], values[:, 1]) * ramp * part).sum(dim=0)
            which = self.weight_index[rows[c]]
            if len(self.fine_power) == 1:
                points = rotated.reshape(1, -1, 3)
                power = sample_spectrum(self.fine_power, points)[0, 0].reshape(len(which), -1)
            else:
                power = sample_spectrum(self.fine_power[which], rotated)[:, 0]
            part_denominator += (power.clamp_min(0) * part).sum(dim=0)
        numerator[inside], denominator[inside] = part_numerator, part_denominator
        if self.symmetry == "C1" or not symmetric:
            return numerator, denominator
        numerator, denominator = symmetrise(numerator, denominator, self.ball, self.symmetry)
        return numerator * inside, denominator * inside

    def volume(self, numerator: Tensor, denominator: Tensor, inverse_ssnr: Tensor) -> Tensor:
        """Wiener-filtered, masked average."""
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
        fsc = torch.from_numpy(fourier_shell_correlation(maps[0], maps[1])).float().to(self.fine.device)
        known = fsc.clamp(0.02, 0.98)
        inverse = (1 - known) / known
        return self.volume(*first, inverse), self.volume(*second, inverse), fsc

    @property
    def one(self) -> Tensor:
        """Mean ``H²`` per shell: what one average particle adds to the denominator."""
        return self.ball.shell_mean(self.weights.square().mean(dim=0)).clamp_min(1e-9)

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
        """Best of a global grid (turned at random) and the previous pose, refined."""
        part, inside, whitening = self.whitened(radius)
        spectra = self.spectra[rows][:, inside] * whitening
        weights = self.weights[:, inside]
        start = torch.zeros(len(rows), 3, device=spectra.device) if previous is None else previous.shifts
        centred = spectra * phase_ramps(part, start).conj()
        grid = rotation_grid(step_degrees) @ random_rotations(1, generator)[0]
        grid = (grid if self.symmetry == "C1" else asymmetric_unit(grid, self.symmetry)).to(spectra.device)
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
        """Refine poses where they are."""
        found = self._climb(rows, reference, radius, pose.rotations[:, None], pose.shifts[:, None], n_steps)
        rotations, shifts, scores = (values[:, 0] for values in found)
        return PoseSet(rotations, shifts, scores, pose.kept)

    def estimate_noise(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> None:
        """Set the noise of each shell to what the reference, at its best scale, leaves unexplained."""
        self.noise = self.unexplained(rows, reference, pose)

    def unexplained(self, rows: Tensor, reference: Tensor, pose: PoseSet) -> Float[Tensor, " s"]:
        """Mean power that the reference, at its best scale for each particle, leaves in each shell."""
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
            total.append(self.mean_power(rest, self.measured[self.weight_index[rows[c]]]) * len(spectra))
        return torch.stack(total).sum(dim=0) / len(rows)

    def whitened(self, radius: float) -> tuple[FourierBall, Tensor, Tensor]:
        """The ball within a radius, its place in the whole one, and what divides the noise out."""
        part, inside = self.ball.within(radius), self.ball.mask(radius)
        return part, inside, self.noise.clamp_min(1e-12).rsqrt()[part.shells]

    def _climb(
        self, rows: Tensor, reference: Tensor, radius: float, rotations: Tensor, shifts: Tensor, n_steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine ``(n, k)`` candidates; rotations, shifts and scores of all of them."""
        part, inside, whitening = self.whitened(radius)
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
        return turned.reshape(n, k, 3, 3), moved.reshape(n, k, 3), scores.reshape(n, k)
