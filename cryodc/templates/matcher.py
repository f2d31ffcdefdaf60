"""What a run learned of its particles, kept: other particles get the codes that they would have had among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import PoseSet, References, balanced_halves
from cryodc.dataset import Dataset
from cryodc.fourier import NoiseModel, ParticleSpectra, fine_spectrum, predict
from cryodc.templates.group_poses import poses_on_average
from cryodc.templates.groups import N_PLACE, GroupRule, TemplateGroups, place_code, rotations_of
from cryodc.templates.match import BOX, Search, match_references
from cryodc.templates.shapes import particle_moments
from cryodc.templates.spread import JointAxes
from cryodc.templates.wedge import WedgeCorrection, WedgeFit, corrected_scores, wedge_seen
from cryodc.unfinished import load_state, plain, save_state


@dataclass(frozen=True)
class Matcher:
    """Makes codes of particles, as those of the particles that templates were learned from were made.

    Parameters
    ----------
    references, noise, radius
        The templates, the noise of particles, and the shells that are looked at.
    corrections
        Of scores, by the template that fits best; and of codes, by group.
    centre, axes
        ``points = (scores − centre) · axes``.
    joint
        Makes points of these and of the moments of particles; None where points are scores alone.
    placing
        Correction of the points by group; none where the wedge is not corrected.
    search
        The poses in which templates are compared with particles. Scores differ between searches by as much as by noise,
        so other particles are searched as these were.
    rule
        Which group a particle is of, and on what it is placed.
    names, halves
        Of the particles that templates were learned from, and the half set, 1 or 2, of each. If they come again, they
        are compared with maps they have no part in.
    groups
        In which transformation codes are told.
    """

    references: References
    noise: NoiseModel
    radius: float
    corrections: list[WedgeCorrection]
    centre: Float[NDArray[np.float64], " k"]
    axes: Float[NDArray[np.float64], "k a"]
    joint: JointAxes | None
    placing: WedgeCorrection | None
    search: Search
    rule: GroupRule
    names: tuple[str, ...]
    halves: Int[NDArray[np.int64], " n"]
    groups: TemplateGroups

    @torch.no_grad()
    def encode(
        self, particles: ParticleSpectra, dataset: Dataset, seed: int = 0
    ) -> tuple[Float[NDArray[np.float32], "n k"], Float[NDArray[np.float32], "n p"]]:
        """Content and transformation codes of particles in the box :data:`cryodc.templates.match.BOX`.

        ``dataset`` holds the same particles. A new particle is in no half set of the templates, so each is matched with
        either half, as many with each.
        """
        device, generator = particles.spectra.device, torch.Generator().manual_seed(seed)
        halves = torch.from_numpy(self._halves(dataset.names, seed)).to(device)
        within = particles.within(self.radius)
        poses = match_references(within, halves, self.references, self.search, self.noise)
        points = (corrected_scores(particles, poses, self.corrections) - self.centre) @ self.axes
        if self.joint is not None:
            points = self.joint.apply(np.concatenate([points, particle_moments(dataset, particles)], axis=1))
        points = points.astype(np.float32)
        group = self.rule.find(points)
        n_axes = self.groups.axes.shape[1]
        placed = torch.zeros(len(particles), N_PLACE + n_axes, device=device)
        for label in np.unique(group).tolist():
            rows = torch.from_numpy(np.flatnonzero(group == label)).to(device)
            maps = self.rule.halves[label].to(device)
            average = References(maps[None], torch.zeros(1, BOX // 2 + 1, device=device))
            part = within.select(rows)
            start = poses.of(rows, int(self.rule.starts[label]))
            pose = poses_on_average(part, halves[rows], average, self.noise, start, generator)
            turn, move = (torch.from_numpy(getattr(self.groups, name)[label]).to(device) for name in ("turns", "moves"))
            placed[rows, :N_PLACE] = place_code(pose, turn, move)
            axes = torch.from_numpy(self.groups.axes[label]).to(device)
            placed[rows, N_PLACE:] = self._along(part, maps.mean(dim=0), axes, pose)
        code = np.ascontiguousarray(placed.cpu().numpy(), dtype=np.float32)
        if self.placing is not None:
            seen = wedge_seen(particles, rotations_of(code).to(device))
            points = self.placing.apply(points.astype(np.float64), group, seen)
        return np.ascontiguousarray(points, dtype=np.float32), code

    def _halves(self, names: Sequence[str], seed: int) -> Int[NDArray[np.int64], " n"]:
        """The half set of each particle: its own where templates were learned from it."""
        own = dict(zip(self.names, self.halves.tolist(), strict=True))
        drawn = balanced_halves(len(names), seed).tolist()
        return np.array([own.get(name, half) for name, half in zip(names, drawn, strict=True)])

    def _along(
        self,
        particles: ParticleSpectra,
        average: Float[Tensor, "d h w"],
        axes: Float[Tensor, "a d h w"],
        pose: PoseSet,
    ) -> Float[Tensor, "b a"]:
        """Coordinates along the axes, standard normal before a particle is seen: their posterior mean."""
        if not len(axes):
            return torch.zeros(len(particles), 0, device=average.device)
        whitened = self.noise.whiten(particles)
        shown = [
            predict(fine, whitened.ball, whitened.own_weights, pose.rotations, pose.shifts)
            for fine in fine_spectrum(torch.cat([average[None], axes]))
        ]
        mean, along = shown[0], torch.stack(shown[1:], dim=1)
        power = mean.abs().square().sum(dim=1).clamp_min(1e-20)
        scale = (mean.conj() * whitened.spectra).real.sum(dim=1) / power
        rest, along = whitened.spectra - scale[:, None] * mean, scale[:, None, None] * along
        # Half of Fourier space holds all there is, so each voxel counts twice.
        seen = 2 * torch.einsum("bap,bp->ba", along.conj(), rest).real
        precision = (
            torch.eye(len(axes), device=seen.device) + 2 * torch.einsum("bap,bqp->baq", along.conj(), along).real
        )
        found: Tensor = torch.linalg.solve(precision, seen)
        return found


@dataclass(frozen=True)
class TemplateCode:
    """The codes of every particle that are made of templates, and the templates.

    Parameters
    ----------
    points
        ``(n, k)``: scores less what the missing wedge does to them, and moments, on axes in which 1 is the spread of
        particles of one kind.
    placed
        ``(n, p)``: how each particle lies on the templates and differs from those like it,
        :func:`cryodc.templates.groups.place_particles`.
    groups
        The groups in which ``placed`` is defined.
    templates
        ``(t, d, h, w)`` maps in the box :data:`cryodc.templates.match.BOX`.
    matcher
        Makes the codes of other particles.
    """

    points: Float[NDArray[np.float32], "n k"]
    placed: Float[NDArray[np.float32], "n p"]
    groups: TemplateGroups
    templates: Float[NDArray[np.float32], "t d h w"]
    matcher: Matcher


def correction_of(state: dict[str, Any]) -> WedgeCorrection:
    """A correction from its plain form."""
    fits = {
        label: WedgeFit(fit["centre"].numpy(), fit["scale"], fit["mean"].numpy(), fit["coefficients"].numpy())
        for label, fit in state["fits"].items()
    }
    return WedgeCorrection(fits, state["degree"])


def references_of(state: dict[str, Any], device: torch.device) -> References:
    """References from their plain form."""
    return References(state["maps"].to(device), state["fsc"].to(device))


def save_matcher(path: Path, matcher: Matcher) -> None:
    """Write a matcher; its groups are kept beside it."""
    state = plain(matcher)
    del state["groups"]
    save_state(path, state)


def load_matcher(path: Path, groups: TemplateGroups, device: torch.device) -> Matcher | None:
    """A matcher as :func:`save_matcher` wrote it, with the groups kept beside it; None where it cannot be read."""
    state = load_state(path)
    if state is None:
        return None
    return Matcher(
        references_of(state["references"], device),
        NoiseModel(state["noise"]["power"].to(device)),
        state["radius"],
        [correction_of(entry) for entry in state["corrections"]],
        state["centre"].numpy(),
        state["axes"].numpy(),
        None if state["joint"] is None else JointAxes(state["joint"]["centre"].numpy(), state["joint"]["axes"].numpy()),
        None if state["placing"] is None else correction_of(state["placing"]),
        Search(**{name: values.to(device) for name, values in state["search"].items()}),
        GroupRule(**{name: values if name == "halves" else values.numpy() for name, values in state["rule"].items()}),
        tuple(state["names"]),
        state["halves"].numpy(),
        groups,
    )
