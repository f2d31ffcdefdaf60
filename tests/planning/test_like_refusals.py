"""What cannot be measured must be given."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate

from cryodc.dataset import InputOptions
from cryodc.errors import InputError
from cryodc.io import read_volume, write_volume
from cryodc.particles import read_particles
from cryodc.planning import MeasureRequest, measure_particles, write_like
from cryodc.simulation import SimulationConfig, write_simulation
from cryodc.volumes import Volume
from tests.planning.recorded import BARREL, BOX, SPACING, renumbered


def noise_only(folder: Path, n: int) -> Path:
    """Particles without protein, with a wedge."""
    config = SimulationConfig(n, BOX, SPACING, 1e-9)
    write_simulation(BARREL, config, folder)
    return folder / "particles.star"


def test_an_snr_that_cannot_be_told_from_nothing_must_be_given(tmp_path: Path) -> None:
    star = noise_only(tmp_path / "sim", 20)
    recorded = measure_particles(MeasureRequest(star), BARREL)
    assert recorded.snr < 0.005
    assert recorded.snr_interval[0] <= 0
    with pytest.raises(InputError, match="cannot be told from 0") as error:
        write_like(recorded, tmp_path / "like")
    assert "--snr" in str(error.value.remedy)
    assert not (tmp_path / "like").exists()
    assert len(write_like(measure_particles(MeasureRequest(star, snr=0.1), BARREL), tmp_path / "like")) == 20


def test_boxes_with_nothing_beyond_the_particle_are_refused(tmp_path: Path) -> None:
    star = noise_only(tmp_path / "sim", 6)
    axis = np.arange(BOX) - BOX // 2
    ball = sum(np.square(x) for x in np.meshgrid(axis, axis, axis)) <= (0.3 * BOX) ** 2
    for image in read_particles(star).images:
        write_volume(image.path, Volume(read_volume(image).voxels * ball.astype(np.float32), SPACING))
    with pytest.raises(InputError, match="nothing beyond the particle"):
        measure_particles(MeasureRequest(star), BARREL)


def test_too_few_particles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few particles"):
        measure_particles(MeasureRequest(noise_only(tmp_path / "sim", 4)), BARREL)


def test_the_command_tells_what_was_measured(known: tuple[Path, float], tmp_path: Path) -> None:
    star, _ = known
    out = tmp_path / "like"
    words = ["--like", str(star), "--phantoms", "barrel", "--out", str(out)]
    result = CliRunner().invoke(simulate, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2 tomograms" in result.output
    assert re.search(r"SNR +0\.\d+: 0\.\d+ to 0\.\d+ \(95 %\), of 48 particles", result.output)
    assert len((out / "noise.csv").read_text().splitlines()) > 100
    assert "snr_interval" in (out / "simulation.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--like", "p.star", "--box", "16"], "--box is measured by --like"),
        (["--like", "p.star", "--tilt-series"], "--tilt-series is measured by --like"),
        (["--data-dir", "."], "--data-dir is only for --like"),
    ],
)
def test_options_that_contradict_like_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(simulate, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_no_wedge_to_be_seen_and_none_given_is_refused(tmp_path: Path) -> None:
    config = SimulationConfig(20, BOX, SPACING, 0.1, ((-90.0, 90.0),))
    write_simulation(BARREL, config, tmp_path / "sim")
    star = tmp_path / "sim" / "particles.star"
    kept = [line for line in star.read_text().splitlines() if "rlnCtfImage" not in line]
    star.write_text("\n".join(re.sub(r"\S*weights/\S+", "", line) for line in renumbered(kept)) + "\n")
    with pytest.raises(InputError, match="the missing wedge is not known"):
        measure_particles(MeasureRequest(star), BARREL)
    assert measure_particles(MeasureRequest(star, options=InputOptions((-60, 60))), BARREL).wedge is None
