"""Phantoms: made-up proteins of a few hundred Gaussian beads, so they exist at any box size and spacing.

A phantom is rendered straight in its pose: no grid is ever interpolated. Its symmetry axes lie where RELION
expects them (:func:`cryodc.geometry.rotations.symmetry_rotations`). Lengths are in Å, vectors zyx, the phantom's centre
of mass is the origin. Two of them move: a hinge turns one domain as the state goes from 0 to 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryodc.errors import InputError
from cryodc.geometry import symmetry_rotations
from cryodc.simulation.beads import render_beads

BEAD_SPACING_ANGSTROM = 14.0


BEAD_SIGMA_ANGSTROM = 7.0


_N_STATES_OF_MEAN = 11


Solid = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""Says of each point, ``(n, 3)`` zyx in Å, whether it is inside."""


@dataclass(frozen=True)
class Hinge:
    """Turns the moving beads of the asymmetric unit about an axis.

    Parameters
    ----------
    pivot_angstrom, axis
        ``(3,)`` zyx: a point of the axis and its direction.
    degrees
        Angle at state 0 and at state 1.
    """

    pivot_angstrom: tuple[float, float, float]
    axis: tuple[float, float, float]
    degrees: tuple[float, float]

    def turn(self, positions: Float[NDArray[np.float64], "n 3"], state: float) -> NDArray[np.float64]:
        """Positions at a state."""
        angle = self.degrees[0] + state * (self.degrees[1] - self.degrees[0])
        axis_xyz = np.array(self.axis[::-1]) / np.linalg.norm(self.axis)
        matrix = Rotation.from_rotvec(math.radians(angle) * axis_xyz).as_matrix()[::-1, ::-1]
        return np.asarray((positions - self.pivot_angstrom) @ matrix.T + self.pivot_angstrom)


@dataclass(frozen=True)
class Phantom:
    """Beads of one asymmetric unit, the symmetry that repeats it, and the hinge that moves a part of it.

    Parameters
    ----------
    name
        As :func:`phantom` knows it.
    symmetry
        Point group, RELION's orientation.
    unit_angstrom, masses, moving
        ``(n, 3)`` zyx, ``(n,)`` and ``(n,)`` of the asymmetric unit, before the hinge and centring.
    hinge
        None for a rigid phantom, whose state changes nothing.
    """

    name: str
    symmetry: str
    unit_angstrom: Float[NDArray[np.float64], "n 3"]
    masses: Float[NDArray[np.float64], " n"]
    moving: Bool[NDArray[np.bool_], " n"]
    hinge: Hinge | None = None

    @property
    def moves(self) -> bool:
        """Whether its state means anything."""
        return self.hinge is not None

    def beads(self, states: Sequence[float]) -> Float[NDArray[np.float64], "b m 3"]:
        """Positions of all beads at these states; the origin is the centre of mass of state 0.5."""
        centre = np.average(self._repeat(0.5), axis=0, weights=self._all_masses())
        return np.stack([self._repeat(state) - centre for state in states])

    def radius_angstrom(self) -> float:
        """Distance of the outermost bead from the centre over all states."""
        return float(np.linalg.norm(self.beads([0.0, 0.5, 1.0]), axis=-1).max())

    def render(
        self,
        rotations: Float[Tensor, "b 3 3"],
        origins_angstrom: Float[Tensor, "b 3"],
        states: Float[Tensor, " b"],
        box_size: int,
        spacing_angstrom: float,
    ) -> Float[Tensor, "b d h w"]:
        """Volumes of the phantom in these poses and states: ``particle(x) = reference(Aᵀ (x + o))``.

        Beads are blurred by half a voxel beside their own width, which keeps them below the grid's Nyquist
        frequency.

        Parameters
        ----------
        rotations, origins_angstrom
            ``(n, 3, 3)`` and ``(n, 3)`` zyx: poses.
        states
            ``(n,)`` in [0, 1].
        box_size, spacing_angstrom
            Of the volumes.
        """
        beads = torch.from_numpy(self.beads(states.tolist()))
        placed = torch.einsum("bij,bmj->bmi", rotations.double(), beads) - origins_angstrom.double()[:, None]
        sigma = math.hypot(BEAD_SIGMA_ANGSTROM, 0.5 * spacing_angstrom) / spacing_angstrom
        masses = torch.from_numpy(self._all_masses()).float()
        return render_beads((placed / spacing_angstrom).float(), masses, sigma, box_size)

    def mean_map(self, box_size: int, spacing_angstrom: float) -> Float[Tensor, "d h w"]:
        """The unrotated phantom; one that moves is averaged over its states, as a class average would be."""
        n_states = _N_STATES_OF_MEAN if self.moves else 1
        states = (torch.arange(n_states) + 0.5) / n_states
        identity = torch.eye(3).expand(n_states, 3, 3)
        volumes = self.render(identity, torch.zeros(n_states, 3), states, box_size, spacing_angstrom)
        return volumes.mean(dim=0)

    def _repeat(self, state: float) -> NDArray[np.float64]:
        unit = self.unit_angstrom.copy()
        if self.hinge is not None:
            unit[self.moving] = self.hinge.turn(unit[self.moving], state)
        group = symmetry_rotations(self.symmetry)
        return np.asarray(np.einsum("gij,nj->gni", group, unit).reshape(-1, 3))

    def _all_masses(self) -> NDArray[np.float64]:
        return np.tile(self.masses, len(symmetry_rotations(self.symmetry)))


def phantom(name: str) -> Phantom:
    """A built-in phantom by name.

    Raises
    ------
    InputError
        If there is none of this name.

    Examples
    --------
    >>> [phantom(name).symmetry for name in PHANTOMS]
    ['C1', 'D7', 'C6', 'C2', 'D2', 'C3']
    """
    if name not in PHANTOMS:
        raise InputError("no such phantom", expected=", ".join(PHANTOMS), found=name)
    return PHANTOMS[name]()


def ellipsoid(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Solid:
    """A solid ellipsoid, turned about z, then y, then x."""
    turn = Rotation.from_euler("zyx", turn_degrees, degrees=True).as_matrix()[::-1, ::-1]
    return lambda points: np.asarray((((points - np.array(centre)) @ turn / np.array(radii)) ** 2).sum(axis=1) <= 1)


def rod(start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Solid:
    """A solid rod with round ends."""
    a, along = np.array(start), np.array(end) - np.array(start)

    def inside(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        t = np.clip((points - a) @ along / (along @ along), 0, 1)
        return np.asarray(np.linalg.norm(points - a - t[:, None] * along, axis=1) <= radius)

    return inside


def union(*solids: Solid) -> Solid:
    """What is inside any of these."""
    return lambda points: np.any([solid(points) for solid in solids], axis=0)


def _fill(
    name: str, symmetry: str, still: Solid, moving: Solid | None = None, hinge: Hinge | None = None, seed: int = 0
) -> Phantom:
    """Beads of uneven mass on a jittered lattice inside the solids; where both claim a point it moves."""
    generator = np.random.default_rng(seed)
    axis = np.arange(-140.0, 140.1, BEAD_SPACING_ANGSTROM)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lattice = lattice + generator.uniform(-5.0, 5.0, lattice.shape)
    masses = generator.uniform(0.4, 1.6, len(lattice))
    moves = np.zeros(len(lattice), dtype=bool) if moving is None else moving(lattice)
    inside = moves | still(lattice)
    return Phantom(name, symmetry, lattice[inside], masses[inside], moves[inside], hinge)


def _polar(z: float, radius: float, degrees: float) -> tuple[float, float, float]:
    return (z, radius * math.sin(math.radians(degrees)), radius * math.cos(math.radians(degrees)))


def _bilobe() -> Phantom:
    """Ribosome-like: a large lobe with stalks, and a small lobe that ratchets on it."""
    large = union(
        ellipsoid((-22.0, 0.0, 0.0), (46.0, 62.0, 70.0), (0.0, 0.0, 15.0)),
        ellipsoid((-2.0, -52.0, 20.0), (22.0, 24.0, 26.0)),
        rod((-10.0, 30.0, 45.0), (12.0, 72.0, 62.0), 13.0),
        rod((-20.0, 0.0, -60.0), (6.0, -12.0, -94.0), 12.0),
    )
    small = union(
        ellipsoid((50.0, 6.0, -8.0), (24.0, 60.0, 34.0), (20.0, 0.0, 0.0)),
        ellipsoid((66.0, -44.0, 16.0), (20.0, 20.0, 26.0)),
        rod((44.0, 44.0, -20.0), (28.0, 70.0, -44.0), 11.0),
    )
    return _fill("bilobe", "C1", large, small, Hinge((24.0, 0.0, 0.0), (1.0, 0.0, 0.0), (-15.0, 15.0)), seed=1)


def _barrel() -> Phantom:
    """Proteasome-like: four stacked rings of seven."""
    unit = union(
        ellipsoid(_polar(18.0, 42.0, 8.0), (19.0, 16.0, 17.0)),
        ellipsoid(_polar(55.0, 44.0, -8.0), (20.0, 15.0, 20.0), (8.0, 0.0, 0.0)),
        ellipsoid(_polar(72.0, 56.0, -14.0), (12.0, 12.0, 15.0)),
    )
    return _fill("barrel", "D7", unit, seed=2)


def _wheel() -> Phantom:
    """A ring of six with spokes and a hub that sticks out on one side."""
    unit = union(
        ellipsoid(_polar(0.0, 72.0, 0.0), (22.0, 30.0, 22.0), (25.0, 0.0, 30.0)),
        ellipsoid(_polar(-30.0, 58.0, 22.0), (18.0, 15.0, 17.0)),
        rod(_polar(4.0, 14.0, 10.0), _polar(2.0, 56.0, 2.0), 10.0),
        ellipsoid(_polar(34.0, 15.0, 0.0), (32.0, 12.0, 12.0)),
    )
    return _fill("wheel", "C6", unit, seed=3)


def _clamp() -> Phantom:
    """Two long arms on a common base, which open and close."""
    base = ellipsoid((-62.0, 8.0, 14.0), (24.0, 26.0, 24.0))
    arm = union(
        rod((-56.0, 6.0, 26.0), (0.0, 22.0, 50.0), 17.0),
        rod((0.0, 22.0, 50.0), (64.0, 6.0, 34.0), 16.0),
        ellipsoid((66.0, -8.0, 26.0), (24.0, 22.0, 20.0)),
        ellipsoid((-4.0, 40.0, 48.0), (18.0, 18.0, 16.0)),
    )
    return _fill("clamp", "C2", base, arm, Hinge((-58.0, 0.0, 22.0), (0.0, 1.0, 0.0), (-10.0, 10.0)), seed=4)


def _bar() -> Phantom:
    """A flat, elongated tetramer."""
    unit = union(
        ellipsoid((14.0, 22.0, 44.0), (18.0, 26.0, 34.0), (20.0, 0.0, 15.0)),
        ellipsoid((24.0, 14.0, 82.0), (16.0, 16.0, 18.0)),
        ellipsoid((6.0, 12.0, 12.0), (14.0, 16.0, 18.0)),
    )
    return _fill("bar", "D2", unit, seed=5)


def _tripod() -> Phantom:
    """Spike-like: three heads on a stalk."""
    unit = union(
        ellipsoid(_polar(58.0, 38.0, 0.0), (24.0, 22.0, 30.0), (0.0, 0.0, 20.0)),
        ellipsoid(_polar(26.0, 30.0, 40.0), (30.0, 16.0, 18.0)),
        rod(_polar(30.0, 10.0, 20.0), _polar(-70.0, 8.0, 60.0), 10.0),
        ellipsoid(_polar(-58.0, 22.0, 90.0), (16.0, 14.0, 14.0)),
    )
    return _fill("tripod", "C3", unit, seed=6)


PHANTOMS: dict[str, Callable[[], Phantom]] = {
    "bilobe": _bilobe,
    "barrel": _barrel,
    "wheel": _wheel,
    "clamp": _clamp,
    "bar": _bar,
    "tripod": _tripod,
}
"""By name, the four of the demo first."""


DEMO_PHANTOMS = ("bilobe", "barrel", "wheel", "clamp")


def demo_phantoms() -> dict[str, Phantom]:
    """The four phantoms of ``cryodc demo`` by name."""
    return {name: phantom(name) for name in DEMO_PHANTOMS}
