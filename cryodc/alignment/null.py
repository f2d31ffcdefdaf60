"""Significance of a score: each particle's score on a class, compared with its own scores on maps of noise.

A bright particle, a gold bead for example, correlates strongly with any map, and a faint one with none. So a particle
is judged by its own null: its scores on maps of noise that have the power of the classes' references in every shell.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import gaussian_kde
from torch import Tensor

from cryodc.alignment.references import References, empty_poses, refine_classes, search_classes
from cryodc.alignment.spectra import ClassSpectra
from cryodc.fourier import density_mask, hermitian_count, shell_index

FALSE_POSITIVES = 0.01
"""Share of particles of nothing that pass for particles of some class."""
STANDS_OUT = 0.05
"""A class whose members lie mostly above all but this share of the particles of nothing is a class of something."""
_FEWEST_MEMBERS = 20
_STRANGERS, _RECENT = 0.2, 30
"""Share of strangers that a class puts up with among its lowest members, and how many of these are seen at once."""
_FEWEST_MAPS = 6
_SEARCHES = 2
"""Poses on references are searched for this often, and scores rise with every search."""


@dataclass(frozen=True)
class NoiseNull:
    """Maps of noise, equally many for each class in the order of classes, and the scores of particles on them.

    Parameters
    ----------
    references
        The maps of noise.
    n_classes
        Number of classes.
    levels
        ``(m,)`` mean score on each map, over the mean on all.
    spread
        Standard deviation of a particle's score on a map of noise, over what is expected of it.
    critical
        The highest of the scores on ``n_classes`` maps of noise lies at most so many of these standard deviations above
        what is expected, but for the share :data:`FALSE_POSITIVES` of the particles.
    standing
        Likewise for the share :data:`STANDS_OUT`.
    """

    references: References
    n_classes: int
    levels: Float[Tensor, " m"]
    spread: float
    critical: float
    standing: float

    def select(self, classes: list[int]) -> "NoiseNull":
        """The null of these classes only."""
        copies = len(self.levels) // self.n_classes
        maps = [place * copies + copy for place in classes for copy in range(copies)]
        return NoiseNull(
            self.references.select(maps), len(classes), self.levels[maps], self.spread, self.critical, self.standing
        )

    def threshold(self, members: Float[Tensor, " n"]) -> float:
        """The excess from which a particle belongs to the class that fits it best.

        This is ``critical``, unless the class itself reaches below it. A faint protein does: most of its particles
        stand out, and those that do not are its lower tail, and no strangers. The lower tail is known from the upper
        one, mirrored at the mode. As long as at most a fifth of the particles below ``critical``, and half of any
        thirty in a row, are more than this tail holds, they belong to the class.

        Parameters
        ----------
        members
            ``(n,)`` excess of all particles that the class fits best.
        """
        values = np.sort(members[members.isfinite()].double().cpu().numpy())
        if len(values) < _FEWEST_MEMBERS:
            return self.critical
        grid = np.linspace(values[0], values[-1], 200)
        mode = float(grid[gaussian_kde(values)(grid).argmax()])
        low = values[values < self.critical][::-1]
        if mode <= self.standing or not len(low):
            return self.critical
        # Of each particle below, counted down from `critical`, how many lie as far above the mode's mirror of it.
        above = np.searchsorted(values, 2 * mode - self.critical)
        mirrored = np.searchsorted(values, 2 * mode - low, side="right") - above
        counted = np.arange(1, len(low) + 1)
        strangers = counted - mirrored
        # Where half of the last thirty are strangers, what is below is not the tail of this class.
        ends = np.flatnonzero(strangers[_RECENT:] - strangers[:-_RECENT] > _RECENT / 2)
        kept = np.flatnonzero(strangers <= _STRANGERS * counted)
        kept = kept[kept < (ends[0] if len(ends) else len(low))]
        return float(low[kept[-1]]) if len(kept) else self.critical

    def excess(self, scores: Float[Tensor, "n k"], on_noise: Float[Tensor, "n m"]) -> Float[Tensor, "n k"]:
        """Excess of scores on the classes over the particle's scores on noise, in standard deviations.

        Parameters
        ----------
        scores
            Of each particle on each class.
        on_noise
            Of the same particles on the maps of noise, as :func:`score_noise` gives them.
        """
        own = (on_noise / self.levels).mean(dim=1, keepdim=True)
        expected = own * self.levels.reshape(self.n_classes, -1).mean(dim=1)
        return (scores / expected.clamp_min(1e-6) - 1) / self.spread


def make_null(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    radius: float,
    search_radius: float,
    generator: torch.Generator,
) -> tuple[NoiseNull, Float[Tensor, "n m"]]:
    """Make maps of noise for these references, and score particles on them.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Of the classes.
    radius, search_radius
        Shells that scores look at, and those that poses are searched in.
    generator
        Of noise and searches.
    """
    n_classes = len(references)
    copies = -(-_FEWEST_MAPS // n_classes)
    maps = torch.stack(
        [torch.stack([noise_like(half, generator) for half in pair]) for pair in references.maps for _ in range(copies)]
    )
    null = References(maps * particles.mask, references.fsc.repeat_interleave(copies, dim=0))
    scores = score_noise(particles, halves, null, radius, search_radius, generator)
    relative = scores / scores.mean(dim=1, keepdim=True).clamp_min(1e-6)
    levels = relative.mean(dim=0)
    # Each score against what the others say of the particle: as a class's score is judged.
    adjusted, n_maps = scores / levels, len(levels)
    others = (adjusted.sum(dim=1, keepdim=True) - adjusted) / (n_maps - 1)
    left_out = adjusted / others.clamp_min(1e-6) - 1
    # One score of the particle's own is known less well by the others than a class's score is by all.
    left_out = left_out * ((1 + 1 / n_maps) / (1 + 1 / (n_maps - 1))) ** 0.5
    spread = float(left_out.std())
    sets = left_out.reshape(len(scores), n_classes, copies).transpose(1, 2).amax(dim=2) / spread
    highest = sets.flatten().float()[:1_000_000]
    critical, standing = (float(torch.quantile(highest, 1 - share)) for share in (FALSE_POSITIVES, STANDS_OUT))
    return NoiseNull(null, n_classes, levels, spread, critical, standing), scores


def score_noise(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    null: References,
    radius: float,
    search_radius: float,
    generator: torch.Generator,
) -> Float[Tensor, "n m"]:
    """Scores of particles on maps of noise, searched and refined as on references.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    null
        The maps of noise.
    radius, search_radius
        Shells that scores look at, and those that poses are searched in.
    generator
        Of the search.
    """
    poses = empty_poses(len(particles), len(null), halves.device)
    for _ in range(_SEARCHES):
        search_classes(particles, halves, null, search_radius, poses, list(range(len(null))), generator)
        refine_classes(particles, halves, null, radius, poses)
    return poses.scores


def noise_like(volume: Float[Tensor, "d h w"], generator: torch.Generator) -> Float[Tensor, "d h w"]:
    """Noise where a volume has density, with its power in every shell: as large as it is, and without structure."""
    noise = torch.randn(volume.shape, generator=generator).to(volume.device) * density_mask(volume)
    spectra = torch.fft.rfftn(torch.stack([volume, noise]), dim=(-3, -2, -1))
    shells = shell_index(volume.shape[-1], volume.device).reshape(-1)
    power = torch.zeros(2, int(shells.max()) + 1, device=volume.device)
    counted = spectra.abs().square() * hermitian_count(volume.shape[-1], volume.device)
    power = power.index_add(1, shells, counted.flatten(1))
    ratio = (power[0] / power[1].clamp_min(1e-20)).sqrt()[shells].reshape(spectra.shape[1:])
    return torch.fft.irfftn(spectra[1] * ratio, s=volume.shape, dim=(-3, -2, -1))
