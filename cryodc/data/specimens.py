"""What can be put under the microscope: phantoms and prepared maps."""

from collections.abc import Mapping

from cryodc.data.maps import MapSpecimen, prepare_map
from cryodc.data.phantoms import Phantom
from cryodc.errors import InputError
from cryodc.volumes import Volume

Specimen = Phantom | MapSpecimen
"""Both have ``symmetry``, ``moves``, ``render`` (clean volumes in poses and states) and ``mean_map``."""


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
