import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real particles, maps and STAR files: ``../shared/data``, or ``CRYODC_DATA``."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CRYODC_DATA", beside))
    if not folder.is_dir():
        missing = f"the shared data is not at {folder}; set CRYODC_DATA to its folder"
        if os.environ.get("CRYODC_REQUIRE_DATA") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder taken through every verb on 24 particles of two phantoms; shared, so never write into it."""
    from cryodc.averaging import average_run
    from cryodc.clustering import cluster_run
    from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
    from cryodc.training import TrainRequest, train_run

    folder = tmp_path_factory.mktemp("small")
    proteins = choose_proteins(["bilobe", "barrel"], [])
    simulation = SimulationConfig(n_per_map=12, snr=0.5, n_tomograms=3, box_size=24, spacing_angstrom=15.0)
    write_simulation(proteins, simulation, folder / "sim", with_poses=True)
    overrides = {
        "model": {"width": 8, "max_channels": 16},
        "optimisation": {"epochs": 2, "batch_size": 8},
    }
    run, _ = train_run(TrainRequest(folder / "sim" / "particles.star", folder / "run", overrides=overrides))
    cluster_run(run, 2)
    average_run(run)
    return run.path
