"""States and axes of variation of aligned particles whose missing Fourier voxels are ignored, not taken as zero.

In the frame of the reference, particle ``i`` says ``F_i(k) = a_i H_i(k) V_i(k) + noise``. Divided by the noise of
its shell, all that it says is ``B = a H* F / σ²`` and ``W = a² H² / σ²``: the log-likelihood of a map ``V`` is
``Σ 2 Re(B* V) − W |V|²`` up to a constant, over half of Fourier space, and a voxel that was not measured has ``W = 0``
and says nothing. Maps are sought as differences ``D`` from the average of all, inside a mask in real space:

* states, ``V_i = V + D_j``: a mixture, whose hard form is k-means with missing data
  (``argmin_j Σ |F_i − a_i H_i V_j|² / σ²``);
* axes, ``V_i = V + Σ_q z_iq U_q`` with ``z ~ N(0, 1)``: probabilistic PCA with missing data (Tipping & Bishop 1999).

Every map is damped by the signal that its own shells show beyond noise (a Wiener filter); where they show none it
vanishes. Data and their power are interpolated, so a voxel that no particle measured – the cone about the beam, where
all lie alike – has a trace of data and no power: it would pull a map without end. There the data are taken as 0, which
is what they say.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cryodc.states.measurements import Measurements, measured_in

_SETTLED_NATS = 0.01
_N_POWER_STEPS = 12
_N_STATE_ROUNDS, _N_AXIS_ROUNDS = 50, 30


@dataclass(frozen=True)
class StateModel:
    """Maps of states as differences from the average, ``(k, p)``, and the share of particles in each, ``(k,)``."""

    maps: Complex[Tensor, "k p"]
    shares: Float[Tensor, " k"]

    def posterior(self, particles: Measurements) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
        """Probability of each state, and log-likelihood of each particle under the mixture."""
        joint = particles.log_likelihoods(self.maps) + self.shares.clamp_min(1e-12).log()
        total = joint.logsumexp(dim=1)
        return (joint - total[:, None]).exp(), total


@dataclass(frozen=True)
class AxisModel:
    """Principal axes as differences from the average, ``(q, p)``, one standard deviation each, largest first."""

    maps: Complex[Tensor, "q p"]

    def posterior(
        self, particles: Measurements
    ) -> tuple[Float[Tensor, "n q"], Float[Tensor, "n q q"], Float[Tensor, " n"]]:
        """Mean and covariance of each particle's coordinates, and its marginal log-likelihood."""
        q = len(self.maps)
        pairs = (self.maps[:, None] * self.maps.conj()[None]).real.flatten(0, 1)
        fitted, overlaps = particles.projections(self.maps, pairs)
        projected = 2 * fitted
        precision = torch.eye(q, device=projected.device) + 2 * overlaps.reshape(-1, q, q)
        covariance = torch.linalg.inv(precision)
        mean = (covariance @ projected[..., None])[..., 0]
        marginal = 0.5 * (projected * mean).sum(dim=1) - 0.5 * torch.linalg.slogdet(precision).logabsdet
        return mean, covariance, marginal


def weighted_map(
    data: Complex[Tensor, "k p"], power: Float[Tensor, "k p"], particles: Measurements
) -> Complex[Tensor, "k p"]:
    """``Σ B / (Σ W + r)`` inside the mask, with ``r`` the inverse of the signal its own shells show beyond noise.

    Voxels that were not measured take what the mask lets in from those around them.

    Parameters
    ----------
    data, power
        Weighted sums of ``B`` and ``W``: one row per map.
    particles
        Whose ball and mask are meant.
    """
    ball = particles.ball
    data = torch.where(measured_in(power, ball), data, 0)
    mean = ball.shell_mean(power)[:, ball.shells].clamp_min(1e-12)
    filled = float(particles.mask.square().mean())
    gain = power / (power + 0.1 * mean)
    seen = ball.shell_mean(particles.masked(data / (power + 0.1 * mean)).abs().square())
    noise = filled * ball.shell_mean(gain * gain / power.clamp_min(1e-12))
    signal = ((seen - noise) / ball.shell_mean(gain * gain).clamp_min(1e-12))[:, ball.shells]
    damping = torch.minimum(filled / signal.clamp_min(1e-30), 1e3 * mean)
    return particles.masked(data / (power + damping))


def fit_states(particles: Measurements, memberships: Float[Tensor, "n k"]) -> tuple[StateModel, float]:
    """Fit states by expectation maximisation, from memberships to start with.

    Rounds end when the log-likelihood rests.

    Parameters
    ----------
    particles, memberships
        Relative to their average; ``(n, k)``: probability of each state, or 0 and 1.

    Returns
    -------
    The model and its mean log-likelihood per particle, in nats.
    """
    previous = -math.inf
    for _ in range(_N_STATE_ROUNDS):
        model = states_of(particles, memberships)
        memberships, likelihood = model.posterior(particles)
        mean = float(likelihood.mean())
        if abs(mean - previous) < _SETTLED_NATS:
            break
        previous = mean
    return model, mean


def states_of(particles: Measurements, memberships: Float[Tensor, "n k"]) -> StateModel:
    """The states that particles of these memberships average to."""
    return StateModel(weighted_map(*particles.sums(memberships, memberships), particles), memberships.mean(dim=0))


def average_of(particles: Measurements) -> Complex[Tensor, " p"]:
    """The average of all."""
    return states_of(particles, torch.ones(len(particles), 1, device=particles.device)).maps[0]


def fit_axes(particles: Measurements, n_axes: int, generator: torch.Generator) -> tuple[AxisModel, float]:
    """Fit principal axes: power iteration from random coordinates, then expectation maximisation.

    Parameters
    ----------
    particles
        Relative to their average.
    generator
        Of the start.
    n_axes
        At most ``n − 1``.

    Returns
    -------
    The model and its mean marginal log-likelihood per particle, in nats.
    """
    coordinates = torch.randn(len(particles), n_axes, generator=generator).to(particles.device)
    for _ in range(_N_POWER_STEPS):
        maps = _power_step(particles, _uncorrelated(coordinates))
        model = AxisModel(maps)
        coordinates = model.posterior(particles)[0]
    previous = -math.inf
    for _ in range(_N_AXIS_ROUNDS):
        mean, covariance, likelihood = model.posterior(particles)
        total = float(likelihood.mean())
        if abs(total - previous) < _SETTLED_NATS:
            break
        previous = total
        model = _axis_step(particles, model, mean, covariance)
    model = _ordered(model)
    return model, float(model.posterior(particles)[2].mean())


def _uncorrelated(coordinates: Tensor) -> Tensor:
    """Coordinates of mean 0, variance 1 and no correlation."""
    centred = coordinates - coordinates.mean(dim=0)
    return torch.linalg.qr(centred).Q * math.sqrt(len(centred))


def _power_step(particles: Measurements, coordinates: Tensor) -> Tensor:
    data, power = particles.sums(coordinates, coordinates.square())
    mean = particles.ball.shell_mean(power)[:, particles.ball.shells]
    return particles.masked(data / (power + 0.5 * mean.clamp_min(1e-12)))


def _axis_step(particles: Measurements, model: AxisModel, mean: Tensor, covariance: Tensor) -> AxisModel:
    """Each axis in turn, the others fixed."""
    second = covariance + mean[:, :, None] * mean[:, None, :]
    maps = model.maps.clone()
    sums, of_pairs = particles.sums(mean, second.flatten(1))
    for q, powers in enumerate(of_pairs.reshape(len(maps), *maps.shape)):
        others = (powers * maps).sum(dim=0) - powers[q] * maps[q]
        maps[q] = weighted_map((sums[q] - others)[None], powers[q][None], particles)[0]
    return AxisModel(maps)


def _ordered(model: AxisModel) -> AxisModel:
    """The same model with axes at right angles, the longest first, each with its largest voxel positive in phase."""
    stacked = torch.cat([model.maps.real, model.maps.imag], dim=1)
    _, lengths, right = torch.linalg.svd(stacked, full_matrices=False)
    axes = right * lengths[:, None]
    n = model.maps.shape[1]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = axes * largest.sign()
    return AxisModel(torch.complex(axes[:, :n].contiguous(), axes[:, n:].contiguous()))
