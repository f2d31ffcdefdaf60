"""A small bank of shapes, and codes for tests of templates."""

import numpy as np
import pytest
import torch

from cryodc.codes import Codes
from cryodc.geometry import random_rotations
from cryodc.templates import learn, match, shapes

CPU = torch.device("cpu")


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shapes, "N_SHAPES", 24)
    patch.setattr(shapes, "_N_SIMULATED", 30)
    patch.setattr(shapes, "_N_CALIBRATING", 30)
    patch.setattr(shapes, "_N_BISECTIONS", 4)
    patch.setattr(shapes, "_STEP_DEGREES", 30.0)
    patch.setattr(match, "STEP_DEGREES", 30.0)
    patch.setattr(learn, "_N_SIMULATED", 60)


def codes_of(names: tuple[str, ...], matched: np.ndarray | None) -> Codes:
    content = random_codes(len(names))
    return Codes(names, content, content, content, content, True, matched)


def random_codes(n: int) -> np.ndarray:
    return random_rotations(n, torch.Generator().manual_seed(0)).reshape(n, 9)[:, :4].numpy().astype(np.float32)
