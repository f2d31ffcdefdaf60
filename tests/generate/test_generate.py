import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.look.generate import generate as generate_command
from scipy.spatial.transform import Rotation

from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.figures import load_previews, missing_notice
from cryodc.fourier import fourier_pad
from cryodc.generate import GenerateRequest, compare_runs, generate_run, load_encoded, read_traversals
from cryodc.generate.code_maps import comparison_picture, groupings, map_codes
from cryodc.generate.generate import choose_columns, choose_rows, find_particles
from cryodc.io import read_volume
from cryodc.runs import RunFolder, current_averages, load_clusters, load_codes, load_run_dataset, save_codes
from cryodc.templates.groups import TemplateGroups
from cryodc.training import load_model
from tests.kills import content
from tests.made_runs import make_clusters

SMALL = GenerateRequest(n_columns=3, n_steps=3, n_axes=1, n_particles=2, device="cpu")


@pytest.fixture(scope="module")
def generated(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with its generated/; shared, so never write into it."""
    run = RunFolder(shutil.copytree(small_run, tmp_path_factory.mktemp("generated") / "run"))
    generate_run(run, SMALL)
    return run


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(small_run, tmp_path / "run"))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_map_of_the_grid_is_what_the_model_decodes_with_the_voxel_size_set(generated: RunFolder) -> None:
    codes = load_codes(generated)
    model, _ = load_model(generated.checkpoints / "last.pt")
    place = {name: i for i, name in enumerate(codes.names)}
    lines = read_table(generated.generated / "grid" / "grid.csv")
    assert len(lines) == 2 * 3
    for line in lines:
        content = torch.from_numpy(codes.content[[place[line["content_of"]]]])
        transformation = torch.from_numpy(codes.transformation[[place[line["transformation_of"]]]])
        with torch.no_grad():
            # The network works at box 20, the particles have 24.
            expected = fourier_pad(model.decode(content, transformation)[0], 24).numpy()
        assert line["file"] == f"row{int(line['row']):02d}_column{int(line['column']):02d}.mrc"
        with mrcfile.open(generated.generated / "grid" / line["file"]) as file:
            np.testing.assert_allclose(file.data, expected, atol=1e-5)
            assert file.data.dtype == np.float32
            assert file.voxel_size.x == pytest.approx(15.0)
    clusters = load_clusters(generated)
    label = dict(zip(clusters.names, clusters.labels, strict=True))
    assert {int(line["row"]): line["class_of_content"] for line in lines} == {1: "1", 2: "2"}
    assert all(label[line["content_of"]] + 1 == int(line["class_of_content"]) for line in lines)


def test_traversals_are_written_as_series_with_their_quantiles(generated: RunFolder) -> None:
    for number in (1, 2):
        folder = generated.generated / f"class{number:03d}"
        lines = read_table(folder / "traversal.csv")
        assert [line["quantile"] for line in lines] == ["0.0500", "0.5000", "0.9500"]
        positions = [float(line["position"]) for line in lines]
        assert positions == sorted(positions)
        assert all((folder / line["file"]).exists() for line in lines)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["class"] == number
        assert summary["axes"][0]["change"] > 0
        assert (folder / "traversal.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_bytes_another_seed_other_columns(generated: RunFolder, tmp_path: Path) -> None:
    folder = generate_run(generated, GenerateRequest(**{**vars(SMALL), "out": tmp_path / "again"}))
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(written) > 15
    for path in written:
        assert (folder / path).read_bytes() == (generated.generated / path).read_bytes(), path
    encoded = load_encoded(generated)
    columns = {tuple(choose_columns(encoded, GenerateRequest(n_columns=3, seed=seed))) for seed in range(5)}
    assert len(columns) > 1


def test_a_class_is_replaced_by_itself_and_everything_by_everything(run: RunFolder) -> None:
    def modified(number: int) -> int:
        return (run.generated / f"class{number:03d}" / "axis1_01.mrc").stat().st_mtime_ns

    generate_run(run, replace(SMALL, classes=(2,)))
    generate_run(run, replace(SMALL, classes=(1,)))
    assert sorted(path.name for path in run.generated.iterdir()) == ["class001", "class002"]
    before = modified(1), modified(2)
    generate_run(run, replace(SMALL, classes=(1, 1), n_steps=5))
    assert modified(1) > before[0]
    assert modified(2) == before[1]
    assert len(list((run.generated / "class001").glob("*.mrc"))) == 5
    generate_run(run, SMALL)
    assert modified(2) > before[1]
    assert len(list((run.generated / "class001").glob("*.mrc"))) == 3
    cluster_run(run, 1)
    generate_run(run, SMALL)
    assert [path.name for path in run.generated.glob("class*")] == ["class001"]


def test_in_another_folder_nothing_is_overwritten_and_another_class_may_be_added(
    generated: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    generate_run(generated, replace(SMALL, out=out, classes=(2,)))
    before = content(out)
    for classes in ((2,), (1, 2), ()):
        with pytest.raises(InputError, match="refusing to overwrite"):
            generate_run(generated, replace(SMALL, out=out, classes=classes))
        assert content(out) == before
    generate_run(generated, replace(SMALL, out=out, classes=(1,)))
    assert before.items() < content(out).items()


@pytest.mark.parametrize("name", ["codes.png", "particles.png"])
def test_a_picture_that_is_there_is_refused_before_anything_is_written(
    generated: RunFolder, tmp_path: Path, name
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        generate_run(generated, GenerateRequest(**{**vars(SMALL), "out": tmp_path}))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_not_there_is_named_before_the_model_is_read(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints)
    for request, said in (
        (GenerateRequest(classes=(7,)), "no such class"),
        (GenerateRequest(content_from=("nobody.mrc",)), "no such particle"),
        (GenerateRequest(transformation_from=("3-99",)), "no such particle"),
        (GenerateRequest(), "cryodc train"),
    ):
        with pytest.raises(InputError, match=said):
            generate_run(run, request)
    shutil.rmtree(run.clusters)
    with pytest.raises(InputError, match="cryodc cluster"):
        generate_run(run, GenerateRequest(classes=(1,)))
    run.codes.unlink()
    with pytest.raises(InputError, match="cryodc train"):
        generate_run(run, GenerateRequest())
    assert not run.generated.exists()


def test_particles_are_named_or_numbered_as_in_the_star(generated: RunFolder) -> None:
    encoded = load_encoded(generated)
    name = encoded.codes.names[5]
    assert choose_rows(encoded, GenerateRequest(content_from=(name, "2,4-5"))) == [5, 1, 3, 4]
    # A name wins over a number.
    assert find_particles(["2"], ["1", "5", "2"]) == [2]
    with pytest.raises(InputError, match="no such particle"):
        find_particles(["0"], ["a", "b"])


def test_a_run_without_classes_has_rows_of_groups_and_no_traversal(run: RunFolder) -> None:
    shutil.rmtree(run.clusters)
    shutil.rmtree(run.averages)
    generate_run(run, GenerateRequest(**{**vars(SMALL), "n_rows": 4}))
    rows = {line["content_of"] for line in read_table(run.generated / "grid" / "grid.csv")}
    assert len(rows) == 4
    assert sorted(path.name for path in run.generated.iterdir()) == ["codes.png", "grid", "particles.png"]


def test_particles_are_those_of_the_dataset_and_left_out_where_they_have_moved(run: RunFolder) -> None:
    previews = load_previews(run)
    volumes = load_run_dataset(run).volumes[torch.tensor([3])]
    shown = previews.show(3)
    np.testing.assert_allclose(shown.raw, volumes[0].numpy(), atol=1e-4)
    assert shown.filtered is not None
    spectrum = np.abs(np.fft.fftn(shown.filtered))
    assert spectrum[8:-8].max() < 1e-3 * spectrum.max()
    config = run.config.read_text()
    run.config.write_text(config.replace("/sim", "/moved"))
    moved = load_previews(run).show(3)
    assert moved.raw is None
    assert missing_notice([moved, shown]).startswith("1 of 2 particles are not shown: the image is no longer")
    assert missing_notice([shown]) == ""
    heard: list[str] = []
    generate_run(run, SMALL, heard.append)
    assert any("2 of 2 particles are not shown" in line for line in heard)
    assert (run.generated / "grid" / "grid.png").exists()
    assert not (run.generated / "particles.png").exists()


def test_traversals_and_averages_of_an_earlier_clustering_are_known(run: RunFolder) -> None:
    generate_run(run, GenerateRequest(**{**vars(SMALL), "classes": (1,)}))
    clusters = load_clusters(run)
    (found,) = read_traversals(run, load_codes(run), clusters.labels)
    assert found.current
    assert [len(files) for files in found.series] == [3]
    assert current_averages(run) is not None
    cluster_run(run, 3)
    clusters = load_clusters(run)
    assert not read_traversals(run, load_codes(run), clusters.labels)[0].current
    assert current_averages(run) is None


def test_codes_are_grouped_by_class_tomogram_and_truth(generated: RunFolder, small_run: Path) -> None:
    encoded = load_encoded(generated)
    truth = small_run.parent / "sim" / "truth.csv"
    found = groupings(encoded, truth)
    assert list(found) == ["class", "tomogram", "truth"]
    proteins = {row["name"]: row["protein"] for row in read_table(truth)}
    for protein, rows in found["truth"].items():
        assert {proteins[encoded.codes.names[row]] for row in rows} == {protein}
    assert sorted(row for rows in found["class"].values() for row in rows) == list(range(24))
    assert list(found["tomogram"]) == ["tomogram01", "tomogram02", "tomogram03"]


def test_a_truth_of_other_particles_is_refused(generated: RunFolder, small_run: Path, tmp_path: Path) -> None:
    lines = (small_run.parent / "sim" / "truth.csv").read_text().splitlines(keepends=True)
    (tmp_path / "truth.csv").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="does not name every particle"):
        groupings(load_encoded(generated), tmp_path / "truth.csv")


def test_tsne_keeps_neighbours_together_and_is_seeded() -> None:
    generator = np.random.default_rng(0)
    codes = (np.repeat(np.eye(4)[:2] * 5, 20, axis=0) + generator.normal(size=(40, 4)) * 0.3).astype(np.float32)
    points = map_codes(codes, "tsne", seed=1)
    np.testing.assert_array_equal(points, map_codes(codes, "tsne", seed=1))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(40)
    assert ((distance.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()
    with pytest.raises(InputError, match="--map pca"):
        map_codes(np.ones((5001, 2), np.float32), "tsne")


def test_runs_are_compared_side_by_side(generated: RunFolder, run: RunFolder, tmp_path: Path) -> None:
    one = comparison_picture([load_encoded(generated)])
    two = comparison_picture([load_encoded(generated)] * 2)
    width = [int.from_bytes(png[16:20], "big") for png in (one, two)]
    assert width[1] == 2 * width[0]
    path = compare_runs([generated, generated], GenerateRequest(out=tmp_path))
    assert path.read_bytes() == two
    with pytest.raises(InputError, match="refusing to overwrite"):
        compare_runs([generated, generated], GenerateRequest(out=tmp_path))
    assert compare_runs([run]) == run.path / "comparison.png"
    before = run.comparison.read_bytes()
    assert compare_runs([run, generated]).read_bytes() != before


@pytest.mark.parametrize("written", ["", "{", "[]", '{"class": 1}', "\x00\x01"])
def test_a_damaged_summary_of_a_traversal_is_one_error_that_names_it(run: RunFolder, written: str) -> None:
    generate_run(run, replace(SMALL, classes=(1,)))
    path = run.generated / "class001" / "summary.json"
    path.write_text(written)
    with pytest.raises(InputError, match="cryodc generate") as error:
        read_traversals(run, load_codes(run), None)
    assert error.value.file == path


def test_a_run_with_templates_is_decoded_by_them_or_by_its_network(run: RunFolder) -> None:
    """Rows are averages of groups, columns poses: the same map in another orientation has the same distribution."""
    codes, generator = load_codes(run), np.random.default_rng(0)
    n = len(codes)
    matched = generator.normal(size=(n, 2)).astype(np.float32)
    rotations = Rotation.random(n, rng=0).as_matrix().astype(np.float32)
    placed = np.concatenate([3**0.5 * rotations.reshape(n, 9), np.zeros((n, 3)), generator.normal(size=(n, 1))], axis=1)
    clusters = load_clusters(run)
    save_codes(run, replace(codes, template_content=matched, template_pose=placed.astype(np.float32)))
    make_clusters(run, clusters.names, clusters.labels.tolist())
    blob = np.exp(-np.square(np.indices((16, 16, 16)) - 8).sum(axis=0) / 8).astype(np.float32)
    run.templates.mkdir(exist_ok=True)
    eye, middle = np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32)
    groups = TemplateGroups(np.zeros((1, 2), np.float32), blob[None], 0.1 * blob[None, None], eye, middle)
    np.savez(run.templates / "groups.npz", **vars(groups))
    generate_run(run, SMALL)
    summary = json.loads((run.generated / "grid" / "summary.json").read_text())
    assert summary["decoded_codes"] == "templates"
    # A ball looks the same from everywhere, but for how much of it there is along the axis.
    cell = read_volume(run.generated / "grid" / "row01_column01.mrc").voxels
    expected = fourier_pad(torch.from_numpy(blob)[None], cell.shape[-1])[0].numpy()
    assert np.corrcoef(cell.ravel(), expected.ravel())[0, 1] > 0.99
    traversal = json.loads((run.generated / "class001" / "summary.json").read_text())
    assert [axis["variance_share"] for axis in traversal["axes"]] == [1.0]
    generate_run(run, replace(SMALL, out=run.path / "other", codes="network"))
    assert json.loads((run.path / "other" / "grid" / "summary.json").read_text())["decoded_codes"] == "network"


def test_the_command_says_what_it_found_and_where_it_is(generated: RunFolder, tmp_path: Path) -> None:
    arguments = [str(generated.path), "--class", "1", "--steps", "3", "--axes", "1", "--device", "cpu"]
    done = CliRunner().invoke(generate_command, [*arguments, "--out", str(tmp_path / "new")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "class 1, axis 1" in done.stderr
    assert f"Wrote {tmp_path / 'new'}" in done.stdout.replace("\n", "")
    arguments = [str(generated.path), "--compare", str(generated.path), "--out", str(tmp_path / "both")]
    assert CliRunner().invoke(generate_command, arguments, catch_exceptions=False).exit_code == 0
    assert [path.name for path in (tmp_path / "both").iterdir()] == ["comparison.png"]
    none = CliRunner().invoke(
        generate_command, [str(generated.path), "--codes", "templates", "--out", str(tmp_path / "t")]
    )
    assert isinstance(none.exception, InputError)
    assert "this run has no templates to decode with" in str(none.exception)
    for wrong, said in ((["--steps", "4"], "odd number"), (["--class", "1", "--compare", "."], "exclude each other")):
        done = CliRunner().invoke(generate_command, [str(generated.path), *wrong])
        assert done.exit_code == 2
        assert said in done.output
