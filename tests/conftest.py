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
