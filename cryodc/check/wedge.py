"""The missing wedge the particles have, against the one their weights or the tilt range claim."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.check.sample import Sample, draw_sample, read_sample
from cryodc.check.wedge_fit import WedgeFit, fit_wedge, mean_power, rate_wedge
from cryodc.dataset import InputOptions
from cryodc.errors import InputError
from cryodc.fourier import standardise
from cryodc.io import Problem
from cryodc.particles import ParticleSet

LARGEST_DEPTH = 0.5
"""A wedge is there if it holds less than this share of the power outside it …"""
SMALLEST_GAIN = 0.05
"""… and explains this much, in nats per Fourier voxel."""
LEAST_SHARE = 0.6
"""A claim holds if the wedge claimed explains this share of what the best wedge explains."""
_PER_TOMOGRAM = 3
_MOST_TOMOGRAMS = 24


@dataclass(frozen=True)
class WedgeCheck:
    """What was measured and what was claimed.

    Parameters
    ----------
    measured
        The wedge that fits the particles best.
    visible
        Whether there is one to see.
    claimed
        The wedge that fits the weights best, ``depth`` and ``gain`` measured on the particles; None without weights.
    claims_wedge
        Whether the weights have a wedge at all.
    share
        Gain of the wedge claimed over gain of the best.
    tomograms
        Those, of up to 24 with at least 3 particles, whose particles contradict the claim, each measured alone.
    """

    measured: WedgeFit
    visible: bool
    claimed: WedgeFit | None
    claims_wedge: bool
    share: float | None
    tomograms: Mapping[str, "WedgeCheck"]

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {
            "measured": vars(self.measured),
            "visible": self.visible,
            "claimed": None if self.claimed is None else vars(self.claimed),
            "claims_wedge": self.claims_wedge,
            "share": self.share,
            "tomograms": {name: check.as_dict() for name, check in self.tomograms.items()},
        }


def check_wedge(sample: Sample) -> tuple[WedgeCheck, list[Problem], list[Problem]]:
    """Measure the wedge and compare; give what is wrong and what is worth a warning."""
    check = _compare(sample, torch.arange(len(sample)), _contradicting_tomograms(sample))
    measured, claimed = check.measured, check.claimed
    if not check.visible:
        return check, [], [Problem(None, _no_wedge(check, len(sample)))] if check.claims_wedge else []
    if claimed is None or check.share is None:
        return check, [Problem(None, _swapped(check))] if measured.beam != "z" else [], []
    if check.share >= LEAST_SHARE and not check.tomograms:
        return check, [], []
    return check, [Problem(None, _contradiction(check, sample))], []


def measure_wedge(particles: ParticleSet, n_sample: int = 300, seed: int = 0) -> WedgeFit | None:
    """The wedge that a random sample of particles shows, whatever their STAR claims; None where none is to be seen."""
    sample = read_sample(particles, draw_sample(len(particles), n_sample, seed), InputOptions())
    fit = fit_wedge(mean_power(standardise(sample.volumes)))
    return fit if _is_wedge(fit) else None


def describe_wedge(fit: WedgeFit) -> str:
    """Say where a wedge is, in words.

    Examples
    --------
    >>> describe_wedge(WedgeFit("y", "z", (-60.5, 60.5), 0.0, 1.0))
    'tilt axis y, beam z, -60° to 60°'
    """
    low, high = fit.whole_degrees
    return f"tilt axis {fit.tilt_axis}, beam {fit.beam}, {low}° to {high}°"


def _contradicting_tomograms(sample: Sample) -> dict[str, WedgeCheck]:
    if sample.weights is None:
        return {}
    rows: dict[str, list[int]] = defaultdict(list)
    for i, tomogram in enumerate(sample.particles.tomograms):
        rows[tomogram].append(i)
    often = sorted(rows, key=lambda name: -len(rows[name]))[:_MOST_TOMOGRAMS]
    if len(rows) < 2:
        return {}
    checks = {t: _compare(sample, torch.tensor(rows[t]), {}) for t in often if len(rows[t]) >= _PER_TOMOGRAM}
    return {t: check for t, check in checks.items() if check.share is not None and check.share < LEAST_SHARE}


def _compare(sample: Sample, rows: Tensor, tomograms: Mapping[str, WedgeCheck]) -> WedgeCheck:
    power = mean_power(standardise(sample.volumes[rows]))
    measured = fit_wedge(power)
    visible = _is_wedge(measured)
    claimed, share, claims_wedge = None, None, False
    if sample.weights is not None and sample.weight_index is not None:
        claimed = fit_wedge(_claimed_power(sample.weights, sample.weight_index[rows]))
        claims_wedge = _is_wedge(claimed)
        if claims_wedge:
            claimed = rate_wedge(power, claimed.tilt_axis, claimed.beam, claimed.tilt_range)
        share = claimed.gain / measured.gain if visible else None
    return WedgeCheck(measured, visible, claimed, claims_wedge, share, tomograms)


def _claimed_power(weights: Float[Tensor, "m d h hw"], index: Tensor) -> Float[Tensor, "d h hw"]:
    used, counts = torch.unique(index, return_counts=True)
    return torch.einsum("m,mdhw->dhw", counts.double(), weights[used].double().square()) / len(index)


def _is_wedge(fit: WedgeFit) -> bool:
    return fit.gain > SMALLEST_GAIN and fit.depth < LARGEST_DEPTH


def _no_wedge(check: WedgeCheck, n_particles: int) -> InputError:
    claimed = check.claimed or check.measured
    return InputError(
        "the particles show no missing wedge",
        expected=describe_wedge(claimed),
        found=f"as much power within the wedge as outside it ({claimed.depth:.2f}), mean of {n_particles} particles",
        remedy="use volumes as reconstructed: not denoised, not with the wedge filled in, not averages",
    )


def _swapped(check: WedgeCheck) -> InputError:
    beam = check.measured.beam
    return InputError(
        "the missing wedge of the particles does not lie along z",
        expected="the beam along z",
        found=f"{describe_wedge(check.measured)}: the volumes lie with z and {beam} swapped",
        remedy=f"write the volumes again with their {beam} and z axes exchanged",
    )


def _contradiction(check: WedgeCheck, sample: Sample) -> InputError:
    from_star = sample.particles.weight_images is not None
    where = ""
    if check.share is not None and check.share >= LEAST_SHARE:
        names = sorted(check.tomograms)
        where = f" in {', '.join(names[:5])}" + (f" and {len(names) - 5} more tomograms" if len(names) > 5 else "")
        check = min(check.tomograms.values(), key=lambda one: one.share or 0.0)
    claimed = check.claimed or check.measured
    return InputError(
        "the missing wedge of the particles is not where "
        + ("their weights say" if from_star else "--tilt-range and --tilt-axis say"),
        expected=(describe_wedge(claimed) if check.claims_wedge else "no missing wedge")
        + (" (rlnCtfImage)" if from_star else " (the options)"),
        found=f"{describe_wedge(check.measured)}{where}; the wedge claimed holds {claimed.depth:.2f} of the power "
        f"outside it and explains {max(check.share or 0.0, 0.0):.0%} of what the best wedge explains",
        remedy=_remedy(check.measured, claimed, from_star, one_tomogram=bool(where)),
    )


def _remedy(measured: WedgeFit, claimed: WedgeFit, from_star: bool, one_tomogram: bool) -> str:
    low, high = measured.whole_degrees
    options = f"--tilt-range {low} {high} --tilt-axis {measured.tilt_axis}"
    if one_tomogram:
        options = f"their own row in --tilt-ranges, such as NAME,{low},{high}"
    if measured.beam != "z":
        swapped = f"the volumes lie with z and {measured.beam} swapped: write them again with these axes exchanged"
        return swapped if claimed.beam == "z" else f"{swapped}, and their weights too"
    if claimed.beam != "z":
        return f"the weights lie with z and {claimed.beam} swapped: write them again with these axes exchanged"
    if claimed.tilt_axis == measured.tilt_axis and _mirrored(measured, claimed):
        options += " (the sign of the tilt angles is the other one)"
    return f"remove rlnCtfImage and give {options}, or write weights of these tilts" if from_star else f"give {options}"


def _mirrored(measured: WedgeFit, claimed: WedgeFit) -> bool:
    low, high = claimed.tilt_range
    as_is = abs(measured.tilt_range[0] - low) + abs(measured.tilt_range[1] - high)
    return abs(measured.tilt_range[0] + high) + abs(measured.tilt_range[1] + low) < 0.5 * as_is
