"""How strong the protein is in particles, from the agreement of the half maps of their classes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import agreeing_shells
from cryodc.planning.noise import PowerSums
from cryodc.runs import FSC_COLUMNS, RunFolder, read_table, require_averages

_FIRST_SHELL, _FEWEST_SHELLS = 2, 2
_HIGHEST = 0.98


@dataclass(frozen=True)
class ClassCurve:
    """What a class says: how many particles it has, and the FSC of its half maps without a mask.

    Parameters
    ----------
    n_particles
        Of both halves.
    fsc
        ``(s,)`` DC to Nyquist.
    """

    n_particles: int
    fsc: Float[NDArray[np.float64], " s"]


def class_curves(run: RunFolder, box_size: int) -> list[ClassCurve]:
    """Curves of the classes of a run that are aligned and have a resolution, as far as a box holds their shells.

    Raises
    ------
    InputError
        If there are no averages, or none whose half maps agree in several shells.
    """
    entries = [entry for entry in require_averages(run).classes if entry.aligned and entry.resolution_angstrom]
    table = read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")
    curves = [
        ClassCurve(entry.n_particles, table["fsc_unmasked"][table["class"] == entry.class_number].to_numpy(np.float64))
        for entry in entries
    ]
    curves = [curve for curve in curves if agreeing_shells(curve.fsc) >= _FIRST_SHELL + _FEWEST_SHELLS]
    if not curves:
        raise InputError(
            "no average of this run tells the SNR",
            file=run.averages,
            expected="a class that is aligned, whose half maps agree in several shells without a mask",
            remedy="measure without --run",
        )
    # A box that was cropped has the same shells at low frequency.
    return [ClassCurve(curve.n_particles, curve.fsc[: box_size // 2 + 1]) for curve in curves]


def strength_of_averages(
    curves: list[ClassCurve], sums: PowerSums, noise: Float[Tensor, "g s b"], spectrum: Float[Tensor, " s"]
) -> tuple[float, float]:
    """``a²`` that explains the FSC of half maps, and 1.96 of its standard errors.

    A half map of ``n / 2`` particles in all orientations, ``Σ H F / Σ H²``, has the signal-to-noise ratio
    ``FSC / (1 − FSC) = n / 2 · a² S ⟨H²⟩² / ⟨H² N⟩`` in each shell. The standard error of an FSC is ``(1 − FSC²) / √m``
    for ``m`` independent voxels. Poses that are wrong take from ``a²``: this is the protein that averages see.

    Parameters
    ----------
    curves
        Of the classes.
    sums, noise
        What was summed over particles, and the power of their noise.
    spectrum
        ``(s,)`` power ``S`` of a protein of variance 1.
    """
    squared = sums.squared_weight()
    seen = sums.by_shell(squared).square() / sums.by_shell(squared * noise).clamp_min(1e-12) * spectrum
    top = bottom = 0.0
    for curve in curves:
        shells = np.arange(_FIRST_SHELL, min(agreeing_shells(curve.fsc) + 1, len(curve.fsc) - 1))
        fsc = curve.fsc[shells].clip(0, _HIGHEST)
        model = curve.n_particles / 2 * seen.numpy()[shells]
        error = (1 + fsc) / (1 - fsc) / np.sqrt(2 * np.pi * shells**2)
        top += float((model * fsc / (1 - fsc) / error**2).sum())
        bottom += float(np.square(model / error).sum())
    return top / bottom, 1.96 / bottom**0.5
