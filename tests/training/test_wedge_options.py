"""Tilt ranges that are none, and tilt ranges of particles that have weights."""

from pathlib import Path

import pytest

from cryodc.dataset import InputOptions
from cryodc.errors import InputError
from cryodc.models import preset_config
from cryodc.particles import read_particles
from cryodc.training import TrainRequest
from cryodc.training.loop import Listener
from cryodc.training.workflow import describe_run, prepare_run

NONE = [(60.0, -60.0), (0.0, 0.0), (-91.0, 60.0), (-60.0, 91.0), (float("nan"), 60.0), (-60.0, float("inf"))]


@pytest.mark.parametrize("pair", NONE)
def test_a_tilt_range_that_is_none_is_one_error_whether_or_not_it_is_needed(pair: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="tilt range is none"):
        InputOptions(tilt_range=pair)
    with pytest.raises(InputError, match="tilt range is none"):
        InputOptions(tilt_ranges={"TS_01": (-60.0, 60.0), "TS_02": pair})


@pytest.mark.parametrize("pair", [NONE[0], NONE[1]])
def test_training_refuses_it_beside_weights(small_run: Path, tmp_path: Path, pair: tuple[float, float]) -> None:
    from cryodc.training import train_run

    star = small_run.parent / "sim/particles.star"
    assert read_particles(star).weight_images is not None
    with pytest.raises(InputError, match="tilt range is none"):
        train_run(TrainRequest(star, tmp_path / "run", tilt_range=pair))
    assert not (tmp_path / "run/config.yaml").exists()


def test_training_says_that_it_does_not_use_a_tilt_range(small_run: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    star = small_run.parent / "sim/particles.star"
    request = TrainRequest(star, tmp_path / "run", tilt_range=(-50.0, 50.0), packed=False)
    prepare_run(request, listener=Listener(on_note=heard.append))
    assert heard == ["the STAR names weight volumes: the tilt range is not used"]
    prepare_run(TrainRequest(star, tmp_path / "other", packed=False), listener=Listener(on_note=heard.append))
    assert len(heard) == 1


@pytest.mark.parametrize("given", ["range", "table", "both"])
def test_a_tilt_range_that_is_not_used_is_not_recorded(small_run: Path, tmp_path: Path, given: str) -> None:
    star = small_run.parent / "sim/particles.star"
    table = tmp_path / "ranges.csv"
    table.write_text("tomogram,tilt_min,tilt_max\nTS_01,-50,50\n")
    request = TrainRequest(
        star,
        tmp_path / "run",
        tilt_range=None if given == "table" else (-50.0, 50.0),
        tilt_ranges_csv=None if given == "range" else table,
    )
    recorded = describe_run(request, read_particles(star), preset_config("default", 24))["input"]
    assert (recorded["tilt_range"], recorded["tilt_ranges"]) == (None, None)
