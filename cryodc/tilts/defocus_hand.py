"""The sign of the defocus gradient, read off premultiplied tilt images.

An image that was multiplied by its CTF is mostly noise whose power is ``N(k) CTF²``: the CTF it was multiplied by can
be seen in it. Of two hypotheses – deeper particles have more defocus, or less – the one under which the power is
better described (likelihood of exponential deviates) is right.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cryodc.fourier import TiltOptics, image_frequencies

DECISIVE = 5.0
"""Standard errors by which one sign must win."""
_FIRST_SHELL = 3
_LEAST_ENVELOPE = 0.05
_FLOOR = 0.02
_MIN_IMAGES = 30


def gradient_terms(
    images: Float[Tensor, "b t m m"],
    visible: Bool[Tensor, "b t"],
    optics: TiltOptics,
    depths_angstrom: Float[Tensor, "b t"],
    spacing_angstrom: float,
) -> Float[Tensor, "2 i shells 3"]:
    """What :func:`gradient_sign` sums, for each visible image and shell, if defocus grows (+) or falls (−) with depth.

    Parameters
    ----------
    visible
        ``(b, t)`` which images show each particle.
    optics, spacing_angstrom
        Of the tilt series, and the pixel of its images.
    images
        ``(b, t, m, m)`` premultiplied.
    depths_angstrom
        ``(b, t)`` of each particle below the centre of the tomogram, along the beam.

    Returns
    -------
    ``(2, images, shells, 3)``: number of pixels, ``Σ log CTF²`` and ``Σ power / CTF²``.
    """
    size = images.shape[-1]
    frequencies = image_frequencies(size, spacing_angstrom, images.device)
    shells = (frequencies.norm(dim=-1) * size * spacing_angstrom).round().long()
    n_shells = size // 2 + 1
    counted = (shells >= _FIRST_SHELL) & (shells < n_shells)
    terms = []
    for tilt in range(images.shape[1]):
        power = torch.fft.rfft2(images[:, tilt]).abs().square()
        envelope = optics.envelope(tilt, frequencies)
        usable = counted & (envelope > _LEAST_ENVELOPE)
        power = (power / envelope.square().clamp_min(1e-12))[visible[:, tilt]][:, usable]
        index = shells[usable].expand(len(power), -1)
        by_sign = []
        for sign in (1, -1):
            ctf = optics.ctf(tilt, frequencies, sign * depths_angstrom[:, tilt])[visible[:, tilt]][:, usable]
            expected = ctf.square() + _FLOOR
            columns = (torch.ones_like(power), expected.log(), power / expected)
            sums = [torch.zeros(len(power), n_shells, device=power.device).scatter_add_(1, index, c) for c in columns]
            by_sign.append(torch.stack(sums, dim=-1))
        terms.append(torch.stack(by_sign))
    return torch.cat(terms, dim=1)


def gradient_sign(terms: Float[Tensor, "2 i shells 3"]) -> tuple[int, float]:
    """Decide whether defocus grows (1) or falls (−1) with depth; 0 where the images do not say.

    ``N(k)`` is fitted for each sign. The difference of the log-likelihoods is summed over images, and its standard
    error is that of their mean.

    Returns
    -------
    The sign, and by how many standard errors it wins (negative: −1 wins).
    """
    count, logarithm, ratio = terms.double().unbind(dim=-1)
    level = (ratio.sum(dim=1, keepdim=True) / count.sum(dim=1, keepdim=True).clamp_min(1)).clamp_min(1e-30)
    likelihood = -(logarithm + ratio / level + count * level.log()).sum(dim=-1)
    gain = likelihood[0] - likelihood[1]
    error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) >= _MIN_IMAGES else math.inf
    score = float(gain.mean()) / error if error > 0 else 0.0
    return (0 if abs(score) < DECISIVE else 1 if score > 0 else -1), score
