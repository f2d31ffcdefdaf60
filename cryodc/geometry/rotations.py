"""Rotations: RELION Euler angles, SO(3) sampling, and resampling of volumes.

Vectors are ``(z, y, x)``, so a rotation matrix here is RELION's with both axes reversed. A rotation matrix
``A`` takes a point of the reference to the same point of the particle: ``x_particle = A @ x_reference``.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

POINT_GROUPS = "C1…Cn, D1…Dn, T, O or I"
"""What :func:`symmetry_rotations` takes, for messages."""


def matrices_from_euler(angles_degrees: ArrayLike) -> NDArray[np.float64]:
    """RELION's (rot, tilt, psi) → rotation matrices acting on zyx vectors.

    Parameters
    ----------
    angles_degrees
        ``(n, 3)``: rlnAngleRot, rlnAngleTilt, rlnAnglePsi; any range.

    Returns
    -------
    ``(n, 3, 3)``, reference → particle.

    Notes
    -----
    The transpose of the intrinsic ZYZ rotation, RELION's ``Euler_angles2matrix``, with axes reversed.

    Examples
    --------
    A psi of 90° takes the reference's x axis to -y:

    >>> matrices_from_euler([[0.0, 0.0, 90.0]])[0].round(3) @ [0.0, 0.0, 1.0]
    array([ 0., -1.,  0.])
    """
    angles = np.asarray(angles_degrees, dtype=np.float64).reshape(-1, 3)
    xyz = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    return np.ascontiguousarray(xyz[:, ::-1, ::-1])


def euler_from_matrices(matrices: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrices acting on zyx vectors → RELION's (rot, tilt, psi) in degrees, ``(n, 3)``.

    At tilt 0° or 180° only rot ± psi is defined; psi carries it and rot is 0.
    """
    xyz = np.asarray(matrices, dtype=np.float64)[:, ::-1, ::-1]
    # R = Rz(rot) Ry(tilt) Rz(psi) is the transpose of RELION's matrix.
    r = np.swapaxes(xyz, 1, 2)
    tilt = np.arctan2(np.hypot(r[:, 0, 2], r[:, 1, 2]), r[:, 2, 2])
    regular = np.hypot(r[:, 0, 2], r[:, 1, 2]) > 1e-7
    rot = np.where(regular, np.arctan2(r[:, 1, 2], r[:, 0, 2]), 0.0)
    psi_regular = np.arctan2(r[:, 2, 1], -r[:, 2, 0])
    psi_pole = np.arctan2(r[:, 1, 0], r[:, 1, 1])
    psi = np.where(regular, psi_regular, psi_pole)
    return np.degrees(np.stack([rot, tilt, psi], axis=1))


def random_rotations(n_rotations: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 3 3"]:
    """Rotations drawn uniformly from SO(3) (mean angle 126.5°), as normalised 4D Gaussians."""
    device = torch.device("cpu") if generator is None else generator.device
    quaternions = torch.randn(n_rotations, 4, generator=generator, device=device)
    return matrices_from_quaternions(F.normalize(quaternions, dim=1))


def rotations_from_vectors(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation vectors (axis × angle, radians) → matrices: the exponential map, differentiable."""
    return torch.linalg.matrix_exp(rotation_generators(vectors))


def rotation_generators(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation vectors → the antisymmetric matrices whose exponentials are the rotations."""
    z, y, x = vectors.unbind(dim=1)
    zero = torch.zeros_like(x)
    # Reversing the axes is a reflection: the cross product changes sign.
    return torch.stack([zero, x, -y, -x, zero, z, y, -z, zero], dim=1).reshape(-1, 3, 3)


def matrices_from_quaternions(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Unit quaternions (scalar first) → rotation matrices."""
    w, x, y, z = quaternions.unbind(dim=1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def rotation_grid(step_degrees: float) -> Float[Tensor, "n 3 3"]:
    """Cover SO(3) evenly, neighbours about ``step_degrees`` apart.

    Super-Fibonacci spirals (Alexa, CVPR 2022). The number of rotations follows from the volume of SO(3):
    ``8π² / step³`` with the step in radians.

    Examples
    --------
    >>> rotation_grid(30.0).shape
    torch.Size([550, 3, 3])
    """
    n_rotations = max(1, round(8 * math.pi**2 / math.radians(step_degrees) ** 3))
    phi, psi = math.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n_rotations) + 0.5
    t = s / n_rotations
    d = 2 * math.pi * s
    r, big_r = np.sqrt(t), np.sqrt(1 - t)
    alpha, beta = d / phi, d / psi
    quaternions = np.stack([r * np.sin(alpha), r * np.cos(alpha), big_r * np.sin(beta), big_r * np.cos(beta)], axis=1)
    return matrices_from_quaternions(torch.from_numpy(quaternions)).float()


def geodesic_degrees(
    first: Float[NDArray[np.float64], "*first 3 3"], second: Float[NDArray[np.float64], "*second 3 3"]
) -> NDArray[np.float64]:
    """Angle of the rotation that takes one matrix to the other, degrees in [0, 180]; broadcasts.

    ``2 asin(‖A − B‖ / √8)``: accurate near 0, where the arc cosine of the trace is not.
    """
    chord = np.linalg.norm(np.asarray(first) - np.asarray(second), axis=(-2, -1)) / math.sqrt(8.0)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord, 0.0, 1.0))))


def resample(
    images: Float[Tensor, "b *image"],
    matrices: Float[Tensor, "b k k"],
    offsets_voxels: Float[Tensor, "b k"] | None = None,
    displacements_voxels: Float[Tensor, "b *space k"] | None = None,
) -> Float[Tensor, "b *image"]:
    """Rotate, shift and bend a batch of volumes or images: ``out(x) = in(M x + t + u(x))``, linear, zero outside.

    ``x`` is in voxels from the box centre, index ``N // 2`` (the DC voxel), so a dot there never moves under
    rotation. With a particle's pose ``(A, o)``: the aligned particle is ``M = A, t = −o``; the particle made
    from a reference is ``M = Aᵀ, t = Aᵀ o``.

    Parameters
    ----------
    images
        ``(b, d, h, w)``; in 2D ``(b, h, w)`` or ``(b, ch, h, w)``.
    matrices
        ``(b, k, k)``: 3D on zyx vectors, 2D on yx vectors.
    offsets_voxels
        ``(b, k)`` zyx or yx, in voxels.
    displacements_voxels
        ``(b, *space, k)`` u at every voxel, zyx or yx; none if not given.
    """
    dims = matrices.shape[-1]
    space = images.shape[-dims:]
    shape = torch.tensor(space, dtype=images.dtype, device=images.device)
    centre = torch.div(shape, 2, rounding_mode="floor")
    # affine_grid wants normalised xyz with −1 and 1 at the first and last voxel: u = 2 i / (N − 1) − 1.
    scale = 2 / (shape - 1)
    origin = 1 - scale * centre
    linear = scale[:, None] * matrices / scale[None, :]
    offsets = torch.zeros_like(matrices[:, 0]) if offsets_voxels is None else offsets_voxels
    constant = (linear @ origin) - origin + scale * offsets
    theta = torch.cat([linear.flip(1, 2), constant.flip(1)[:, :, None]], dim=2)
    channelled = images.reshape(len(images), -1, *space)
    # One product for all images; F.affine_grid makes one for each, and takes four times as long.
    lines = torch.meshgrid(
        *(torch.linspace(-1, 1, n, dtype=theta.dtype, device=theta.device) for n in space), indexing="ij"
    )
    places = torch.stack([*lines[::-1], torch.ones_like(lines[0])]).flatten(1)
    grid = (theta.flatten(0, 1) @ places).reshape(len(theta), dims, *space).movedim(1, -1)
    if displacements_voxels is not None:
        grid = grid + (scale * displacements_voxels).flip(-1)
    return F.grid_sample(channelled, grid, align_corners=True, padding_mode="zeros").reshape(images.shape)


def symmetry_rotations(symbol: str) -> NDArray[np.float64]:
    """Rotations of a point group, ``(order, 3, 3)`` on zyx vectors, in RELION's orientation.

    Parameters
    ----------
    symbol
        Schoenflies: C1, C7, D2, T, O or I; any case. Cyclic axes lie along z, the two-fold of D along x.

    Raises
    ------
    ValueError
        If the symbol is none of these.

    Examples
    --------
    >>> [len(symmetry_rotations(s)) for s in ("C1", "C7", "D7", "T", "O", "I")]
    [1, 7, 14, 12, 24, 60]
    """
    name = symbol.strip().upper()
    if name[:1] in ("T", "O", "I"):
        if name not in ("T", "O", "I"):
            raise ValueError(f"unknown symmetry {symbol!r}")
    elif name[:1] not in ("C", "D") or not name[1:].isdigit() or int(name[1:]) < 1:
        raise ValueError(f"unknown symmetry {symbol!r}")
    # scipy's stubs list only the letters, and its axis argument does nothing for T, O and I.
    group = Rotation.create_group(name, axis="Z")  # type: ignore[arg-type]
    return np.ascontiguousarray(group.as_matrix()[:, ::-1, ::-1])
