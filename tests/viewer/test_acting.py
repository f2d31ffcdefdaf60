"""What a user does with a run, without a window."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch

from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler, random_rotations
from cryodc.io import read_volume
from cryodc.particles import Poses
from cryodc.runs import RunFolder, load_clusters, load_run_dataset, load_run_particles
from cryodc.viewer.display import require_display
from cryodc.viewer.layers import run_layers, star_layers
from cryodc.viewer.plugin import get_run_reader, get_star_reader
from cryodc.viewer.quick import in_pose, quick_average
from cryodc.viewer.raster import View, nearest_point, point_colours, scatter_image, view_of_all, within_outline
from cryodc.viewer.session import NamedSet, Session


@pytest.fixture
def session(small_run: Path, tmp_path: Path) -> Session:
    return Session.open(RunFolder(Path(shutil.copytree(small_run, tmp_path / "run"))))


def test_a_view_maps_pixels_back_to_the_plane_and_zooms_about_the_pointer() -> None:
    view = View((3.0, -2.0), 7.0, 320, 200)
    points = np.array([[3.0, -2.0], [4.0, -1.0]])
    np.testing.assert_allclose(view.to_pixels(points), [[160, 100], [167, 93]])
    np.testing.assert_allclose(view.to_plane(view.to_pixels(points)), points)
    at = view.to_pixels(points)[1]
    np.testing.assert_allclose(view.zoomed(3.0, tuple(at)).to_pixels(points)[1], at)
    np.testing.assert_allclose(view.moved(5, -4).to_pixels(points), view.to_pixels(points) + np.array([5, -4]))


def test_every_point_is_seen_in_the_colour_of_its_class_and_the_others_of_a_set_are_pale() -> None:
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 8.0]])
    colours = point_colours(np.array([1, 2, 0]))
    assert colours.tolist() == [[0x00, 0x72, 0xB2], [0xE6, 0x9F, 0x00], [0x7F, 0x7F, 0x7F]]
    view = view_of_all(points, 200, 160)
    image = scatter_image(points, colours, view, 2)
    for point, colour in zip(view.to_pixels(points).astype(int), colours, strict=True):
        right, down = point
        assert image[down, right].tolist() == colour.tolist()
        assert image[down + 2, right].tolist() == colour.tolist()
        assert image[down + 5, right].tolist() == [255, 255, 255]
    marked = scatter_image(points, colours, view, 2, np.array([True, False, False]))
    places = view.to_pixels(points).astype(int)
    assert marked[places[0, 1], places[0, 0]].tolist() == colours[0].tolist()
    assert marked[places[1, 1], places[1, 0]].min() > 180


def test_a_line_holds_what_lies_within_it() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    # A star-shaped line that turns inwards, so that its bounding box would be wrong.
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radii = 0.6 + 0.3 * np.cos(3 * angles)
    rows = within_outline(points, list(zip(radii * np.cos(angles), radii * np.sin(angles), strict=True)))
    beyond = np.linalg.norm(points, axis=1) - 0.6 - 0.3 * np.cos(3 * np.arctan2(points[:, 1], points[:, 0]))
    assert set(np.flatnonzero(beyond < -0.01)) <= set(rows)
    assert not set(np.flatnonzero(beyond > 0.01)) & set(rows)
    assert len(within_outline(points, [(0, 0), (1, 1)])) == 0
    view = view_of_all(points, 300, 300)
    right, down = view.to_pixels(points[5:6])[0]
    assert nearest_point(points, view, (right, down), 3) == 5
    assert nearest_point(points, view, (-500, -500), 12) is None


def test_half_a_million_codes_are_drawn_and_chosen_fluently() -> None:
    rng = np.random.default_rng(0)
    points, colours = rng.normal(size=(500_000, 2)), point_colours(rng.integers(0, 9, 500_000))
    view = view_of_all(points, 700, 500)
    before = time.process_time()
    image = scatter_image(points, colours, view, 1)
    drawn = time.process_time() - before
    circle = np.linspace(0, 2 * np.pi, 200)
    rows = within_outline(points, list(zip(np.cos(circle), np.sin(circle), strict=True)))
    np.testing.assert_allclose(len(rows) / 500_000, 1 - np.exp(-0.5), atol=0.003)
    assert (image != 255).any()
    # 0.05 s and 0.2 s as measured.
    assert drawn < 0.5
    assert time.process_time() - before < 2


def test_a_quick_average_is_the_map_its_particles_were_made_of(small_run: Path) -> None:
    dataset = load_run_dataset(RunFolder(small_run))
    poses = Session.open(RunFolder(small_run)).poses
    assert poses is not None
    expected = read_volume(small_run / "averages" / "class001.mrc")
    rows = np.flatnonzero(Session.open(RunFolder(small_run)).classes == 1)
    found = quick_average(dataset, poses, rows)
    assert found.volume.spacing_angstrom == expected.spacing_angstrom
    assert np.corrcoef(found.volume.voxels.ravel(), expected.voxels.ravel())[0, 1] > 0.8
    wrong = Poses(poses.rotations[::-1].copy(), poses.origins_angstrom)
    blurred = quick_average(dataset, wrong, rows)
    assert blurred.volume.voxels.std() < found.volume.voxels.std()
    assert quick_average(dataset, poses, rows, most=5).n_averaged == 5


def test_a_thousand_particles_are_averaged_in_less_than_two_seconds(session: Session) -> None:
    first, box = load_run_dataset(session.run), 32
    n_particles = 1000
    many = SubtomogramDataset(
        replace(first.particles.select([0]), box_size=box),
        torch.randn(n_particles, box, box, box, generator=torch.Generator().manual_seed(0)),
        torch.ones(1, box, box, box // 2 + 1),
        torch.zeros(n_particles, dtype=torch.long),
    )
    turns = random_rotations(n_particles, torch.Generator().manual_seed(1)).double().numpy()
    before = time.process_time()
    found = quick_average(many, Poses(turns, np.zeros((n_particles, 3))), np.arange(n_particles))
    # 0.5 s as measured; of noise the average is a thirtieth.
    assert time.process_time() - before < 2
    assert found.volume.voxels.std() < 0.05


def test_a_reference_in_a_pose_is_turned_and_then_shifted() -> None:
    from cryodc.volumes import Volume

    voxels = np.zeros((16, 16, 16), dtype=np.float32)
    voxels[8, 8, 12] = 1
    turn = matrices_from_euler(np.array([[90.0, 0.0, 0.0]]))
    turn = np.asarray(turn, dtype=np.float64)
    poses = Poses(turn, np.array([[20.0, 0.0, 0.0]]))
    lies = in_pose(Volume(voxels, 10.0), poses, 0)
    # particle(x) = reference(Aᵀ (x + o)): the dot lies at A r − o, here two voxels lower in z.
    expected = turn[0] @ np.array([0.0, 0.0, 4.0]) - np.array([2.0, 0.0, 0.0]) + 8
    found = np.unravel_index(lies.argmax(), lies.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_set_becomes_a_class_and_others_keep_their_numbers(session: Session) -> None:
    before = session.classes.copy()
    rows = np.array([np.flatnonzero(before == 1)[0], np.flatnonzero(before == 2)[0]])
    said = session.make_class(NamedSet("both", rows))
    labels = load_clusters(session.run).labels
    assert set(np.flatnonzero(labels == 2)) == set(rows)
    others = np.setdiff1d(np.arange(len(before)), rows)
    np.testing.assert_array_equal(labels[others] + 1, before[others])
    table = starfile.read(session.run.clusters / "clusters.star")["particles"]
    np.testing.assert_array_equal(table["rlnClassNumber"], labels + 1)
    assert "chosen by hand" in said
    assert session.averaged == ()
    with pytest.raises(InputError, match="already a class of their own"):
        session.make_class(NamedSet("both", rows))


def test_a_split_takes_only_particles_of_the_class_that_most_are_of(session: Session) -> None:
    before = session.classes.copy()
    many, one = np.flatnonzero(before == 1)[:3], np.flatnonzero(before == 2)[:1]
    session.split(NamedSet("part", np.concatenate([many, one])))
    assert set(np.flatnonzero(load_clusters(session.run).labels == 2)) == set(many)
    assert session.classes[one[0]] == 2


def test_a_class_that_gives_all_its_particles_goes_and_later_numbers_move_down(session: Session) -> None:
    before = session.classes.copy()
    rows = np.concatenate([np.flatnonzero(before == 1), np.flatnonzero(before == 2)[:1]])
    session.make_class(NamedSet("most", rows))
    labels = load_clusters(session.run).labels
    assert set(labels) == {0, 1}
    assert set(np.flatnonzero(labels == 1)) == set(rows)


def test_a_star_has_the_rows_of_the_set_with_their_poses_and_is_never_overwritten(
    session: Session, tmp_path: Path
) -> None:
    rows, out = np.array([5, 2, 9]), tmp_path / "elsewhere" / "set.star"
    out.parent.mkdir()
    session.write_set(NamedSet("three", rows), out)
    table = starfile.read(out)["particles"]
    names = session.previews.particles.names
    assert [Path(name).name for name in table["rlnImageName"]] == [Path(names[row]).name for row in (2, 5, 9)]
    # From where it lies its images are found.
    assert all((out.parent / name).is_file() for name in table["rlnImageName"])
    assert {"rlnClassNumber", "rlnAngleRot"} <= set(table.columns)
    with pytest.raises(InputError, match="refusing to overwrite"):
        session.write_set(NamedSet("three", rows), out)


def test_without_poses_an_average_says_what_to_run(session: Session) -> None:
    session.poses = None
    with pytest.raises(InputError, match="cryodc average"):
        session.average(NamedSet("set", np.arange(3)))


def test_layers_are_of_the_run_and_readers_take_only_their_own(small_run: Path, tmp_path: Path) -> None:
    layers = run_layers(RunFolder(small_run))
    shown = [how["name"] for _, how, _ in layers if how["visible"]]
    assert all(name.endswith("average") for name in shown)
    assert {how["name"] for _, how, _ in layers} >= {"class 2 mask"}
    reader = get_run_reader(str(small_run))
    assert reader is not None
    assert len(reader(str(small_run))) == len(layers)
    assert get_run_reader(str(tmp_path)) is None
    assert get_star_reader(str(small_run)) is None
    star = small_run / "averages" / "particles.star"
    places = star_layers(star)
    table = starfile.read(star)["particles"]
    assert sum(len(data) for data, _, _ in places) == len(table)
    assert get_star_reader(str(star)) is not None
    first = places[0]
    mine = table[table["rlnMicrographName"] == first[1]["name"].removeprefix("positions ")]
    np.testing.assert_array_equal(first[1]["features"]["class"], mine["rlnClassNumber"])


def test_without_a_display_one_message_says_what_to_do(small_run: Path) -> None:
    pytest.importorskip("napari")
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    for display in (None, ":98765"):
        given = environment if display is None else {**environment, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
        command = [sys.executable, "-c", "from cryodc_cli.main import main; main()", "view", str(small_run)]
        told = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
        assert told.returncode == 2
        for remedy in ("cryodc report", "ssh -X", "xvfb-run"):
            assert remedy in told.stderr
        assert "Traceback" not in told.stderr


def test_without_napari_the_remedy_is_one_that_works_from_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(InputError, match=r"pip install '\.\[view\]'"):
        require_display()


def test_codes_are_coloured_by_class_or_by_any_column_of_the_star(session: Session) -> None:
    from cryodc.figures import class_colour

    table = starfile.read(session.run.averages / "particles.star")["particles"]
    assert "rlnClassNumber" not in session.columns
    by_class = session.coloured("colour by class")
    np.testing.assert_array_equal(by_class.colours, point_colours(session.classes))
    sizes = np.bincount(session.classes)
    assert by_class.groups == [(class_colour(n), f"class {n} · {sizes[n]}") for n in (1, 2)]
    # Numbers: from dark to yellow as they grow, so green grows with them; equal numbers have one colour.
    numeric = session.coloured("rlnCoordinateX")
    values = table["rlnCoordinateX"].to_numpy(dtype=float)
    assert numeric.span == (values.min(), values.max())
    assert numeric.colours[values.argmin()].tolist() == [0x44, 0x01, 0x54]
    assert numeric.colours[values.argmax()].tolist() == [0xFD, 0xE7, 0x24]
    assert (np.diff(numeric.colours[np.argsort(values), 1].astype(int)) >= 0).all()
    # Texts: a colour each, named with how many particles have it.
    texts = session.coloured("rlnMicrographName")
    names = table["rlnMicrographName"]
    counts = names.value_counts()
    assert [text for _, text in texts.groups] == [f"{name} · {counts[name]}" for name in sorted(counts.index)]
    for (colour, _), name in zip(texts.groups, sorted(counts.index), strict=True):
        of_name = texts.colours[(names == name).to_numpy()]
        assert {bytes(rgb).hex() for rgb in of_name.tolist()} == {colour[1:].lower()}


def test_a_look_has_the_average_only_where_it_is_of_the_classes_there_are(session: Session) -> None:
    assert session.averaged == (1, 2)
    assert session.look(0).average is not None
    assert load_run_particles(session.run).names[0] in session.look(0).caption
    session.averaged = ()
    assert session.look(0).average is None
    assert torch.from_numpy(session.look(0).shown.raw).std() > 0.9
