"""``cryodc export --copick``: the JSON that copick documents, beside the STAR turned by scipy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.export import export_run
from cryodc.picks import read_picks
from cryodc.runs import RunFolder

ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def project(folder: Path, run: Path, **more: Any) -> Path:
    """A project whose runs are called as Warp calls its tomograms."""
    table = starfile.read(run / "averages/particles.star")["particles"]
    for name in table["rlnMicrographName"].unique():
        (folder / f"project/ExperimentRuns/{name}_10.00Apx/VoxelSpacing10.000").mkdir(parents=True)
    objects = [{"name": "ribosome", "is_particle": True, "label": 3, "color": [0, 255, 0, 255], "radius": 150.0}]
    content = {"name": "mine", "config_type": "filesystem", "version": "1.31.0", "pickable_objects": objects}
    content |= {"overlay_root": f"local://{folder}/project", "overlay_fs_args": {"auto_mkdir": True}, **more}
    (folder / "config.json").write_text(json.dumps(content))
    return folder / "config.json"


def test_picks_have_position_pose_and_score_of_their_particles(small_run: Path, tmp_path: Path) -> None:
    command = [str(small_run), "--copick", str(project(tmp_path, small_run)), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(load_verb("export"), command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    tables = starfile.read(small_run / "averages/particles.star")
    table, pixel = tables["particles"], float(np.ravel(tables["optics"]["rlnImagePixelSize"])[0])
    clusters = json.loads((small_run / "clusters/summary.json").read_text())
    sure = dict(zip(clusters["names"], clusters["confidence"], strict=True))
    seen = []
    for file in (tmp_path / "out/copick/ExperimentRuns").glob("*/Picks/*.json"):
        content = json.loads(file.read_text())
        run_name = file.parents[1].name
        # copick splits the name of the file at underscores.
        user, session, name = file.stem.split("_")
        assert (user, session, name) == tuple(content[k] for k in ("user_id", "session_id", "pickable_object_name"))
        assert (content["run_name"], content["unit"], content["trust_orientation"]) == (run_name, "angstrom", True)
        for point in content["points"]:
            row = table.iloc[point["instance_id"] - 1]
            assert f"{row['rlnMicrographName']}_10.00Apx" == run_name
            assert f"class-{row['rlnClassNumber']:03d}" == name
            place = [row[f"rlnCoordinate{axis}"] * pixel - row[f"rlnOrigin{axis}Angst"] for axis in "XYZ"]
            np.testing.assert_allclose([point["location"][axis] for axis in "xyz"], place, atol=0.01)
            matrix = np.array(point["transformation_"])
            expected = Rotation.from_euler("ZYZ", row[ANGLES].to_numpy(dtype=float), degrees=True).inv().as_matrix()
            np.testing.assert_allclose(matrix[:3, :3], expected, atol=1e-5)
            np.testing.assert_array_equal(matrix[:, 3], [0, 0, 0, 1])
            np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
            assert point["score"] == sure[row["rlnImageName"]]
            seen.append(point["instance_id"])
        picks = read_picks(file)
        assert (picks.tomograms[0], len(picks)) == (run_name, len(content["points"]))
    assert sorted(seen) == [i + 1 for i in np.flatnonzero(table["rlnClassNumber"] > 0)]


def test_the_project_is_shown_beneath_and_stays_as_it_is(small_run: Path, tmp_path: Path) -> None:
    config = project(tmp_path, small_run)
    before = sorted(path for path in (tmp_path / "project").rglob("*"))
    export_run(RunFolder(small_run), tmp_path / "out", [], copick=config)
    written, given = (json.loads(path.read_text()) for path in (tmp_path / "out/copick.json", config))
    assert sorted(path for path in (tmp_path / "project").rglob("*")) == before
    assert (written["overlay_root"], written["static_root"]) == (
        f"local://{tmp_path}/out/copick",
        given["overlay_root"],
    )
    objects = {entry["name"]: entry for entry in written["pickable_objects"]}
    assert objects["ribosome"] == given["pickable_objects"][0]
    assert set(objects) == {"ribosome", "class-001", "class-002"}
    assert sorted(entry["label"] for entry in objects.values()) == [3, 4, 5]
    assert objects["class-001"]["color"] == [0x00, 0x72, 0xB2, 255]
    assert (written["name"], written["config_type"]) == ("mine", "filesystem")


def test_a_static_root_stays(small_run: Path, tmp_path: Path) -> None:
    config = project(tmp_path, small_run, static_root=f"local://{tmp_path}/project", overlay_root="local:///elsewhere")
    export_run(RunFolder(small_run), tmp_path / "out", [], copick=config)
    assert json.loads((tmp_path / "out/copick.json").read_text())["static_root"] == f"local://{tmp_path}/project"


def test_a_tomogram_that_is_no_run_or_a_file_that_is_no_config_is_one_error(small_run: Path, tmp_path: Path) -> None:
    config = project(tmp_path, small_run)
    first = sorted((tmp_path / "project/ExperimentRuns").iterdir())[0]
    first.rename(first.with_name("another"))
    with pytest.raises(InputError, match="no run of the copick project") as caught:
        export_run(RunFolder(small_run), tmp_path / "out", [], copick=config)
    assert "another" in str(caught.value)
    for text in ("{", "[]", "{}", '{"pickable_objects": [{}], "overlay_root": "a"}'):
        config.write_text(text)
        with pytest.raises(InputError, match="no config of a copick project"):
            export_run(RunFolder(small_run), tmp_path / "out", [], copick=config)
    assert not (tmp_path / "out").exists()
