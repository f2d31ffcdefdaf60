"""Templates learned from the particles, and the content code that is made of them."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import (
    ClassPoses,
    ClassSpectra,
    References,
    balanced_halves,
    empty_poses,
    estimate_noise,
    join_references,
    make_references,
    start_reference,
)
from cryodc.clustering import fit_mixture
from cryodc.dataset import Dataset
from cryodc.device import by_leader
from cryodc.fourier import NoiseModel, ParticleSpectra
from cryodc.models import TemplateConfig
from cryodc.templates.group_poses import Matched
from cryodc.templates.groups import place_particles
from cryodc.templates.match import (
    RADIUS,
    crop_particles,
    match_references,
    particle_spectra,
    random_search,
    sphere,
)
from cryodc.templates.matcher import Matcher, TemplateCode, correction_of, references_of
from cryodc.templates.shapes import particle_moments, shape_points
from cryodc.templates.spread import joint_axes, simulate_particles, spread_within, whitening_axes
from cryodc.templates.wedge import WedgeCorrection, corrected_scores, fit_correction, wedge_on_best, wedge_seen
from cryodc.unfinished import DoneSteps, key_of, load_state, on_device, save_state

_N_SHAPE_AXES = 11
_STARTS_FROM = 60
_RADII = (5.0, 6.0)
"""Shells that each round looks at."""
_N_SIMULATED = 240
_FEWEST = 5
_WIDER = 1.1
"""Axes along which particles spread no more than this, in units of the spread within a protein, tell nothing."""


@torch.no_grad()
def learn_templates(
    dataset: Dataset,
    config: TemplateConfig,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[str], None] | None = None,
    kept: Path | None = None,
) -> TemplateCode | None:
    """Learn templates from some particles and match all of them.

    Parameters
    ----------
    dataset
        Volumes of a box of at least 16.
    config
        How many templates, and from how many particles.
    seed, device
        Same seed, same result; CPU if no device is given.
    progress
        Called with a line about each step.
    kept
        Where the state after each round is written, and taken up from if it is of the same settings. What a round has
        come to lies beside it.

    Returns
    -------
    None if there are too few particles, or no two groups of them can be aligned.
    """
    tell = progress or (lambda text: None)
    n, device = len(dataset), device or torch.device("cpu")
    n_templates = config.n_of(n)
    if n_templates == 0:
        return None
    learner = _Learner(dataset, config, seed, device, tell)
    if kept is not None:
        learner.done = DoneSteps(kept.with_name(f".{kept.stem}.{key_of(learner.settings)}"), tell)
    n_done = learner.take_up(kept)
    if n_done == 0:
        if not learner.start(n_templates):
            return None
        learner.keep(kept, 1)
    for number, radius in enumerate(_RADII, 2):
        if number > n_done:
            if number > 2:
                learner.average_groups(n_templates)
            learner.fit(radius)
            learner.keep(kept, number)
    return learner.code()


class _Learner:
    """Templates as they are learned from a sample of the particles."""

    references: References
    poses: ClassPoses
    scores: Float[NDArray[np.float64], "n k"]
    corrections: list[WedgeCorrection]
    axes: Float[NDArray[np.float64], "k a"]
    radius: float
    n_unaligned: int  # groups that gave no template
    done = DoneSteps()

    def __init__(
        self,
        dataset: Dataset,
        config: TemplateConfig,
        seed: int,
        device: torch.device,
        tell: Callable[[str], None],
    ) -> None:
        self.dataset, self.config, self.seed, self.device, self.tell = dataset, config, seed, device, tell
        self.generator = torch.Generator().manual_seed(seed)
        self.all = particle_spectra(dataset, device)
        self.all_halves = torch.from_numpy(balanced_halves(len(dataset), seed)).to(device)
        rows = torch.randperm(len(dataset), generator=self.generator)[: config.n_particles].sort().values
        self.stack = crop_particles(dataset, rows, device)
        self.rows = rows.to(device)
        self.sample, self.halves = self.all.select(self.rows), self.all_halves[self.rows]
        self.spectra = ClassSpectra(self.stack.masked(sphere(device)), RADIUS)

    def keep(self, path: Path | None, n_done: int) -> None:
        """Write all that the next rounds rest on."""
        if path is None:
            return
        names = ("references", "n_unaligned", "poses", "scores", "corrections", "axes", "radius")
        state = {"of": self.settings, "n_done": n_done, "generator": self.generator.get_state()}
        state |= {"noise": self.spectra.noise} | {name: getattr(self, name) for name in names[: 7 if n_done > 1 else 2]}
        by_leader(lambda: save_state(path, state))

    def take_up(self, path: Path | None) -> int:
        """Go on from a state that was kept, if it is of these settings; how many rounds are done."""
        state = None if path is None else by_leader(lambda: load_state(path))
        if state is None or state["of"] != self.settings:
            return 0
        self.generator.set_state(state["generator"])
        self.references = references_of(state["references"], self.device)
        self.spectra.noise, self.n_unaligned = NoiseModel(state["noise"]["power"].to(self.device)), state["n_unaligned"]
        if state["n_done"] > 1:
            self.poses = ClassPoses(**{name: value.to(self.device) for name, value in state["poses"].items()})
            self.scores, self.axes, self.radius = state["scores"].numpy(), state["axes"].numpy(), state["radius"]
            self.corrections = [correction_of(entry) for entry in state["corrections"]]
        self.tell(f"going on after round {state['n_done']}")
        return int(state["n_done"])

    @property
    def settings(self) -> dict[str, Any]:
        """All that templates follow from."""
        names = hashlib.sha256("\n".join(self.dataset.names).encode()).hexdigest()
        return {**self.config.model_dump(), "seed": self.seed, "names": names}

    @property
    def maps(self) -> Float[Tensor, "k d h w"]:
        """Both halves of each template."""
        return self.references.maps.mean(dim=1)

    def start(self, n_templates: int) -> bool:
        """A template from each group of particles that random shapes fit alike; False if fewer than two align."""
        groups = self.done.once("groups", lambda _: self._group(n_templates))
        labels, sureness = groups["labels"].numpy(), groups["sureness"].numpy()
        found = []
        for label in range(n_templates):
            members = np.flatnonzero(labels == label)
            surest = members[np.argsort(-sureness[members], kind="stable")[:_STARTS_FROM]]
            start = partial(self._start, np.sort(surest), label, n_templates)
            started = self.done.once(f"template {label + 1}", start)["references"]
            if started is not None:
                found.append(references_of(started, self.device))
        if len(found) < 2:
            return False
        self.references, self.n_unaligned = join_references(found), n_templates - len(found)
        return True

    def _group(self, n_templates: int) -> dict[str, Any]:
        self.tell("matching random shapes")
        points = shape_points(self.sample, _N_SHAPE_AXES, seed=self.seed)
        groups = by_leader(lambda: fit_mixture(points, n_templates, self.seed, n_starts=3))
        return {"labels": groups.predict(points), "sureness": groups.predict_proba(points).max(axis=1)}

    def _start(
        self, members: Int[NDArray[np.int64], " b"], label: int, n_templates: int, _: DoneSteps
    ) -> dict[str, Any]:
        rows = torch.from_numpy(members).to(self.device)
        started = start_reference(self.spectra, self.stack, self.halves, rows, self.seed + label, 1)
        self.tell(f"template {label + 1} of {n_templates}: {'aligned' if started else 'not aligned'}")
        return {"references": None if started is None else started[0]}

    def fit(self, radius: float) -> None:
        """Match the sample, learn the noise, match again, and find the axes of the code."""
        self.radius = radius
        # Twice: scores are in units of a noise that is known once particles have been matched.
        for _ in range(2):
            self.poses = self._match(self.sample, self.halves)
            estimate_noise(self.spectra, self.halves, self.references, self.poses)
        self.poses = self._match(self.sample, self.halves)
        simulated, poses, which = self._simulate()
        self.corrections = []
        if self.config.wedge_correction:
            # First from simulated particles, of which there are enough for squares, then from what those leave.
            for particles, of_these, degree in ((simulated, poses, 2), (self.sample, self.poses, 1)):
                scores = corrected_scores(particles, of_these, self.corrections)
                fitted = of_these.scores.argmax(dim=1).cpu().numpy()
                self.corrections.append(fit_correction(scores, fitted, wedge_on_best(particles, of_these), degree))
        self.scores = corrected_scores(self.sample, self.poses, self.corrections)
        within = spread_within(corrected_scores(simulated, poses, self.corrections[:1]), which.cpu().numpy())
        self.axes = whitening_axes(self.scores, within)

    def _simulate(self) -> tuple[ParticleSpectra, ClassPoses, Int[Tensor, " n"]]:
        """Particles of the templates as clear as the recorded ones are, matched, and which template each is of."""
        found, best = self.poses.scores, self.poses.scores.argmax(dim=1)
        own = [found[best == label, label] for label in range(len(self.references))]
        used = [label for label, values in enumerate(own) if len(values) >= _FEWEST]
        lengths = torch.stack([own[label].median() for label in used])
        simulated, which = simulate_particles(
            self.sample.within(self.radius),
            self.maps[used],
            lengths,
            _N_SIMULATED,
            self.spectra.noise,
            self.generator,
        )
        halves = torch.from_numpy(balanced_halves(len(simulated), self.seed)).to(self.device)
        return simulated, self._match(simulated, halves), which

    def average_groups(self, n_templates: int) -> None:
        """Make a template of every group of particles alike in the code so far, in poses on its commonest template."""
        points = (self.scores - self.scores.mean(axis=0)) @ self.axes
        mixture = by_leader(lambda: fit_mixture(points, n_templates, self.seed, n_starts=3))
        groups = torch.from_numpy(mixture.predict(points))
        best = self.poses.scores.argmax(dim=1)
        poses = empty_poses(len(self.sample), n_templates, self.device)
        shares = torch.zeros(len(self.sample), n_templates, device=self.device)
        for group in range(n_templates):
            rows = torch.nonzero(groups == group)[:, 0].to(self.device)
            if len(rows):
                commonest = int(torch.bincount(best[rows]).argmax())
                poses.put(rows, group, self.poses.of(rows, commonest))
                shares[rows, group] = 1.0
        # A group without two particles in each half cannot be held out.
        held = torch.stack([shares[self.halves == half].sum(dim=0) for half in (1, 2)]).amin(dim=0)
        kept = torch.nonzero(held >= 2)[:, 0].tolist()
        self.references = make_references(
            self.spectra, self.halves, poses.select(kept), shares[:, kept], self.radius + 1
        )
        self.tell(f"{len(kept)} templates averaged anew")

    def code(self) -> TemplateCode:
        """The codes of all particles."""
        search = random_search(self.generator, self.device)
        within, noise = self.all.within(self.radius), self.spectra.noise

        def match(_: DoneSteps) -> dict[str, Any]:
            self.tell("matching all particles")
            return {"poses": match_references(within, self.all_halves, self.references, search, noise)}

        poses = ClassPoses(**on_device(self.done.once("matched", match)["poses"], self.device))
        scores = corrected_scores(self.all, poses, self.corrections)
        centre = scores.mean(axis=0)
        points = (scores - centre) @ self.axes
        told = max(1, int((points.std(axis=0) > _WIDER).sum()))
        points, joint = points[:, :told], None
        if self.config.moments and self.n_unaligned:
            numbers = np.concatenate([points, particle_moments(self.dataset, self.all)], axis=1)
            joint = joint_axes(numbers, _WIDER, self.seed)
            points = joint.apply(numbers)
        points = np.ascontiguousarray(points, dtype=np.float32)
        self.tell("placing all particles")
        matched = Matched(self.all, self.all_halves, self.spectra, self.rows, self.references, poses, self.radius)
        placed = place_particles(self.dataset, matched, points, self.config.n_axes, self.seed, self.done)
        last = None
        if self.config.wedge_correction:
            # Once more, now that particles lie on what they are, and not on the template that happened to fit best.
            seen = wedge_seen(self.all, placed.rotations.to(self.device))
            last = fit_correction(points.astype(np.float64), placed.labels, seen, 1)
            points = last.apply(points.astype(np.float64), placed.labels, seen).astype(np.float32)
        learned = self.references, noise, self.radius, self.corrections, centre, self.axes[:, :told]
        own = search, placed.rule, tuple(self.dataset.names), self.all_halves.cpu().numpy()
        matcher = Matcher(*learned, joint, last, *own, placed.groups)
        return TemplateCode(points, placed.code, placed.groups, self.maps.cpu().numpy(), matcher)

    def _match(self, particles: ParticleSpectra, halves: Int[Tensor, " n"]) -> ClassPoses:
        search = random_search(self.generator, self.device)
        return match_references(particles.within(self.radius), halves, self.references, search, self.spectra.noise)
