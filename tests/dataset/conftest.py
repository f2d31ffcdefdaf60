from pathlib import Path

import pytest

from cryodc.dataset import pack_files as pack
from cryodc.particles import ParticleSet, read_particles
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from tests.dataset.packs import BOX


@pytest.fixture(scope="session")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 particles of three tomograms with a wedge each; shared, so never changed."""
    folder = tmp_path_factory.mktemp("packed")
    simulation = SimulationConfig(
        n_per_map=12, snr=0.5, n_tomograms=3, box_size=BOX, spacing_angstrom=20.0, tilt_ranges=((-60, 60), (-40, 50))
    )
    write_simulation(choose_proteins(["bilobe", "barrel"], []), simulation, folder, with_poses=True)
    return folder / "particles.star"


@pytest.fixture(scope="session")
def particles(star: Path) -> ParticleSet:
    return read_particles(star)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five particles to a chunk."""
    monkeypatch.setattr(pack, "_CHUNK_BYTES", 5 * 4 * BOX**3)
