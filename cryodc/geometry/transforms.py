"""Where an image lies: rotations and affine transforms of 2D and 3D images from a few parameters.

A transform is a pair ``(M, t)`` for :func:`cryodc.geometry.rotations.resample`, ``out(x) = in(M x + t)``: matrices
``(b, k, k)`` and offsets ``(b, k)`` in voxels, on yx vectors in 2D and zyx vectors in 3D.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.geometry.rotations import rotation_generators, rotations_from_vectors

Transform = tuple[Float[Tensor, "b k k"], Float[Tensor, "b k"]]


def rotations_from_parameters(parameters: Float[Tensor, "b r"]) -> Float[Tensor, "b k k"]:
    """Rotations of the plane from one angle in radians, of space from a rotation vector; differentiable.

    A positive angle takes +x towards +y, as a rotation vector along +z does in space.

    Examples
    --------
    >>> rotations_from_parameters(torch.tensor([[torch.pi / 2]]))[0] @ torch.tensor([0.0, 1.0])
    tensor([ 1.0000e+00, -4.3711e-08])
    """
    if parameters.shape[1] == 3:
        return rotations_from_vectors(parameters)
    cosine, sine = parameters[:, 0].cos(), parameters[:, 0].sin()
    return torch.stack([cosine, sine, -sine, cosine], dim=1).reshape(-1, 2, 2)


def n_rotation_parameters(dims: int) -> int:
    """1 in the plane, 3 in space."""
    return 1 if dims == 2 else 3


def rigid(parameters: Float[Tensor, "b z"], dims: int) -> Transform:
    """A rotation as :func:`rotations` takes it, then a shift in voxels, as a transform."""
    n_angles = n_rotation_parameters(dims)
    return rotations_from_parameters(parameters[:, :n_angles]), parameters[:, n_angles:]


def invert(matrices: Float[Tensor, "b k k"], offsets_voxels: Float[Tensor, "b k"]) -> Transform:
    """The transform that undoes a rotation and shift: ``x ↦ Mᵀ (x − t)``."""
    transposed = matrices.mT
    return transposed, -torch.einsum("bij,bj->bi", transposed, offsets_voxels)


def exponential(generator: Float[Tensor, "b g"], dims: int) -> Transform:
    """The affine transform whose logarithm is a generator; that of minus the generator undoes it exactly.

    The matrix exponential of ``[[L, v], [0, 0]]`` (Detlefsen et al., CVPR 2018).

    Parameters
    ----------
    generator
        ``(b, k² + k)``: ``L`` row by row, then ``v`` in voxels. ``(b, r + k)``: rigid, ``L`` the logarithm of the
        rotation that :func:`rotations` makes of the first ``r`` numbers.
    dims
        ``k``, 2 or 3.
    """
    affine = generator.shape[1] == dims * (dims + 1)
    # In the plane and in space alike a rigid generator is shorter than an affine one.
    n_linear = dims**2 if affine else n_rotation_parameters(dims)
    linear, shift = generator[:, :n_linear], generator[:, n_linear:]
    matrix = linear.reshape(-1, dims, dims) if affine else _logarithm(linear)
    upper = torch.cat([matrix, shift[:, :, None]], dim=2)
    whole = torch.linalg.matrix_exp(torch.cat([upper, torch.zeros_like(upper[:, :1])], dim=1))
    return whole[:, :dims, :dims], whole[:, :dims, dims]


def _logarithm(parameters: Float[Tensor, "b r"]) -> Float[Tensor, "b k k"]:
    zero = torch.zeros_like(parameters[:, 0])
    if parameters.shape[1] == 1:
        angle = parameters[:, 0]
        return torch.stack([zero, angle, -angle, zero], dim=1).reshape(-1, 2, 2)
    return rotation_generators(parameters)
