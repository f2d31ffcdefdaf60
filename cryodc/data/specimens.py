"""What can be put under the microscope: phantoms and prepared maps, by one protocol."""

from collections.abc import Mapping
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from cryodc.data.maps import prepare_map
from cryodc.data.phantoms import Phantom
from cryodc.errors import InputError
from cryodc.volumes import Volume


class Specimen(Protocol):
    """A phantom, or a prepared map."""

    @property
    def symmetry(self) -> str:
        """Point group, RELION's orientation."""

    @property
    def moves(self) -> bool:
        """Whether it has states."""

    def render(
        self,
        rotations: Float[Tensor, "b 3 3"],
        origins_angstrom: Float[Tensor, "b 3"],
        states: Float[Tensor, " b"],
        box_size: int,
        spacing_angstrom: float,
    ) -> Float[Tensor, "b d h w"]:
        """Clean volumes in these poses."""

    def mean_map(self, box_size: int, spacing_angstrom: float) -> Float[Tensor, "d h w"]:
        """The unrotated specimen, averaged over its states."""


def prepare_specimens(
    maps: Mapping[str, Volume | Phantom], box_size: int, spacing_angstrom: float
) -> dict[str, Specimen]:
    """Maps centred, resampled and normalised; phantoms as they are.

    Raises
    ------
    InputError
        If there is nothing to simulate, or a map or phantom does not fit the box.
    """
    if not maps:
        raise InputError("there is nothing to simulate", remedy="name phantoms or maps")
    specimens: dict[str, Specimen] = {}
    half_box = box_size / 2 * spacing_angstrom
    for name, item in maps.items():
        if isinstance(item, Volume):
            specimens[name] = prepare_map(name, item, box_size, spacing_angstrom)
            continue
        if item.radius_angstrom() > half_box:
            raise InputError(
                f"phantom {name!r} does not fit the box",
                expected=f"a radius of at most {half_box:g} Å",
                found=f"{item.radius_angstrom():.0f} Å",
                remedy="use a larger --box or --spacing",
            )
        specimens[name] = item
    return specimens
