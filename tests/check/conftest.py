import shutil
from pathlib import Path

import pytest

from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation


@pytest.fixture(scope="session")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty particles of two phantoms, SNR 0.1, ±60°, with their poses; shared, so never written into."""
    folder = tmp_path_factory.mktemp("right") / "sim"
    config = SimulationConfig(n_per_map=30, snr=0.1, box_size=24, spacing_angstrom=13.0, n_tomograms=2, seed=3)
    write_simulation(choose_proteins(["bilobe", "clamp"], []), config, folder, with_poses=True)
    return folder


@pytest.fixture
def copy(right: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(right, tmp_path / "set"))
