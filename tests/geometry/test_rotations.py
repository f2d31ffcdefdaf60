import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from cryodc.geometry import (
    euler_from_matrices,
    geodesic_degrees,
    matrices_from_euler,
    random_rotations,
    resample,
    rotation_grid,
    rotations_from_vectors,
    symmetry_rotations,
)

ANGLES = st.floats(-4000, 4000)


def relion_euler_angles_to_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """RELION's Euler_angles2matrix, written out element by element; acts on xyz."""
    ca, cb, cg = (np.cos(np.radians(a)) for a in (rot, tilt, psi))
    sa, sb, sg = (np.sin(np.radians(a)) for a in (rot, tilt, psi))
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


@given(ANGLES, ANGLES, ANGLES)
def test_matrices_are_relions_with_axes_reversed(rot: float, tilt: float, psi: float) -> None:
    ours = matrices_from_euler([[rot, tilt, psi]])[0]
    np.testing.assert_allclose(ours[::-1, ::-1], relion_euler_angles_to_matrix(rot, tilt, psi), atol=1e-9)


@given(ANGLES, st.sampled_from([0.0, 180.0, -180.0]) | ANGLES, ANGLES)
def test_euler_angles_come_back_as_the_same_rotation(rot: float, tilt: float, psi: float) -> None:
    matrix = matrices_from_euler([[rot, tilt, psi]])
    assert geodesic_degrees(matrices_from_euler(euler_from_matrices(matrix)), matrix)[0] < 1e-4


def test_a_dot_at_the_centre_never_moves_under_rotation() -> None:
    for box in (16, 18):
        dot = torch.zeros(20, box, box, box)
        dot[:, box // 2, box // 2, box // 2] = 1
        turned = resample(dot, random_rotations(20, torch.Generator().manual_seed(0)))
        torch.testing.assert_close(turned[:, box // 2, box // 2, box // 2], torch.ones(20))


def test_resample_agrees_with_scipy_for_rotation_and_shift() -> None:
    generator = torch.Generator().manual_seed(1)
    box = 16
    volumes = torch.randn(3, box, box, box, generator=generator)
    matrices = random_rotations(3, generator)
    offsets = torch.randn(3, 3, generator=generator)
    ours = resample(volumes, matrices, offsets).numpy()
    inside = slice(5, 12)
    for i in range(3):
        m, t = matrices[i].double().numpy(), offsets[i].double().numpy()
        centre = np.full(3, box // 2)
        scipys = affine_transform(volumes[i].double().numpy(), m, offset=centre + t - m @ centre, order=1)
        np.testing.assert_allclose(ours[i][inside, inside, inside], scipys[inside, inside, inside], atol=1e-4)


def test_rotation_vectors_agree_with_scipy() -> None:
    vectors = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scipys = Rotation.from_rotvec(vectors.numpy()[:, ::-1]).as_matrix()[:, ::-1, ::-1]
    np.testing.assert_allclose(rotations_from_vectors(vectors).numpy(), scipys, atol=1e-12)


def test_random_rotations_are_uniform() -> None:
    rotations = random_rotations(20_000, torch.Generator().manual_seed(0)).double().numpy()
    angles = geodesic_degrees(rotations, np.eye(3))
    # The angle of a uniform rotation has density (1 − cos θ) / π: mean π/2 + 2/π, 126.5°.
    assert abs(angles.mean() - np.degrees(np.pi / 2 + 2 / np.pi)) < 0.7
    assert np.abs(rotations.mean(axis=0)).max() < 0.02


@pytest.mark.parametrize("step", [30.0, 15.0])
def test_every_rotation_is_near_the_grid(step: float) -> None:
    grid = rotation_grid(step).double().numpy()
    probes = random_rotations(300, torch.Generator().manual_seed(2)).double().numpy()
    nearest = geodesic_degrees(probes[:, None], grid[None]).min(axis=1)
    assert nearest.max() < step
    assert nearest.mean() > step / 4


@pytest.mark.parametrize(
    ("symbol", "order"), [("C1", 1), ("c7", 7), ("D2", 4), ("D7", 14), ("T", 12), ("O", 24), ("I", 60)]
)
def test_point_groups_are_closed(symbol: str, order: int) -> None:
    group = symmetry_rotations(symbol)
    assert len(group) == order
    products = np.einsum("aij,bjk->abik", group, group)
    assert geodesic_degrees(products[:, :, None], group[None, None]).min(axis=2).max() < 1e-4
    np.testing.assert_allclose(np.linalg.det(group), 1)


def test_cyclic_axis_is_z() -> None:
    for rotation in symmetry_rotations("C5"):
        np.testing.assert_allclose(rotation @ [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("symbol", ["", "X3", "C", "C0", "D", "I3", "Cx"])
def test_unknown_symmetry_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match="unknown symmetry"):
        symmetry_rotations(symbol)
