"""What can be put under the microscope: phantoms, prepared maps and atomic models."""

from collections.abc import Mapping

from cryodc.data.maps import MapSpecimen, prepare_map
from cryodc.data.phantoms import Phantom
from cryodc.data.structures import prepare_structure
from cryodc.errors import InputError
from cryodc.io.structures import Atoms
from cryodc.volumes import Volume

Specimen = Phantom | MapSpecimen
"""Both have ``symmetry``, ``moves``, ``render`` (clean volumes in poses and states) and ``mean_map``."""


def prepare_specimens(
    maps: Mapping[str, Volume | Phantom | Atoms],
    box_size: int,
    spacing_angstrom: float,
    resolution_angstrom: float | None = None,
) -> dict[str, Specimen]:
    """Maps centred, resampled and normalised; atoms drawn to a resolution; phantoms as they are.

    Raises
    ------
    InputError
        If there is nothing to simulate, or a map, structure or phantom does not fit the box.
    """
    if not maps:
        raise InputError("there is nothing to simulate", remedy="name phantoms, maps or structures")
    specimens: dict[str, Specimen] = {}
    half_box = box_size / 2 * spacing_angstrom
    for name, item in maps.items():
        if isinstance(item, Volume):
            specimens[name] = prepare_map(name, item, box_size, spacing_angstrom)
            continue
        if isinstance(item, Atoms):
            specimens[name] = prepare_structure(name, item, box_size, spacing_angstrom, resolution_angstrom)
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
