"""Boxes that reach beyond a tomogram or hold nothing; mistakes, and an extraction that was killed."""

import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.extract import extract
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.fourier import fourier_shift, low_pass
from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.picks import ExtractRequest, extract_subtomograms, read_picks
from tests.picks.picked import POSITIONS, SHAPE, SPACING, _write_picks


def test_picks_of_other_tomograms_are_left_out_only_if_asked(tomogram: Path, tmp_path: Path) -> None:
    picks = tmp_path / "picks.csv"
    rows = "".join(f"{x},{y},{z},TS_07\n{x},{y},{z},TS_70\n" for x, y, z in POSITIONS)
    picks.write_text("x,y,z,tomogram\n" + rows)
    with pytest.raises(InputError, match="no tomogram has this pick's name") as caught:
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out"))
    assert caught.value.row == 3
    result = extract_subtomograms(_request([tomogram], picks, tmp_path / "out", skip_others=True))
    assert (dict(result.n_extracted), result.n_skipped) == ({"TS_07": 4}, 4)
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_70\n")
    with pytest.raises(InputError, match="no pick is from these tomograms"):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "b", skip_others=True))


def test_boxes_beyond_the_edge_are_dropped_and_listed_or_padded_with_their_mean(tomogram: Path, tmp_path: Path) -> None:
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n20.25,18.5,16\n8,8,8\n7.9,18.5,16\n2,18.5,16\n-9,18.5,16\n80,18.5,16\n80.6,18.5,16\n")
    said = CliRunner().invoke(
        extract,
        [str(tomogram), "--picks", str(picks), "--box", "16", "--out", str(tmp_path / "out")],
        env={"COLUMNS": "200"},
    )
    assert said.exit_code == 0, said.output
    # A box of 16 around voxel c spans c − 8 … c + 7: 8 and 80 are the last that fit.
    dropped = (tmp_path / "out" / "dropped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in dropped] == ["line", "5", "6", "8"]
    assert "Dropped 3 of 7" in said.output
    assert "line 6" in said.output
    padded = extract_subtomograms(
        ExtractRequest([tomogram], picks, tmp_path / "padded", 16, edge="pad", normalise=False)
    )
    assert [pick.row for pick in padded.dropped] == [6]
    volume = read_volume(read_particles(padded.star).images[3]).voxels
    with mrcfile.open(tomogram) as mrc:
        part = mrc.data[4:28, 6:30, 0:14]
    # Six columns lie outside; what was moved by half a voxel may ring beside the border.
    np.testing.assert_allclose(volume[:, :, :5], part.mean(), atol=0.02)


def test_a_pick_that_holds_no_image_is_dropped_with_the_reason(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).standard_normal((24, 24, 64)).astype(np.float32)
    voxels[:, :, 32:] = 0
    with mrcfile.new(tmp_path / "t.mrc", voxels) as mrc:
        mrc.voxel_size = SPACING
    with mrcfile.mmap(tmp_path / "t.mrc", "r+") as mrc:
        mrc.data[12, 12, 4] = np.nan
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n22,12,12\n8,12,12\n52,12,12\n")
    result = extract_subtomograms(ExtractRequest([tmp_path / "t.mrc"], picks, tmp_path / "out", 8))
    assert [(pick.row, pick.why) for pick in result.dropped] == [
        (3, "the box holds voxels that are NaN or infinite"),
        (4, "the box is constant: it holds no image"),
    ]


def test_where_every_box_is_dropped_no_folder_is_left_and_reasons_are_counted(tmp_path: Path) -> None:
    """The next try, in another unit or at other picks, is not refused because of the first."""
    voxels = np.random.default_rng(0).standard_normal((24, 24, 60)).astype(np.float32)
    voxels[:, :, :16] = 5.0
    with mrcfile.new(tmp_path / "t.mrc", voxels) as mrc:
        mrc.voxel_size = 10.0
        mrc.data[12, 12, 50] = np.nan
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z\n8,12,12\n7,12,12\n52,12,12\n")
    with pytest.raises(InputError, match="no particle is left") as caught:
        extract_subtomograms(ExtractRequest([tmp_path / "t.mrc"], picks, tmp_path / "out", 8))
    assert "the box is constant: it holds no image (2 of 3)" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def _request(tomograms: list[Path], picks: Path, out: Path, **options: object) -> ExtractRequest:
    return ExtractRequest(tomograms, picks, out, **{"box_size": 16, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("x,y,z,tomogram\n20,18,16,TS_09\n", {}, "no tomogram has this pick's name"),
        ("x,y,z,tomogram\n20,18,16,../../TS_99\n", {}, "no tomogram has this pick's name"),
        ("x,y\n20,18\n", {}, "lack columns"),
        ("x,y,z\n20,18,many\n", {}, "expected numbers"),
        ("x,y,z\n20,18,nan\n", {}, "expected numbers"),
        ("x,y,z\n", {}, "no picks"),
        ("x,y,z\n2000,18,16\n", {}, "no particle is left"),
        ("x,y,z\n1e300,-1e300,16\n", {"edge": "pad"}, "no particle is left"),
        ("x,y,z\n20,18,16\n", {"box_size": 15}, "box size cannot be used"),
        ("x,y,z\n20,18,16\n", {"tilt_range": (60, -60)}, "tilt range cannot be used"),
    ],
)
def test_a_mistake_is_one_error_before_any_box_is_written(
    tomogram: Path, tmp_path: Path, text: str, options: dict[str, object], problem: str
) -> None:
    picks = tmp_path / "picks.csv"
    picks.write_text(text)
    with pytest.raises(InputError, match=problem):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tbl", "1 2 3\n"),
        ("a.tbl", "x " * 35 + "\n"),
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2}}]}'),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": [[1]]}]}'),
        ("a.json", '{"points": [{"location": {"x": 1, "y": 2, "z": NaN}}]}'),
        ("a.star", "data_particles\nloop_\n_rlnImageName\na.mrc\n"),
        ("a.star", "data_m\nloop_\n_orig_x\n_orig_y\n1 2\n"),
        ("a.em", "x"),
        ("a.csv", "\0"),
        ("a.tbl.gz", "not gzip"),
    ],
)
def test_picks_that_cannot_be_read_are_one_error_that_names_them(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_picks(path)
    assert caught.value.file == path


def test_nothing_is_overwritten_and_spacings_must_agree(tomogram: Path, tmp_path: Path) -> None:
    picks = _write_picks("csv", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="refusing to overwrite"):
        extract_subtomograms(_request([tomogram], picks, tmp_path / "out"))
    other = tmp_path / "TS_08.mrc"
    with mrcfile.new(other, np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)) as mrc:
        mrc.voxel_size = 9.0
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_07\n20,18,16,TS_08\n")
    with pytest.raises(InputError, match="differ in voxel spacing"):
        extract_subtomograms(_request([tomogram, other], picks, tmp_path / "b"))
    with mrcfile.mmap(other, "r+") as mrc:
        mrc.voxel_size = 0
    picks.write_text("x,y,z,tomogram\n20,18,16,TS_08\n")
    with pytest.raises(InputError, match="states no voxel spacing"):
        extract_subtomograms(_request([other], picks, tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_no_tomogram_name_leads_out_of_the_folder(tomogram: Path, tmp_path: Path) -> None:
    work = tmp_path / "deep" / "deeper"
    work.mkdir(parents=True)
    names = ["...mrc", "a b;$(x).mrc", "-rf.mrc", "a_b__$x_.mrc"]
    for name in names:
        (work / name).write_bytes(tomogram.read_bytes())
    rows = "".join(f'20,18,16,"{name}"\n' for name in names)
    (work / "picks.csv").write_text("x,y,z,tomogram\n" + rows)
    before = set(tmp_path.rglob("*"))
    result = extract_subtomograms(_request([work / name for name in names], work / "picks.csv", work / "out"))
    made = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(work / "out") for path in made)
    images = [image.path.resolve() for image in read_particles(result.star).images]
    assert len(set(images)) == len(names)
    assert all(image.is_relative_to(work / "out" / "subtomograms") for image in images)


def test_only_the_boxes_of_a_large_tomogram_are_read(tmp_path: Path) -> None:
    script = f"""
import resource, sys
from pathlib import Path
import mrcfile, numpy as np
from cryodc.picks import ExtractRequest, extract_subtomograms
path, picks = Path({str(tmp_path / "big.mrc")!r}), Path({str(tmp_path / "picks.csv")!r})
with mrcfile.new_mmap(path, (1024, 1024, 1024), mrc_mode=2, overwrite=True) as mrc:
    mrc.voxel_size = 8
    mrc.data[488:536, 488:536, 488:536] = np.random.default_rng(0).standard_normal((48, 48, 48))
picks.write_text("x,y,z\\n512,512,512\\n510.5,511,513\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extract_subtomograms(ExtractRequest([path], picks, Path({str(tmp_path / "out")!r}), 32))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    # The file claims 4 GiB of voxels; two boxes are a few MB.
    assert float(finished.stdout) < 0.3


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-5, 5)] * 3), st.integers(0, 2**20))
def test_a_shift_and_its_opposite_give_the_volume_back(shift: tuple[float, float, float], seed: int) -> None:
    volume = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(seed))
    whole = torch.tensor(shift).round()
    rolled = volume.roll([int(s) for s in whole], (0, 1, 2))
    torch.testing.assert_close(fourier_shift(volume, whole), rolled, atol=1e-4, rtol=0)
    smooth = low_pass(volume, 4.0, 1.0)
    there = fourier_shift(smooth, torch.tensor(shift))
    torch.testing.assert_close(fourier_shift(there, -torch.tensor(shift)), smooth, atol=1e-4, rtol=0)


class _Killed(BaseException):
    """What ends a process, and no one catches."""


def test_an_extraction_that_was_killed_is_begun_again(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("csv", tmp_path), tmp_path / "out", 16, tilt_range=(-60, 50))

    def kill(n_done: int, n_total: int) -> None:
        if n_done == 2:
            raise _Killed

    with pytest.raises(_Killed):
        extract_subtomograms(request, kill)
    assert not request.out.exists()
    result = extract_subtomograms(request)
    assert sum(result.n_extracted.values()) == len(list(request.out.glob("subtomograms/*/*.mrc"))) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
