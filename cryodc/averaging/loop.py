"""The loop of a blind classification: references, poses against each, merges and splits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cryodc.alignment import (
    FEWEST,
    ClassPoses,
    ClassSpectra,
    NoiseNull,
    References,
    cluster_log_prior,
    empty_poses,
    estimate_noise,
    join_references,
    make_null,
    make_references,
    merge_classes,
    refine_classes,
    search_classes,
)
from cryodc.averaging.classification import UNASSIGNED, Classification
from cryodc.averaging.starts import ClusterStarter
from cryodc.fourier import NoiseModel, Particles, low_pass, soft_sphere
from cryodc.unfinished import DoneSteps, on_device

SEARCH_SHELLS = 7.0
"""Shells that poses are searched in, unless asked otherwise."""
_CLAIMED = 0.25
"""A class takes a particle of a cluster that gave no reference if it explains it better than this share of its own."""
_SETTLED = 0.005
_FINEST = 0.7
_FEWEST_IN_A_HALF = 2.0
_KEPT = 0.8
"""Of the likelihood of a class's particles, what two references in its place must reach before they are refined."""


def class_spectra(stack: Particles) -> ClassSpectra:
    """The masked particles up to the finest shell, from which scores are computed."""
    box = stack.box_size
    sphere = soft_sphere(box, 0.375 * box, 3.0, stack.device)
    return ClassSpectra(stack.masked(sphere), _FINEST * (box // 2))


class ClassLoop:
    """The state of a classification: references, poses on each, and the cluster of each particle."""

    references: References
    poses: ClassPoses
    whole: list[bool]
    """Classes that were tried for a split and need none."""
    unaligned: list[int]
    """Clusters that gave no reference."""
    idle: Tensor
    """``(n,)`` particles of these clusters."""
    settled: bool = False

    def __init__(
        self,
        stack: Particles,
        clusters: Tensor,
        half_sets: Tensor,
        seed: int,
        tell: Callable[[str], None],
        start_shells: float | None,
        done: DoneSteps | None = None,
    ) -> None:
        self.stack, self.finest = stack, _FINEST * (stack.box_size // 2)
        self.particles = class_spectra(stack)
        self.clusters, self.halves = clusters, half_sets
        self.seed, self.tell, self.start_shells = seed, tell, start_shells
        self.generator = torch.Generator().manual_seed(seed)
        self.done = done or DoneSteps()
        self.steps = self.done.sequence("rounds", self._save, self._load)

    def _save(self) -> dict[str, Any]:
        names = ("references", "poses", "whole", "unaligned", "idle")
        known = {name: getattr(self, name) for name in names}
        return known | {"noise": self.particles.noise, "generator": self.generator.get_state()}

    def _load(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        state = on_device(state, self.halves.device)
        self.references, self.poses = References(**state["references"]), ClassPoses(**state["poses"])
        self.whole, self.unaligned, self.idle = state["whole"], state["unaligned"], state["idle"]
        self.particles.noise = NoiseModel(**state["noise"])

    def start(self, confidence: Tensor, n_starts: int, points: Tensor | None = None) -> bool:
        """References from each cluster's most confident particles, and a first search; False if none aligns.

        A cluster that gives none competes no further: its particles make no reference.
        """
        starter = ClusterStarter(
            self.particles, self.stack, self.halves, confidence, self.seed, n_starts, self.start_shells, self.done
        )
        found, self.unaligned = starter.start_all(self.clusters, points, self.tell)
        if not found:
            return False
        # A cluster of fewer particles than make a reference was not tried: its particles compete like all others.
        sizes = torch.bincount(self.clusters)
        tried = [cluster for cluster in self.unaligned if sizes[cluster] >= FEWEST]
        self.idle = torch.isin(self.clusters, torch.tensor(tried, device=self.clusters.device))
        self.references, self.whole = join_references(found), [False] * len(found)
        self.poses = empty_poses(len(self.particles), len(found), self.halves.device)
        self.steps.do("the first search", lambda: self._search(list(range(len(found)))))
        return True

    def run(self, n_rounds: int, temperatures: tuple[float, ...], prior_weights: tuple[float, ...]) -> None:
        """Make new references and poses in rounds, until hardly any particle changes its class."""

        def one_round(i: int) -> float:
            temperature = temperatures[min(i, len(temperatures) - 1)]
            prior = prior_weights[i] if i < len(prior_weights) else 0.0
            shares = self._shares(temperature, prior)
            self.references = make_references(self.particles, self.halves, self.poses, shares, self.finest)
            before = self.labels
            if i == 1 and len(temperatures) > 1:
                self._search(list(range(len(self.references))))
            else:
                self._refine()
            changed = float((before != self.labels).float().mean())
            self.tell(f"round {i + 1}: {len(self.references)} classes, {100 * changed:.1f} % changed class")
            return changed

        self.settled = False
        for i in range(n_rounds):
            changed = self.steps.do(f"round {i + 1}", partial(one_round, i))
            if i + 1 >= len(temperatures) and i >= len(prior_weights) and changed <= _SETTLED:
                self.settled = True
                return

    def merge(self) -> None:
        """Join two classes that are the same protein."""

        def join() -> bool:
            arguments = (self.particles, self.halves, self.references, self.poses, self.labels, self._radius)
            kept = merge_classes(*arguments, self.tell)
            joined = len(kept) < len(self.references)
            if joined:
                self._keep(kept)
            return joined

        if self.steps.do("merging", join):
            self.run(2, (1.0,), ())

    def begin(self, poses: ClassPoses, labels: Tensor) -> None:
        """References of particles in poses that are known, one of each label.

        Parameters
        ----------
        poses
            Of every particle on every class to be.
        labels
            ``(n,)`` of which class each particle is.
        """
        shares = torch.nn.functional.one_hot(labels).float()
        self.poses, self.idle = poses, torch.zeros_like(labels, dtype=torch.bool)
        self.unaligned, self.whole = [], [False] * shares.shape[1]
        self.references = make_references(self.particles, self.halves, poses, shares, self.finest)
        self._refine()

    def split(self, pairs: dict[int, References]) -> bool:
        """Put two references in the place of a class, unless they lose its particles.

        Parameters
        ----------
        pairs
            The two references of each class that is to be split. They may be made of fewer particles than its own, and
            then explain some of them a little worse.

        Returns
        -------
        Whether any class is split.
        """
        old, labels = len(self.references), self.labels
        self.references = join_references([self.references, *pairs.values()])
        self.whole = [True] * old + [False] * (2 * len(pairs))
        self.poses = self.poses.beside(empty_poses(len(self.particles), 2 * len(pairs), self.halves.device))
        self._search(list(range(old, len(self.references))))
        given_up: set[int] = set()
        for place, label in enumerate(pairs):
            pair = [old + 2 * place, old + 2 * place + 1]
            scores = self.poses.scores[(labels == label) & ~self.idle]
            two, one = scores[:, pair].amax(dim=1).square().mean(), scores[:, label].square().mean()
            if two > _KEPT * one:
                self.tell(f"a class of {len(scores)} particles is split")
                given_up.add(label)
            else:
                given_up.update(pair)
        self._keep([label for label in range(len(self.references)) if label not in given_up])
        return len(self.references) > old

    def result(self, junk: bool) -> Classification:
        """Classes by size, particles that belong to none, and those of clusters that gave no reference."""
        null, excess = None, torch.full_like(self.poses.scores, torch.inf)
        if junk:
            known, on_noise = on_device(self.steps.do("maps of noise", self._find_null), self.halves.device)
            null = NoiseNull(**known | {"references": References(**known["references"])})
            excess = null.excess(self.poses.scores, on_noise)
        own = excess.gather(1, self.labels[:, None])[:, 0]
        threshold = torch.zeros(len(self.references), device=own.device)
        if null is not None:
            for label in range(len(threshold)):
                threshold[label] = null.threshold(own[(self.labels == label) & ~self.idle])
        nothing = own < threshold[self.labels]
        claim = self._claims(own, nothing)
        nothing |= self.idle & (own < claim[self.labels])
        sizes = torch.bincount(self.labels[~nothing], minlength=len(self.references))
        kept = [int(k) for k in sizes.argsort(descending=True, stable=True) if sizes[k] > 0] or [0]
        if null is not None:
            null = null.select(kept)
        self._keep(kept)
        labels = self.labels.masked_fill(nothing, UNASSIGNED)
        unaligned = [c for c in self.unaligned if bool((nothing & (self.clusters == c)).any())]
        for place, cluster in enumerate(unaligned):
            labels[nothing & (self.clusters == cluster)] = len(kept) + place
        excess, threshold, claim = excess[:, kept], threshold[kept], claim[kept]
        maps = self.references.maps.mean(dim=1)
        posterior, noise, radius = self._posterior(1.0, 0.0), self.particles.noise, self._radius
        found = labels, posterior, self.poses.scores, excess, maps, noise, radius
        return Classification(*found, null, threshold, claim, tuple(unaligned), self.settled)

    def _find_null(self) -> tuple[NoiseNull, Tensor]:
        self.tell("every particle on maps of noise")
        radii = self._radius, min(self.start_shells or SEARCH_SHELLS, self._radius)
        return make_null(self.particles, self.halves, self.references, *radii, self.generator)

    def _claims(self, own: Tensor, nothing: Tensor) -> Tensor:
        """``(k,)`` the excess with which a class takes a particle of a cluster that gave no reference."""
        claims = torch.full((len(self.references),), torch.inf, device=own.device)
        for label in range(len(claims)):
            members = own[(self.labels == label) & ~nothing & ~self.idle]
            if len(members) and bool(members.isfinite().all()):
                claims[label] = torch.quantile(members, _CLAIMED)
        return claims

    @property
    def labels(self) -> Tensor:
        """The class of the best score."""
        return self.poses.scores.argmax(dim=1)

    @property
    def _radius(self) -> float:
        return self.references.radius(self.finest)

    def _search(self, labels: list[int]) -> None:
        radius = min(self.start_shells or SEARCH_SHELLS, self._radius)
        search_classes(self.particles, self.halves, self.references, radius, self.poses, labels, self.generator)
        estimate_noise(self.particles, self.halves, self.references, self.poses)
        self._refine()

    def _refine(self) -> None:
        refine_classes(self.particles, self.halves, self.references, self._radius, self.poses)
        estimate_noise(self.particles, self.halves, self.references, self.poses)

    def _posterior(self, temperature: float, prior_weight: float) -> Tensor:
        gain = 0.5 * self.poses.scores.square() / temperature
        if prior_weight > 0:
            gain = gain + prior_weight * cluster_log_prior(torch.softmax(gain, dim=1), self.clusters)
        return torch.softmax(gain, dim=1)

    def _shares(self, temperature: float, prior_weight: float) -> Tensor:
        """``(n, k)`` by which particles count in each class, once no class lacks a half set.

        A class that hardly a particle of one half set is in cannot be held out. Two references of one protein can end
        with a half set each: one of them goes, and the other is shown to the half set that it lacks.
        """
        shown = [False] * len(self.references)
        while True:
            shares = self._posterior(temperature, prior_weight) * ~self.idle[:, None]
            in_halves = torch.stack([shares[self.halves == half].sum(dim=0) for half in (1, 2)])
            thin = torch.nonzero(in_halves.amin(dim=0) < _FEWEST_IN_A_HALF)[:, 0]
            if len(self.references) == 1 or not len(thin):
                return shares
            smallest, *others = thin[in_halves[:, thin].sum(dim=0).argsort()].tolist()
            hopeful = [k for k in others or [smallest] if in_halves[:, k].max() >= FEWEST and not shown[k]]
            for label in hopeful:
                self._show_to_both_halves(label, int(in_halves[:, label].argmax()) + 1)
                shown[label] = True
            if others or not hopeful:
                kept = [label for label in range(len(self.references)) if label != smallest]
                self._keep(kept)
                shown = [shown[label] for label in kept]

    def _show_to_both_halves(self, label: int, half: int) -> None:
        """Search for a class, which a half set has found, in the other: they share a start, as with every reference."""
        maps = self.references.maps[label]
        maps[half - 1] = low_pass(maps[2 - half], SEARCH_SHELLS - 1.0, 1.0)
        radius, only = min(self.start_shells or SEARCH_SHELLS, self._radius), self.halves != half
        search_classes(self.particles, self.halves, self.references, radius, self.poses, [label], self.generator, only)

    def _keep(self, labels: list[int]) -> None:
        self.references, self.poses = self.references.select(labels), self.poses.select(labels)
        self.whole = [self.whole[label] for label in labels]
