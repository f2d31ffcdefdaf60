"""Choose the right mate of each pose, if poses are known only up to a point group that the map nearly has.

A closed spike has C3, one with an RBD up has not; a search for poses takes any of three for it. With the axes in place,
a particle in the mate ``A g`` of its pose ``A`` says of a map ``D(x)`` what it says in ``A`` of ``D(gᵀ x)``: mates are
rotations of a map, and no particle is looked at again. States and mates are one mixture,

``Σ_j Σ_g share_j / |G| · exp(log-likelihood of D_j(gᵀ x))``,

fitted by expectation maximisation, as RELION's ``--relax_sym`` does in its search for poses.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cryodc.fourier import FourierBall, fine_spectrum, slices, volume_from_ball
from cryodc.geometry import symmetrise
from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import weighted_map

_SETTLED_NATS = 0.01
_N_ROUNDS = 60


def turned_maps(
    maps: Complex[Tensor, "k p"], group: Float[Tensor, "g 3 3"], ball: FourierBall
) -> Complex[Tensor, "k g p"]:
    """``D(gᵀ x)`` of each map and rotation."""
    parts = [slices(fine_spectrum(volume_from_ball(values, ball)[None])[0], ball, group) for values in maps]
    sampled = torch.stack(parts)
    return torch.complex(sampled[:, :, 0].contiguous(), sampled[:, :, 1].contiguous())


def off_symmetric(
    particles: Measurements, average: Complex[Tensor, " p"], symmetry: str
) -> tuple[Measurements, Complex[Tensor, " p"]]:
    """Measure how each particle differs from the average over all mates of ``average``; return this and that average.

    Parameters
    ----------
    particles
        Relative to ``average``, whose axes are in place.
    average
        Of their ball.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.
    """
    ones = torch.ones_like(average.real)
    total, count = symmetrise(average, ones, particles.ball, symmetry)
    # Both sums are interpolated alike, so what that costs at the finest shell cancels.
    symmetric = total / count.clamp_min(0.5)
    return particles.relative_to(symmetric - average), symmetric


def fit_mates(
    particles: Measurements, memberships: Float[Tensor, "n k g"], group: Float[Tensor, "g 3 3"]
) -> tuple[Complex[Tensor, "k p"], Float[Tensor, "n k g"], float]:
    """Fit states whose particles may each lie in any mate of their pose, by expectation maximisation.

    Rounds end when the log-likelihood rests.

    Parameters
    ----------
    particles
        Relative to a map that has the symmetry (:func:`off_symmetric`).
    memberships
        ``(n, k, g)``: probability of each state and mate to start with.
    group
        The point group, its axes in place.

    Returns
    -------
    Maps of the states, the probability of each state and mate, and the mean log-likelihood per particle, in nats.
    """
    previous = -math.inf
    for _ in range(_N_ROUNDS):
        maps = _maps_of(particles, memberships, group)
        shares = memberships.sum(dim=2).mean(dim=0)
        memberships, likelihood = mate_posterior(particles, maps, shares, group)
        if abs(likelihood - previous) < _SETTLED_NATS:
            break
        previous = likelihood
    return maps, memberships, likelihood


def mate_posterior(
    particles: Measurements, maps: Complex[Tensor, "k p"], shares: Float[Tensor, " k"], group: Float[Tensor, "g 3 3"]
) -> tuple[Float[Tensor, "n k g"], float]:
    """Probability of each state and mate of each particle, and the mean log-likelihood, in nats.

    Parameters
    ----------
    particles
        Measurements of the class.
    maps
        ``(s, p)`` models.
    shares
        ``(s,)`` of the models.
    group
        ``(g, 3, 3)`` mates.
    """
    turned = turned_maps(maps, group, particles.ball)
    joint = particles.log_likelihoods(turned.flatten(0, 1)).reshape(len(particles), *turned.shape[:2])
    joint = joint + (shares.clamp_min(1e-12) / len(group)).log()[:, None]
    total = joint.flatten(1).logsumexp(dim=1)
    return (joint - total[:, None, None]).exp(), float(total.mean())


def _maps_of(particles: Measurements, memberships: Tensor, group: Tensor) -> Complex[Tensor, "k p"]:
    """The states that particles of these memberships average to, every mate turned back."""
    shape = (*memberships.shape[1:], len(particles.ball))
    flat = memberships.flatten(1)
    sums, powers = (total.reshape(shape) for total in particles.sums(flat, flat))
    back = group.transpose(1, 2)
    data, power = (
        torch.stack([_back(values, back, particles.ball) for values in parts])
        for parts in (sums, powers.to(sums.dtype))
    )
    return weighted_map(data, power.real.clamp_min(0), particles)


def _back(values: Complex[Tensor, "g p"], back: Tensor, ball: FourierBall) -> Complex[Tensor, " p"]:
    """The sum of ``X_g(g k)`` over a group."""
    return torch.stack([turned_maps(v[None], b[None], ball)[0, 0] for v, b in zip(values, back, strict=True)]).sum(0)
