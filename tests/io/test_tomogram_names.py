"""Which tomogram a name is: whole names after a stated set of endings; what could be two is an error, showing both."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from hypothesis import given
from hypothesis import strategies as st

from cryodc.check import CheckSettings, check_particles
from cryodc.dataset import InputOptions, load_dataset
from cryodc.errors import InputError
from cryodc.io import file_names, find_by_name, find_name
from cryodc.particles import read_particles
from cryodc.picks import ExtractRequest, extract_subtomograms

SHAPE = (24, 32, 32)
BOX = 8


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        # Names that merely begin alike are other tomograms, both ways.
        ("Position_1", ["Position_1_2.mrc"], None),
        ("Position_1_2", ["Position_1.mrc"], None),
        ("Position_1", ["Position_1_2.mrc", "Position_1.mrc"], 1),
        ("TS_1", ["TS_10.mrc", "TS_1.mrc", "TS_11.mrc"], 1),
        ("grid.A", ["grid.mrc", "grid.A.mrc"], 1),
        ("TS-1", ["TS-1-b.mrc"], None),
        ("lam8_ts_004", ["lam8_ts_004_2.rec"], None),
        # The endings of files, whatever their number.
        ("TS_01.tomostar", ["other/TS_01.mrc.gz"], 0),
        ("JTL016A_2_L01_ts_002.mrc.tomostar", ["JTL016A_2_L01_ts_002.mrc"], 0),
        ("tomograms/TS_001/TS_001_aligned.st:mrc", ["TS_001.rec"], 0),
        # What programs add.
        ("/far/01006_10.73Apx.mrc", ["01006.mrc"], 0),
        ("tomo_ts01.mrc_15.00Apx.mrc", ["tomo_ts01.mrc"], 0),
        ("TS_01", ["rec_TS_01.mrc"], 0),
        ("TS_01", ["TS_01_bin4_denoised.mrc"], 0),
        ("TS_01", ["TS_01_full_rec.mrc"], 0),
        # The whole name wins over one with something added.
        ("TS_01", ["TS_01_10.00Apx.mrc", "TS_01.mrc"], 1),
        ("TS_01_rec", ["TS_01.mrc", "TS_01_rec.mrc"], 1),
        # A bare number is the last one of a name, never a part of it or of a pixel size.
        ("7", ["TS_07.mrc", "TS_17.mrc"], 0),
        ("7", ["TS_07_10.00Apx.mrc"], 0),
        ("0", ["TS_07_10.00Apx.mrc"], None),
        ("1", ["Position_1_2.mrc"], None),
        ("2", ["Position_1_2.mrc"], 0),
        ("7" * 5000, ["TS_" + "7" * 5000 + ".mrc"], None),
    ],
)
def test_a_name_is_the_tomogram_of_the_same_name(name: str, names: list[str], expected: int | None) -> None:
    assert find_name(name, names) == expected


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("TS_01", ["TS_01_10.00Apx.mrc", "TS_01_5.00Apx.mrc"]),
        ("TS_01", ["TS_01_rec.mrc", "rec_TS_01.mrc"]),
        ("7", ["left_7.mrc", "right_07.mrc"]),
        ("TS_01.mrc", ["a/TS_01.mrc", "b/TS_01.mrc"]),
    ],
)
def test_what_could_be_two_tomograms_is_an_error_that_shows_both(name: str, names: list[str]) -> None:
    with pytest.raises(InputError, match="could be several") as caught:
        find_name(name, names, file=Path("picks.star"), row=3)
    assert all(name in str(caught.value.found) for name in names)
    assert caught.value.row == 3


_NAMES = st.lists(st.text("ab_/.1", min_size=1, max_size=6), min_size=1, max_size=8)


@given(_NAMES)
def test_no_two_tomograms_share_a_file(names: list[str]) -> None:
    given_names = file_names(names, ("_classes",))
    files = [f"{stem}{ending}".lower() for stem in given_names.values() for ending in ("", "_classes")]
    assert set(given_names) == set(names)
    assert len(set(files)) == len(files)
    assert not any("/" in file or file.startswith(".") for file in files)


def test_files_of_equal_names_carry_their_folders() -> None:
    assert file_names(["a/TS.mrc", "b/TS.mrc", "TS_2"]) == {"a/TS.mrc": "a_TS", "b/TS.mrc": "b_TS", "TS_2": "TS_2"}


def _tomogram(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)) as mrc:
        mrc.voxel_size = 10.0
    return path


@pytest.fixture
def prefixes(tmp_path: Path) -> tuple[list[Path], Path]:
    """Position_1 and Position_1_2, and a pick in each."""
    files = [_tomogram(tmp_path / f"{name}.mrc", seed) for seed, name in enumerate(("Position_1", "Position_1_2"))]
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z,tomogram\n16,16,12,Position_1_2\n15,14,11,Position_1\n")
    return files, picks


def _box(path: Path, x: int, y: int, z: int) -> np.ndarray:
    with mrcfile.open(path) as mrc:
        return mrc.data[z - 4 : z + 4, y - 4 : y + 4, x - 4 : x + 4].copy()


def test_picks_are_cut_from_the_tomogram_of_their_name_only(prefixes: tuple[list[Path], Path], tmp_path: Path) -> None:
    (first, second), picks = prefixes
    both = extract_subtomograms(ExtractRequest([first, second], picks, tmp_path / "both", BOX, normalise=False))
    table = starfile.read(both.star)["particles"].set_index("rlnTomoName")
    for name, file, place in (("Position_1", first, (15, 14, 11)), ("Position_1_2", second, (16, 16, 12))):
        with mrcfile.open(tmp_path / "both" / table.loc[name, "rlnImageName"]) as mrc:
            np.testing.assert_allclose(mrc.data, _box(file, *place), atol=1e-5)
    for file, name in ((first, "Position_1"), (second, "Position_1_2")):
        out = tmp_path / f"only {name}"
        with pytest.raises(InputError, match="no tomogram has this pick's name"):
            extract_subtomograms(ExtractRequest([file], picks, out, BOX))
        found = extract_subtomograms(ExtractRequest([file], picks, out, BOX, skip_others=True))
        assert (dict(found.n_extracted), found.n_skipped) == ({name: 1}, 1)


def test_a_tomogram_that_is_not_there_is_said_to_be_not_there(
    prefixes: tuple[list[Path], Path], tmp_path: Path
) -> None:
    for picks in (prefixes[1], tmp_path / "nor this"):
        with pytest.raises(InputError, match="there is no such tomogram") as caught:
            extract_subtomograms(ExtractRequest([tmp_path / "nothere.mrc"], picks, tmp_path / "out", BOX))
        assert caught.value.file == tmp_path / "nothere.mrc"


def test_two_tomograms_of_the_picks_are_not_one_file(tmp_path: Path) -> None:
    file = _tomogram(tmp_path / "TS.mrc", 0)
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z,tomogram\n16,16,12,a/TS.mrc\n15,14,11,b/TS.mrc\n")
    with pytest.raises(InputError, match=r"several tomograms of the picks could be TS\.mrc") as caught:
        extract_subtomograms(ExtractRequest([file], picks, tmp_path / "out", BOX))
    assert caught.value.found == "a/TS.mrc, b/TS.mrc"
    assert caught.value.row == 3


def test_tilt_ranges_are_found_by_the_same_rule(prefixes: tuple[list[Path], Path], tmp_path: Path) -> None:
    files, picks = prefixes
    table = {"Position_1_2.mrc": (-40.0, 40.0), "Position_1_10.00Apx": (-60.0, 60.0)}
    star = extract_subtomograms(ExtractRequest(files, picks, tmp_path / "plain", BOX)).star
    particles = read_particles(star)
    dataset = load_dataset(particles, InputOptions(tilt_ranges=table))
    measured = dataset.weights.mean(dim=(1, 2, 3))[dataset.weight_index]
    wide = [name == "Position_1" for name in particles.tomograms]
    assert (measured == measured.max()).tolist() == wide
    # Extract gives each the same wedge, and check misses none; of a name that only begins so, it does.
    with_weights = extract_subtomograms(ExtractRequest(files, picks, tmp_path / "own", BOX, tilt_ranges=table))
    own = load_dataset(read_particles(with_weights.star))
    np.testing.assert_allclose(own.weights[own.weight_index], dataset.weights[dataset.weight_index])
    assert not _missing(star, table)
    assert _missing(star, {"Position_1": (-60.0, 60.0)}) == ["none for Position_1_2"]
    with pytest.raises(InputError, match="could be several"):
        find_by_name({"Position_1_rec": (1, 2), "Position_1_10.00Apx": (3, 4)}, "Position_1")


def _missing(star: Path, table: dict[str, tuple[float, float]]) -> list[str]:
    report = check_particles(star, CheckSettings(options=InputOptions(tilt_ranges=table)))
    return [str(p.error.found) for p in report.problems if "have no tilt range" in p.error.problem]


def test_the_command_says_which_file_is_not_there(prefixes: tuple[list[Path], Path], tmp_path: Path) -> None:
    command = [str(tmp_path / "nothere.mrc"), "--picks", str(prefixes[1]), "--box", "8", "--out", str(tmp_path / "o")]
    said = CliRunner().invoke(load_verb("extract"), command)
    assert isinstance(said.exception, InputError)
    assert "nothere.mrc" in str(said.exception)
