"""A trial: a few particles made as a set was recorded, compared with templates as so many particles would give."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.alignment import ClassSpectra, PoseSet
from cryodc.dataset import ParticleReader
from cryodc.fourier import (
    NoiseModel,
    ParticleStack,
    agreeing_shells,
    ball_spectra,
    chunks,
    crop_weights,
    fine_spectrum,
    predict,
    shift_lattice,
    volume_from_ball,
)
from cryodc.planning.like import LikeRequest, Maker
from cryodc.planning.recorded import Recorded

_SEARCHED_SHELLS, _FEWEST_SHELLS, _FINEST = 8.0, 6.0, 0.8
_STEP_DEGREES = 18.0
_ROUNDS = 2
_NO_NOISE = 1e-6


@dataclass(frozen=True)
class TrialResult:
    """What became of the particles with templates of one number of particles.

    Parameters
    ----------
    scores
        ``(p, k)`` of each particle against each template, in units of the noise.
    kept
        ``(k, s)`` share of the amplitude of each map that survives wrong poses and wrong classes, by shell.
    """

    scores: Float[Tensor, "p k"]
    kept: Float[Tensor, "k s"]


class Trial:
    """Particles whose noise has variance 1 in every Fourier voxel, with the pose and the map that each was made of.

    Parameters
    ----------
    recorded
        What was measured, at the box and spacing of the trial.
    n_each
        Particles of each map.
    seed
        Of the particles, the search, and the noise of templates.

    Attributes
    ----------
    labels
        ``(p,)`` which map each particle is of.
    maps
        ``(k, d, h, w)`` of variance 1.

    Raises
    ------
    InputError
        If the SNR cannot be told from 0, or a weight cannot be read.
    """

    def __init__(self, recorded: Recorded, n_each: int, seed: int) -> None:
        maker = Maker(recorded, LikeRequest(n_each * len(recorded.specimens), seed=seed))
        self.maps, self._seed = maker.maps, seed
        self.labels: Int[Tensor, " p"] = torch.from_numpy(maker.truth.labels)
        self._true = PoseSet(
            torch.from_numpy(maker.truth.poses.rotations).float(),
            torch.from_numpy(maker.truth.poses.origins_angstrom / recorded.spacing_angstrom).float(),
            torch.zeros(len(maker.truth)),
        )
        box = recorded.box_size
        self._particles = ClassSpectra(_stack(recorded, maker), box / 2 - 1.5)
        self._particles.noise = NoiseModel(torch.ones(box // 2 + 1))
        self._spectra = ball_spectra(self.maps, self._particles.ball)

    def signal(self) -> Float[Tensor, "k s"]:
        """What one particle adds to the signal-to-noise ratio of an average of each map, by shell, in its true pose."""
        return self._particles.ball.shell_mean(self._spectra.abs().square()) * self._particles.one

    def run(self, n_particles: float) -> TrialResult:
        """Compare every particle with every map as it would be averaged from the others.

        A template is ``f (c V + noise)``. It is of half of the particles, so its noise is ``1 / (n / 2 ⟨H²/N⟩)``; ``f``
        is the Wiener factor, and ``c`` is what wrong poses and wrong classes leave. ``c`` follows from the comparison
        itself, so this is repeated.

        Parameters
        ----------
        n_particles
            Of each map; infinity takes the maps as they are.
        """
        kept = torch.ones(len(self.maps), self._particles.box_size // 2 + 1)
        result = TrialResult(torch.zeros(len(self.labels), len(self.maps)), kept)
        for number in range(_ROUNDS if n_particles < float("inf") else 1):
            generator = torch.Generator().manual_seed(self._seed * 1009 + number)
            found = [self._match(k, n_particles, result.kept[k], generator) for k in range(len(self.maps))]
            scores = torch.stack([pose.scores for pose in found], dim=1)
            right = torch.stack(
                [(scores[self.labels == k].argmax(dim=1) == k).float().mean() for k in range(len(found))]
            )
            overlap = torch.stack([self._overlap(k, pose) for k, pose in enumerate(found)])
            result = TrialResult(scores, (overlap * right[:, None]).clamp(0, 1))
        return result

    def half_fsc(
        self, n_particles: float, kept: Float[Tensor, "k s"], within: Float[Tensor, " k"]
    ) -> Float[Tensor, "k s"]:
        """FSC that half maps of so many particles would have.

        Parameters
        ----------
        n_particles
            Of each map.
        kept
            ``(k, s)`` share of the amplitude that is left.
        within
            ``(k,)`` share of the box that the mask of each map takes: of noise no more is left.
        """
        ratio = n_particles / 2 * kept.square() * self.signal() / within[:, None]
        return ratio / (1 + ratio)

    def _match(self, k: int, n_particles: float, kept: Tensor, generator: torch.Generator) -> PoseSet:
        ball, finest = self._particles.ball, _FINEST * self._particles.box_size / 2
        template, radius = self.maps[k], finest
        if n_particles < float("inf"):
            ratio = n_particles / 2 * kept.square() * self.signal()[k]
            curve = ratio / (1 + ratio)
            noise = torch.randn(2, len(ball), generator=generator) / 2**0.5
            level = (n_particles / 2 * self._particles.one).rsqrt()[ball.shells]
            averaged = kept[ball.shells] * self._spectra[k] + torch.complex(noise[0], noise[1]) * level
            template = volume_from_ball(averaged * curve[ball.shells], ball) * self._particles.mask
            radius = min(finest, max(_FEWEST_SHELLS, agreeing_shells(curve, 0.2) + 1.0))
        rows, lattice = torch.arange(len(self.labels)), shift_lattice(2.6, 1.5)
        coarse = min(radius, _SEARCHED_SHELLS)
        pose = self._particles.search(rows, template, coarse, _STEP_DEGREES, lattice, generator)
        return self._particles.refine(rows, template, radius, pose, 4)

    def _overlap(self, k: int, pose: PoseSet) -> Float[Tensor, " s"]:
        """How alike its own particles' map is in the found and in the true poses, by shell, where they measured."""
        ball, fine = self._particles.ball, fine_spectrum(self.maps[k][None])[0]
        rows = torch.nonzero(self.labels == k)[:, 0]
        along, length = torch.zeros(len(ball)), torch.zeros(len(ball))
        for c in chunks(len(rows), 16):
            part = self._particles.within(self._particles.finest, rows[c])
            true, found = (
                predict(fine, ball, part.own_weights, each.rotations[rows[c]], each.shifts[rows[c]])
                for each in (self._true, pose)
            )
            along += (true.conj() * found).real.sum(dim=0)
            length += true.abs().square().sum(dim=0)
        return ball.shell_mean(along) / ball.shell_mean(length).clamp_min(1e-12)


def _stack(recorded: Recorded, maker: Maker) -> ParticleStack:
    """Particles and weights over the root of their noise, so ``F = H V + noise`` of variance 1; 0 where nothing is."""
    reader = ParticleReader(recorded.particles, recorded.options, recorded.box_size)
    box, n = recorded.box_size, len(maker.truth)
    volumes, weights = torch.empty(n, box, box, box), torch.empty(n, box, box, box // 2 + 1)
    for i in range(n):
        weight, _ = reader.transfer(int(maker.rows[i]))
        weight = weight if weight.shape[0] == box else crop_weights(weight, box)
        tomogram = maker.truth.tomograms[i]
        noise = recorded.noise.at(weight, tomogram).float() * box**3
        factor = torch.where(noise > _NO_NOISE * noise.mean(), noise.clamp_min(1e-20).rsqrt(), 0)
        amplitude = float(recorded.squared_amplitudes[recorded.noise.group(tomogram)]) ** 0.5
        volumes[i] = torch.fft.irfftn(maker.make(i, weight) * factor, s=(box,) * 3)
        weights[i] = weight * factor * amplitude
    return ParticleStack(volumes, weights, torch.arange(n))
