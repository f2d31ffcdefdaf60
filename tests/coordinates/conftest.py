from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tests.coordinates.layouts import PLACES, SIZE, VOXEL
from tests.simulated import blobs


@pytest.fixture(scope="session")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blob at either place, in voxels of 10 Å."""
    path = tmp_path_factory.mktemp("tomogram") / "TS_1.mrc"
    shape = tuple(int(edge) for edge in (SIZE / VOXEL)[::-1])
    with mrcfile.new(path, blobs(shape, (PLACES / VOXEL)[:, ::-1], 1.5).astype(np.float32)) as mrc:
        mrc.voxel_size = VOXEL
    return path
