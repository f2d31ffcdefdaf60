"""States and axes are the same whether measurements are kept in memory or in a file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.alignment import balanced_halves
from cryodc.fourier import fourier_ball, soft_sphere, wedge_from_tilt_range
from cryodc.geometry import random_rotations
from cryodc.simulation import SimulationConfig, phantom, simulate_particles
from cryodc.states.conformations import find_conformations
from cryodc.states.measurements import Measurements, PosedBatch, measure
from cryodc.states.relax import relax_symmetry
from cryodc.states.storage import FileRows, Storage

N, BOX, SHELLS = 48, 16, 6
CPU = torch.device("cpu")


def batches() -> Iterator[PosedBatch]:
    made = simulate_particles(
        {"clamp": phantom("clamp")}, SimulationConfig(n_per_map=N, snr=1.0, seed=4, box_size=BOX, spacing_angstrom=20.0)
    )
    weight = wedge_from_tilt_range(BOX, -60, 60)
    rotations = random_rotations(N, torch.Generator().manual_seed(0))
    for rows in torch.arange(N).split(20):
        yield made.volumes[rows], weight.expand(len(rows), -1, -1, -1), rotations[rows], torch.zeros(len(rows), 3)


def test_states_are_the_same_in_memory_or_in_a_file(tmp_path: Path) -> None:
    mask, halves, found = soft_sphere(BOX, 6.0, 2.0), balanced_halves(N, 0), []
    for storage in (Storage(N), Storage(N, 0, tmp_path)):
        measured, average = measure(batches, mask, SHELLS, storage)
        relaxed, _, mates = relax_symmetry(measured, average, halves, "C2")
        found.append((measured, average, mates, find_conformations(relaxed, halves, n_starts=1)))
    (held, average, mates, states), (filed, average_again, mates_again, again) = found
    assert isinstance(held.data, torch.Tensor)
    assert isinstance(filed.data, FileRows)
    assert torch.equal(average, average_again)
    assert torch.equal(mates, mates_again)
    assert torch.equal(states.axes, again.axes)
    for name in ("labels", "confidence", "coordinates", "coordinate_errors"):
        np.testing.assert_array_equal(getattr(states, name), getattr(again, name))
    assert states.verdict == again.verdict
    assert not list(tmp_path.iterdir())


def test_rows_of_a_file_are_those_of_the_array(tmp_path: Path) -> None:
    values = torch.randn(9, 5, dtype=torch.complex64)
    rows = FileRows(tmp_path, (9, 5), torch.complex64, CPU)
    rows[4:9], rows[0:4] = values[4:9], values[0:4]
    for wanted in (slice(2, 7), torch.tensor([8, 0, 1, 1, 2, 7])):
        assert torch.equal(rows[wanted], values[wanted])
    with pytest.raises(EOFError):
        FileRows(tmp_path, (9, 5), torch.complex64, CPU)[0:1]


def test_what_is_looked_at_at_once_does_not_grow_with_the_particles() -> None:
    """States once took several arrays as large as all particles at 16 shells."""
    ball = fourier_ball(48, 16.0)
    rows = torch.zeros(1000, dtype=torch.long)
    particles = Measurements(
        torch.zeros(1, len(ball), dtype=torch.complex64), torch.ones(1, len(ball)), ball, torch.ones(48, 48, 48), rows
    )
    sizes = [len(data) for _, data, _ in particles.parts()]
    assert sum(sizes) == 1000
    assert max(sizes) * len(ball) <= 2**21
