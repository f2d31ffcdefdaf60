from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tests.picks.picked import BLOBS, POSITIONS, SHAPE, SPACING, _blobs, _matrices


@pytest.fixture(scope="session")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four particles at positions between voxels."""
    path = tmp_path_factory.mktemp("tomogram") / "TS_07.mrc"
    centres = np.concatenate([BLOBS @ a.T + p for a, p in zip(_matrices(), POSITIONS, strict=True)])
    with mrcfile.new(path, _blobs(SHAPE, centres)) as mrc:
        mrc.voxel_size = SPACING
    return path
