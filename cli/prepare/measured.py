"""What is measured of a set of particles, as it is told."""

from typing import TYPE_CHECKING

from cryodc_cli.options import console

if TYPE_CHECKING:
    from cryodc.planning import Recorded


def print_measured(recorded: "Recorded") -> None:
    """Print wedge, noise and SNR, a line each."""
    printer = console()
    if recorded.wedge is not None:
        printer.print(f"wedge  {recorded.wedge}, as measured", markup=False)
    n = len(recorded.noise.groups)
    each = "1 tomogram" if n == 1 else f"{n} tomograms, each"
    printer.print(f"noise  by shell and weight; of {each} by itself", markup=False)
    low, high = recorded.snr_interval
    said = "as given" if low == high else f"{low:.3g} to {high:.3g} (95 %), of {recorded.n_sampled} particles"
    printer.print(f"SNR    {recorded.snr:.3g}: {said}", markup=False)
