"""Points of the CZ CryoET Data Portal: a JSON object a line, in voxels, turned as its importers turn RELION's."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.picks import convert_picks, read_picks

ANGLES = [[137.7, 11.2, 42.7], [-20.0, 90.0, 10.0]]


def star(path: Path, tomograms: tuple[str, str] = ("TS_01", "TS_01")) -> Path:
    labels = [
        "TomoName",
        *(f"Coordinate{axis}" for axis in "XYZ"),
        *(f"Angle{axis}" for axis in ("Rot", "Tilt", "Psi")),
    ]
    rows = [[tomograms[0], 10.5, 20.25, 30, *ANGLES[0]], [tomograms[1], 1, 2, 3, *ANGLES[1]]]
    head = "".join(f"_rln{label}\n" for label in labels)
    path.write_text(f"data_particles\n\nloop_\n{head}" + "\n".join(" ".join(map(str, row)) for row in rows) + "\n")
    return path


def test_what_is_written_is_what_the_portal_makes_of_a_relion_star(tmp_path: Path) -> None:
    """Its importer: ``Rotation.from_euler("ZYZ", …).inv()`` of x, y, z."""
    convert_picks(star(tmp_path / "a.star"), tmp_path / "a.ndjson")
    points = [json.loads(line) for line in (tmp_path / "a.ndjson").read_text().splitlines()]
    assert [point["type"] for point in points] == ["orientedPoint", "orientedPoint"]
    assert points[0]["location"] == {"x": 10.5, "y": 20.25, "z": 30.0}
    expected = Rotation.from_euler("ZYZ", ANGLES, degrees=True).inv().as_matrix()
    np.testing.assert_allclose([point["xyz_rotation_matrix"] for point in points], expected, atol=1e-6)
    back = read_picks(tmp_path / "a.ndjson")
    np.testing.assert_allclose(back.rotations[:, ::-1, ::-1], expected, atol=1e-6)
    np.testing.assert_allclose(back.in_voxels(None, None), [[30, 20.25, 10.5], [3, 2, 1]])


def test_folders_of_the_portal_name_run_and_spacing(tmp_path: Path) -> None:
    folder = tmp_path / "10004/TS_026/Reconstructions/VoxelSpacing7.560/Annotations/101"
    folder.mkdir(parents=True)
    (folder / "a.ndjson").write_text('{"type": "point", "location": {"x": 4, "y": 6, "z": 8}}')
    picks = read_picks(folder / "a.ndjson")
    assert (picks.tomograms, picks.rotations) == (("TS_026",), None)
    np.testing.assert_allclose(picks.in_voxels(15.12, None), [[4, 3, 2]])


def test_points_of_two_tomograms_are_not_mixed_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="points of one tomogram"):
        convert_picks(star(tmp_path / "a.star", ("TS_01", "TS_02")), tmp_path / "a.ndjson")
    assert not (tmp_path / "a.ndjson").exists()


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"location": {"x": 1, "y": 2}}',
        '{"location": {"x": 1, "y": 2, "z": NaN}}',
        '{"location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": [[1, 0], [0, 1]]}',
        '{"location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}',
    ],
)
def test_a_line_that_is_no_point_is_named(tmp_path: Path, line: str) -> None:
    good = '{"type": "point", "location": {"x": 4, "y": 6, "z": 8}}'
    (tmp_path / "a.ndjson").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_picks(tmp_path / "a.ndjson")
    assert (caught.value.file, caught.value.row) == (tmp_path / "a.ndjson", 3)
