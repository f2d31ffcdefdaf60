"""Decode: volumes of codes that no particle needs to have, or images where the model is one of images.

Shapes: a model of volumes decodes to ``(b, d, h, w)``, one of images to ``(b, h, w)`` or ``(b, channels, h, w)`` with
one or three channels. All of it is kept as it comes, but for a single channel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from cryodc.clustering import middle_code, principal_axes
from cryodc.codes import Codes
from cryodc.fourier import fourier_pad

FIRST_QUANTILE, LAST_QUANTILE = 0.05, 0.95
"""Of the members' codes along an axis: where a traversal begins and ends."""


@runtime_checkable
class DecodingModel(Protocol):
    """A model that decodes a content code and a transformation code per row."""

    def decode(self, content: Tensor, transformation: Tensor) -> Tensor:
        """``p(x | c, z)``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """They say on which device it is."""
        ...

    def eval(self) -> Any:
        """Stop what only training does."""
        ...


@dataclass(frozen=True)
class AtBox:
    """A model of volumes whose network works at a smaller box; what it decodes is interpolated.

    Parameters
    ----------
    model
        The model.
    box_size
        Even, in voxels: of the volumes wanted.
    """

    model: DecodingModel
    box_size: int

    def decode(self, content: Tensor, transformation: Tensor) -> Tensor:
        """``p(x | c, z)``: ``(b, d, h, w)``."""
        return fourier_pad(self.model.decode(content, transformation).float(), self.box_size)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the model."""
        return self.model.parameters()

    def eval(self) -> "AtBox":
        """Stop what only training does."""
        self.model.eval()
        return self


AxesOf = Callable[
    [Float[NDArray[np.float32], "n z"], int],
    tuple[Float[NDArray[np.float64], "a z"], Float[NDArray[np.float64], " a"], Float[NDArray[np.float64], " z"]],
]
"""Of transformation codes, at most so many axes: unit vectors, the share of variance along each, and their centre."""


@dataclass(frozen=True)
class TransferGrid:
    """Every content code of some particles with every transformation code of others.

    Parameters
    ----------
    rows, columns
        Rows of the codes: particles that give the content, and those that give the transformation.
    cells
        ``(rows, columns, *shape)``: decoded.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    cells: Float[NDArray[np.float32], "r k *shape"]

    @property
    def shares(self) -> tuple[float, float, float]:
        """How the cells differ: shares of their variance that go with the row, the column, and neither alone.

        A two-way analysis of variance, voxel by voxel. Three zeros where all cells are alike.
        """
        exact = self.cells.astype(np.float64)
        mean = exact.mean(axis=(0, 1))
        row = exact.mean(axis=1, keepdims=True) - mean
        column = exact.mean(axis=0, keepdims=True) - mean
        whole = float(((exact - mean) ** 2).mean())
        if whole < 1e-20:
            return 0.0, 0.0, 0.0
        along_rows, along_columns = float((row**2).mean()) / whole, float((column**2).mean()) / whole
        return along_rows, along_columns, max(0.0, 1 - along_rows - along_columns)


@dataclass(frozen=True)
class AxisTraversal:
    """What a class looks like along one principal axis of its transformation codes.

    Parameters
    ----------
    axis
        ``(dims,)`` unit vector in transformation codes.
    variance_share
        Share of the class's variance along it.
    positions
        ``(n,)`` distances from the centre: evenly spaced quantiles of the members', 5 to 95 %.
    cells
        ``(n, *shape)``: decoded.
    """

    axis: Float[NDArray[np.float64], " dims"]
    variance_share: float
    positions: Float[NDArray[np.float64], " n"]
    cells: Float[NDArray[np.float32], "n *shape"]

    @property
    def differences(self) -> Float[NDArray[np.float32], "n *shape"]:
        """Each cell less the middle one."""
        return self.cells - self.cells[len(self.cells) // 2]

    @property
    def change(self) -> float:
        """How far the ends are from the middle: the larger rms difference, in standard deviations of the middle."""
        middle = float(self.cells[len(self.cells) // 2].std())
        ends = self.differences[[0, -1]].astype(np.float64)
        rms = np.sqrt((ends**2).reshape(2, -1).mean(axis=1)).max()
        return float(rms / max(middle, 1e-12))


@dataclass(frozen=True)
class Traversal:
    """A class along the principal axes of its transformation codes, content held at its mean direction.

    Parameters
    ----------
    content
        ``(dims,)``: mean direction of the members' content codes, at their mean length.
    centre
        ``(dims,)``: mean of their transformation codes, or another code that all axes go through.
    axes
        Largest variance first; none where all codes are alike.
    """

    content: Float[NDArray[np.float32], " c"]
    centre: Float[NDArray[np.float64], " z"]
    axes: tuple[AxisTraversal, ...]


@torch.no_grad()
def decode_codes(
    model: DecodingModel,
    content: Float[NDArray[np.float32], "b c"],
    transformation: Float[NDArray[np.float32], "b z"],
    batch_size: int = 32,
) -> Float[NDArray[np.float32], "b *shape"]:
    """Decode pairs of codes: ``(b, d, h, w)``, ``(b, h, w)`` or ``(b, 3, h, w)``.

    Parameters
    ----------
    model
        With ``decode(content, transformation)``.
    batch_size
        Pairs decoded at once.
    """
    device = next(model.parameters()).device
    model.eval()
    parts = []
    for c, z in zip(
        torch.from_numpy(content).split(batch_size), torch.from_numpy(transformation).split(batch_size), strict=True
    ):
        parts.append(model.decode(c.to(device), z.to(device)).float().cpu())
    decoded = torch.cat(parts).numpy()
    return decoded[:, 0] if decoded.ndim == 4 and decoded.shape[1] == 1 else decoded


def transfer_grid(model: DecodingModel, codes: Codes, rows: Sequence[int], columns: Sequence[int]) -> TransferGrid:
    """Decode the content codes of some particles with the transformation codes of others.

    Parameters
    ----------
    model, codes
        What decodes, and the codes.
    rows, columns
        Rows of the codes; each at least one.
    """
    pairs = [(row, column) for row in rows for column in columns]
    content = codes.content[[row for row, _ in pairs]]
    transformation = codes.transformation[[column for _, column in pairs]]
    decoded = decode_codes(model, content, transformation)
    cells = decoded.reshape(len(rows), len(columns), *decoded.shape[1:])
    return TransferGrid(tuple(map(int, rows)), tuple(map(int, columns)), cells)


def code_axes(
    transformation: Float[NDArray[np.float32], "n z"], n_axes: int
) -> tuple[Float[NDArray[np.float64], "a z"], Float[NDArray[np.float64], " a"], Float[NDArray[np.float64], " z"]]:
    """Principal axes of codes, and their mean."""
    axes, shares = principal_axes(transformation, n_axes)
    return axes, shares, transformation.astype(np.float64).mean(axis=0)


def traverse(
    model: DecodingModel, codes: Codes, *, n_axes: int = 2, n_steps: int = 7, axes_of: AxesOf = code_axes
) -> Traversal:
    """Decode along the principal axes of the transformation codes of a class.

    Parameters
    ----------
    model
        What decodes.
    codes
        Of the members of the class, at least one.
    n_axes
        At most so many.
    n_steps
        Odd, so that there is a middle.
    axes_of
        Which axes, and through which code.

    Raises
    ------
    ValueError
        If the number of steps is even or below 3.
    """
    if n_steps < 3 or n_steps % 2 == 0:
        raise ValueError(f"expected an odd number of steps from 3 up, found {n_steps}")
    content = middle_code(codes.content, directional=codes.directional)
    exact = codes.transformation.astype(np.float64)
    axes, shares, centre = axes_of(codes.transformation, n_axes)
    quantiles = np.linspace(FIRST_QUANTILE, LAST_QUANTILE, n_steps)
    found = []
    for axis, share in zip(axes, shares, strict=True):
        positions = np.quantile((exact - centre) @ axis, quantiles)
        along = (centre + positions[:, None] * axis).astype(np.float32)
        cells = decode_codes(model, np.repeat(content[None], n_steps, axis=0), along)
        found.append(AxisTraversal(axis, float(share), positions, cells))
    return Traversal(content, centre, tuple(found))
