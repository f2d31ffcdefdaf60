"""The forward model, which predicts particles from a map, and its adjoint, which sums particles into a map.

A particle with pose ``(A, o)``, ``particle(x) = map(Aᵀ (x + o))``, and weight ``H`` has the spectrum

``F(k) = H(k) · exp(2πi k·o / N) · V(Aᵀ k)``

where ``V`` is the spectrum of the map. A shift is a phase ramp, a rotation is a slice of ``V``. ``V`` is interpolated
linearly on a grid twice as fine as the box. Whatever predicts, scores, refines or averages particles does it with the
functions of this module, so this is where a weight meets a turned map.

Spectra are those of a :class:`FourierBall`: of volumes with the box centre (index ``N // 2``) at the phase origin, in
the units of an unscaled :func:`torch.fft.rfftn`.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cryodc.fourier.ball import FourierBall, ball_spectra
from cryodc.fourier.grid import fine_spectrum, half_edge, sample_spectrum, spread_samples, unfold_spectrum


def phase_ramps(ball: FourierBall, shifts_voxels: Float[Tensor, "*t 3"]) -> Complex[Tensor, "*t p"]:
    """``exp(2πi k·o / N)``: the factor that multiplies a spectrum if its volume moves by ``−o`` (zyx, voxels)."""
    angle = shifts_voxels @ ball.frequencies.T * (2 * math.pi / ball.box_size)
    return torch.polar(torch.ones_like(angle), angle)


def undo_shifts(
    spectra: Complex[Tensor, "n p"], ball: FourierBall, shifts_voxels: Float[Tensor, "n 3"]
) -> Complex[Tensor, "n p"]:
    """Spectra of particles moved by their shifts ``o`` (zyx, voxels), so that each lies on the map."""
    return spectra * phase_ramps(ball, shifts_voxels).conj()


def slices(
    fine: Float[Tensor, "c e e e"], ball: FourierBall, rotations: Float[Tensor, "r 3 3"]
) -> Float[Tensor, "r c p"]:
    """``V(Aᵀ k)`` for each rotation ``A``: the channels of the fine spectrum, real and imaginary part."""
    # One item for each rotation: items are what a sampler shares among cores.
    return sample_spectrum(fine.expand(len(rotations), -1, -1, -1, -1), ball.frequencies @ rotations)


def predict(
    fine: Float[Tensor, "2 e e e"],
    ball: FourierBall,
    weights: Float[Tensor, "n p"],
    rotations: Float[Tensor, "n 3 3"],
    shifts_voxels: Float[Tensor, "n 3"],
) -> Complex[Tensor, "n p"]:
    """Predict particles with these poses and weights from a map: ``H(k) exp(2πi k·o/N) V(Aᵀk)``.

    Parameters
    ----------
    fine
        The map as :func:`fine_spectrum` gives it.
    ball
        Where it is wanted.
    weights
        ``(n, p)`` weight ``H`` of each particle.
    rotations, shifts_voxels
        Pose ``(A, o)`` of each particle, zyx.
    """
    turned = slices(fine, ball, rotations)
    return torch.complex(turned[:, 0], turned[:, 1]) * (phase_ramps(ball, shifts_voxels) * weights)


def predict_with_jacobian(
    fields: Float[Tensor, "n 8 p"],
    ball: FourierBall,
    weights: Float[Tensor, "n p"],
    rotations: Float[Tensor, "n 3 3"],
) -> Float[Tensor, "n 7 2 p"]:
    """:func:`predict` before the shift, and how it changes with the pose; real and imaginary parts.

    A shift multiplies all of these by one phase ramp of modulus 1. Compare them therefore with particles whose shift
    is undone.

    Parameters
    ----------
    fields
        :func:`slices` of :func:`fine_gradient` for each particle.
    ball, weights, rotations
        As in :func:`predict`.

    Returns
    -------
    The prediction, and its derivatives by a rotation vector ``ω`` (``A ← exp(ω) A``, zyx, radians) and by a shift
    (zyx, voxels).
    """
    n, _, p = fields.shape
    found = fields.new_empty(n, 7, 2, p)
    weighted = (fields * weights[:, None]).reshape(n, 4, 2, p)
    model = found[:, 0] = weighted[:, 0]
    gradient = torch.bmm(rotations, weighted[:, 1:].flatten(2)).reshape(n, 3, 2, p)
    # −k × (A ∇V): turning the particle by ω moves the sampled frequency by −Aᵀ(ω × k). Components are zyx.
    k = ball.frequencies.T
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        torch.sub(k[i] * gradient[:, j], k[j] * gradient[:, i], out=found[:, 1 + axis])
    # i k × (re + i im) = −k im + i k re
    along = k * (2 * math.pi / ball.box_size)
    torch.mul(-along, model[:, None, 1], out=found[:, 4:, 0])
    torch.mul(along, model[:, None, 0], out=found[:, 4:, 1])
    return found


def score_poses(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "m p"],
    weight_index: Int[Tensor, " n"],
    columns: Float[Tensor, "r 2 p"],
    ball: FourierBall,
    shifts_voxels: Float[Tensor, "t 3"],
) -> Float[Tensor, "n t r"]:
    """Normalised correlation of every particle, shift and column within what the particle measured.

    ``score = Re Σ conj(F e^(−2πi k·o/N)) H S / √(Σ |H S|²)``, in units of the noise if ``F`` is whitened. Half
    its square is the log-likelihood gained over pure noise, at the best scale. A shift is a phase ramp of the
    particle's row and a rotation is a column, so all pairs are one matrix product.

    Parameters
    ----------
    spectra
        ``(n, p)`` in the ball.
    weights, weight_index
        ``(m, p)`` weights and which one each particle has: the norm is computed once for each.
    columns
        ``(r, 2, p)`` reference slices: of any references and rotations.
    ball
        Of all of these.
    shifts_voxels
        ``(t, 3)`` zyx origins ``o``.
    """
    rows = _weighted_rows(spectra, weights[weight_index], ball, shifts_voxels)
    cross = rows.flatten(0, 1).flatten(1) @ columns.flatten(1).T
    norm = slice_lengths(weights, columns).reciprocal()
    return cross.reshape(len(spectra), len(shifts_voxels), -1) * norm[weight_index][:, None]


def score_chosen(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "m p"],
    weight_index: Int[Tensor, " n"],
    columns: Float[Tensor, "r 2 p"],
    chosen: Int[Tensor, "n q"],
    ball: FourierBall,
    shifts_voxels: Float[Tensor, "t 3"],
) -> Float[Tensor, "n t q"]:
    """:func:`score_poses` of every particle and shift with some columns only, others for each particle.

    Parameters
    ----------
    spectra, weights, weight_index, columns, ball, shifts_voxels
        As in :func:`score_poses`.
    chosen
        ``(n, q)`` which columns each particle is compared with.
    """
    # Every particle has the same shifts, so what it shares with its slices is one row of a product with all ramps.
    re, im = columns[chosen].unbind(dim=2)
    shared = (spectra * weights[weight_index]).conj()[:, None] * torch.complex(re, im)
    ramps = torch.view_as_real(phase_ramps(ball, shifts_voxels).conj().resolve_conj())
    cross = torch.view_as_real(shared).flatten(2) @ ramps.flatten(1).T
    return cross.mT / slice_lengths(weights, columns)[weight_index].gather(1, chosen)[:, None]


def slice_lengths(weights: Float[Tensor, "m p"], columns: Float[Tensor, "r 2 p"]) -> Float[Tensor, "m r"]:
    """``√(Σ |H S|²)``: the length of each slice under each weight."""
    return (weights.square() @ columns.square().sum(dim=1).T).clamp_min(1e-20).sqrt()


def backproject_particles(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "n p"],
    ball: FourierBall,
    rotations: Float[Tensor, "n 3 3"],
    shifts_voxels: Float[Tensor, "n 3"],
    shares: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "3 e e e"]:
    """Insert particles into the fine Fourier grid of a map: the adjoint of :func:`predict`, and the squared weights.

    Sums of several batches may be added up; :func:`sums_in_ball` finishes them.

    Parameters
    ----------
    spectra, weights
        ``(n, p)`` spectrum ``F`` and weight ``H`` of each particle in the ball.
    ball
        One shell wider than the sums that are wanted, so that the outermost wanted shell is complete.
    rotations, shifts_voxels
        Pose ``(A, o)`` of each particle, zyx.
    shares
        How much each particle counts; 1 by default.

    Returns
    -------
    ``Σ conj(ramp) H F`` (real, imaginary) and ``Σ H²`` at ``Aᵀ k``.
    """
    values = undo_shifts(spectra, ball, shifts_voxels) * weights
    power = weights.square()
    if shares is not None:
        values, power = values * shares[:, None], power * shares[:, None]
    channels = torch.stack([values.real, values.imag, power]).flatten(1)
    half = half_edge(ball.box_size, float(ball.frequencies.norm(dim=1).max()))
    return spread_samples(channels, (ball.frequencies @ rotations).reshape(-1, 3), half)


def sums_in_ball(
    grid: Float[Tensor, "3 e e e"], ball: FourierBall
) -> tuple[Complex[Tensor, " p"], Float[Tensor, " p"]]:
    """Numerator and denominator of the average in a ball, from the sums of :func:`backproject_particles`.

    For ``F_i = H_i · V_i + white noise``, least squares gives ``V = Σ A_i⁻¹[H_i F_i] / (Σ A_i⁻¹[H_i²] + r)``: Fourier
    voxels that no particle measured stay empty, and a missing wedge does not pull the average towards zero.
    """
    power = torch.stack([grid[2], torch.zeros_like(grid[2])])
    volumes = unfold_spectrum(torch.stack([grid[:2], power]), ball.box_size) * (2 / ball.box_size**3)
    numerator, denominator = ball_spectra(volumes, ball)
    return numerator, denominator.real


def weighted_spectra(
    volumes: Float[Tensor, "n d h w"], weights: Float[Tensor, "n d h hw"], radius_shells: float | None = None
) -> tuple[Float[Tensor, "n 2 e e e"], Float[Tensor, "n 1 e e e"]]:
    """Fine spectra of ``H F`` and of ``H²``, which :func:`turn_back` reads."""
    dims = (-3, -2, -1)
    weighted = torch.fft.irfftn(torch.fft.rfftn(volumes, dim=dims) * weights, s=volumes.shape[1:], dim=dims)
    squared = torch.fft.irfftn(weights.square() + 0j, s=volumes.shape[1:], dim=dims)
    return (
        fine_spectrum(weighted, radius_shells),
        fine_spectrum(torch.fft.fftshift(squared, dim=dims), radius_shells)[:, :1],
    )


def turn_back(
    fine: tuple[Float[Tensor, "n 2 e e e"], Float[Tensor, "n 1 e e e"]],
    ball: FourierBall,
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
) -> tuple[Complex[Tensor, "n p"], Float[Tensor, "n p"]]:
    """Each particle turned into the frame of the map: its weighted spectrum ``A⁻¹[H F]`` and its weight ``A⁻¹[H²]``.

    ``H F`` is interpolated at ``A k`` and its shift is undone there; ``H²`` is interpolated in the same way, so both
    are smoothed alike. Summed over particles this is :func:`sums_in_ball`, except that the two interpolate differently.

    Parameters
    ----------
    fine
        Particles, as :func:`weighted_spectra` gives them.
    ball
        Where the map is wanted.
    rotations, origins_voxels
        Pose ``(A, o)`` of each particle, zyx.
    """
    rotated = ball.frequencies @ rotations.transpose(1, 2)
    values = sample_spectrum(fine[0], rotated)
    power = sample_spectrum(fine[1], rotated)[:, 0].clamp_min(0)
    return torch.complex(values[:, 0], values[:, 1]) * turned_ramps(ball, rotations, origins_voxels).conj(), power


def turned_ramps(
    ball: FourierBall, rotations: Float[Tensor, "n 3 3"], origins_voxels: Float[Tensor, "n 3"]
) -> Complex[Tensor, "n p"]:
    """``exp(2πi (A k)·o / N)``: the phase ramp of a particle, at the frequencies ``k`` of the map."""
    # (A k)·o = k·(Aᵀ o)
    return phase_ramps(ball, torch.einsum("nij,ni->nj", rotations, origins_voxels))


def _weighted_rows(spectra: Tensor, weights: Tensor, ball: FourierBall, shifts_voxels: Tensor) -> Tensor:
    """``conj(H F exp(−2πi k·o / N))`` for each particle and shift, laid out so that row · column is its real part."""
    ramped = (spectra * weights)[:, None] * phase_ramps(ball, shifts_voxels).conj()
    return torch.stack([ramped.real, ramped.imag], dim=2)
