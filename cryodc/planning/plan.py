"""A plan: whether these maps would come apart in these particles, and how many particles it would take."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.fourier import density_mask, resolution_angstrom
from cryodc.io import Atoms
from cryodc.planning.like import describe
from cryodc.planning.recorded import MeasureRequest, Recorded, measure_particles
from cryodc.planning.separation import Separation, first_reach, separate
from cryodc.planning.trial import Trial, TrialResult
from cryodc.simulation import Phantom
from cryodc.volumes import Volume

NUMBERS = (30, 100, 300, 1000)
WANTED_ARI = 0.9
FEWEST = 4
"""Particles of each map that are planned for at least."""
_FEWEST_OF_TRIAL = 8
_FSC = 0.143
_TRIED = np.geomspace(FEWEST, 1e7, 400)


@dataclass(frozen=True)
class PlanRequest:
    """What is asked of a set of particles.

    Parameters
    ----------
    measure
        The particles.
    numbers
        Particles of each map, rising.
    n_trial
        Particles of each map that are made and compared.
    resolution_angstrom
        For which the number of particles is wanted; None asks for none.

    Raises
    ------
    InputError
        If a number is too small, or they do not rise.
    """

    measure: MeasureRequest
    numbers: tuple[int, ...] = NUMBERS
    n_trial: int = 32
    resolution_angstrom: float | None = None

    def __post_init__(self) -> None:
        rises = all(low < high for low, high in zip(self.numbers, self.numbers[1:], strict=False))
        if not self.numbers or min(self.numbers) < FEWEST or not rises:
            raise InputError(
                "these numbers of particles cannot be planned for",
                expected=f"rising numbers, each {FEWEST} or more",
                found=", ".join(map(str, self.numbers)),
            )
        if self.n_trial < _FEWEST_OF_TRIAL:
            raise InputError("the trial is too small", expected=f"{_FEWEST_OF_TRIAL} or more", found=str(self.n_trial))


@dataclass(frozen=True)
class ExpectedMap:
    """What the average of so many particles of one map would come to: Å where the FSC of its halves falls to 0.143."""

    name: str
    n_particles: int
    resolution_angstrom: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Needed:
    """How many particles of each map something takes; a limit is None where no number of them is enough.

    Parameters
    ----------
    what
        The map, or the pair of maps.
    n_particles, fewest, most
        The estimate and its 95 % interval. Of pairs within the numbers that were asked for.
    """

    what: tuple[str, ...]
    n_particles: float | None
    fewest: float | None
    most: float | None


@dataclass(frozen=True)
class Plan:
    """What was found.

    Parameters
    ----------
    recorded
        What was measured of the particles.
    separations
        Of every pair of maps, for every number and for the maps themselves.
    maps
        Of every map, for every number.
    for_ari
        Particles that each pair needs for an adjusted Rand index of 0.9.
    for_resolution
        Particles that each map needs for the resolution that was asked for.
    """

    recorded: Recorded
    separations: tuple[Separation, ...]
    maps: tuple[ExpectedMap, ...]
    for_ari: tuple[Needed, ...]
    for_resolution: tuple[Needed, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types; infinity, the maps themselves as templates, is null."""
        found: dict[str, Any] = {"measured": describe(self.recorded)}
        for name in ("separations", "maps", "for_ari", "for_resolution"):
            found[name] = [_plain(asdict(entry)) for entry in getattr(self, name)]
        return found


def plan_particles(
    request: PlanRequest,
    proteins: Mapping[str, Volume | Phantom | Atoms],
    tell: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Make a few particles of each map as the set was recorded, and compare them with templates of so many particles.

    Parameters
    ----------
    request
        What is asked.
    proteins
        By name.
    tell
        Hears what is being computed.

    Raises
    ------
    InputError
        If particles or maps cannot be used, the SNR cannot be told from 0, or the resolution is beyond Nyquist.
    """
    tell("measuring particles")
    recorded = measure_particles(request.measure, proteins)
    _require_resolution(request.resolution_angstrom, recorded)
    # Two rounds for each number, and one for the maps themselves, of every particle with every map.
    compared = request.n_trial * len(proteins) ** 2 * (2 * len(request.numbers) + 1)
    declare(Forecast(request.measure.star, box=(recorded.box_size,) * 3, work={"matching": compared}))
    trial = Trial(recorded, request.n_trial, request.measure.seed)
    results: dict[float, TrialResult] = {}
    for number in (*request.numbers, math.inf):
        tell("templates: the maps themselves" if number == math.inf else f"templates of {number:,} particles")
        results[number] = trial.run(number)
    names = list(proteins)
    low, high = recorded.snr_interval
    error = (high - low) / (2 * 1.96) / recorded.snr
    separations = tuple(
        separate(
            (names[i], _difference(trial, result, i, j)),
            (names[j], _difference(trial, result, j, i)),
            number,
            error,
            request.measure.seed,
        )
        for i, j in combinations(range(len(names)), 2)
        for number, result in results.items()
    )
    averages = _Averages(trial, results, recorded)
    return Plan(
        recorded,
        separations,
        tuple(averages.expected(name, k, number) for k, name in enumerate(names) for number in request.numbers),
        tuple(_for_ari(pair, separations) for pair in combinations(names, 2)),
        tuple(
            averages.needed(name, k, request.resolution_angstrom)
            for k, name in enumerate(names)
            if request.resolution_angstrom is not None
        ),
    )


class _Averages:
    """Averages of so many particles: what wrong poses leave is interpolated between the numbers of the trial."""

    def __init__(self, trial: Trial, results: Mapping[float, TrialResult], recorded: Recorded) -> None:
        self._trial, self._results, self._recorded = trial, results, recorded
        self._within = torch.stack([density_mask(volume).square().mean() for volume in trial.maps])

    def expected(self, name: str, k: int, number: int) -> ExpectedMap:
        low, high = self._recorded.snr_interval
        best, estimate, worst = (self._resolution(k, number, snr) for snr in (high, self._recorded.snr, low))
        return ExpectedMap(name, number, estimate, (best, worst))

    def needed(self, name: str, k: int, wanted: float) -> Needed:
        low, high = self._recorded.snr_interval

        def first(snr: float) -> float | None:
            return next((float(n) for n in _TRIED if self._resolution(k, float(n), snr) <= wanted), None)

        return Needed((name,), first(self._recorded.snr), first(high), first(low))

    def _resolution(self, k: int, number: float, snr: float) -> float:
        # More signal is as good as more particles.
        curve = self._trial.half_fsc(number * snr / self._recorded.snr, self._kept(number), self._within)[k]
        curve[-2:] = 0
        return resolution_angstrom(curve.double().numpy(), self._recorded.spacing_angstrom, _FSC)

    def _kept(self, number: float) -> Tensor:
        numbers = sorted(self._results)
        # Ten times the largest number is as good as the maps themselves.
        places = np.log([min(n, 10 * numbers[-2]) for n in numbers])
        place = float(np.interp(math.log(number), places, np.arange(len(numbers))))
        below, above = (self._results[numbers[round_(place)]].kept for round_ in (math.floor, math.ceil))
        return below + (above - below) * (place % 1)


def _difference(trial: Trial, result: TrialResult, own: int, other: int) -> Any:
    scores = result.scores[trial.labels == own].double()
    return (scores[:, own] - scores[:, other]).numpy()


def _for_ari(pair: tuple[str, str], separations: tuple[Separation, ...]) -> Needed:
    own = [each for each in separations if (each.first, each.second) == pair and each.n_particles < math.inf]
    numbers = [each.n_particles for each in own]
    limits = zip(*((each.ari, each.ari_interval[1], each.ari_interval[0]) for each in own), strict=True)
    return Needed(pair, *(first_reach(numbers, list(values), WANTED_ARI) for values in limits))


def _require_resolution(wanted: float | None, recorded: Recorded) -> None:
    finest = 2 * recorded.spacing_angstrom * recorded.box_size / (recorded.box_size - 4)
    if wanted is not None and not finest <= wanted < recorded.box_size * recorded.spacing_angstrom:
        raise InputError(
            "this resolution cannot be planned for",
            file=recorded.particles.source,
            expected=f"{finest:.3g} Å or coarser, in a box of {recorded.box_size} of {recorded.spacing_angstrom:.3g} Å",
            found=f"{wanted:g} Å",
            remedy="use a larger --box, up to that of the particles",
        )


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    def value(item: Any) -> Any:
        if isinstance(item, tuple):
            return [value(each) for each in item]
        if isinstance(item, float):
            return float(f"{item:.4g}") if math.isfinite(item) else None
        return item

    return {key: value(item) for key, item in entry.items()}
