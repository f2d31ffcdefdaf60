"""Benchmarks on images: digits turned and judged, objects in the BOP layout, and what a user is told of a mistake."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import rotate
from scipy.spatial.transform import Rotation

from benchmarks import command
from benchmarks.images import labelled_images, linemod, mnist, transfer
from benchmarks.measurements import read_results
from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.runs import RunFolder
from cryodc.training import loop as train


@pytest.fixture
def upright():
    image = np.zeros((1, 28, 28), dtype=np.float32)
    image[0, 13:15, 18:24] = 1
    return image


def _write_digits(file: Path, n: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.integers(0, 256, size=(n, 784)), np.arange(n) % 10])
    np.savetxt(file, rows, fmt="%d", delimiter=",")


def test_a_digit_is_turned_by_the_angle_its_bin_holds(upright):
    images = np.repeat(upright, 40, axis=0)
    turned = mnist.turn_digits(images, np.zeros(40, dtype=np.int64), seed=1)
    y, x = np.meshgrid(*[np.arange(28) - 13.5] * 2, indexing="ij")
    mass = turned.images.sum(axis=(1, 2))
    # y points down: counter-clockwise is towards smaller y.
    angles = np.degrees(
        np.arctan2(-(turned.images * y).sum(axis=(1, 2)) / mass, (turned.images * x).sum((1, 2)) / mass)
    )
    assert np.array_equal(np.floor((angles + 90) / 45).astype(int), turned.transformation)
    assert set(turned.transformation) == {0, 1, 2, 3}


def test_codes_that_are_the_labels_are_told_from_each_other():
    rng = np.random.default_rng(0)
    content, transformation = rng.integers(0, 4, size=300), rng.integers(0, 4, size=300)
    truth = labelled_images.LabelledImages(
        np.zeros((300, 16, 16), dtype=np.float32), content, transformation, ("digit", "rotation")
    )
    noise = rng.normal(scale=0.05, size=(2, 300, 4)).astype(np.float32)
    codes = Codes(
        tuple(map(str, range(300))),
        np.eye(4, dtype=np.float32)[content] + noise[0],
        np.eye(4, dtype=np.float32)[transformation] + noise[1],
        noise[0],
        noise[1],
    )
    result = labelled_images.judge(codes, truth, seed=0)
    digit, rotation = result["disentanglement"]
    assert result["ari"] == 1
    assert (digit["factor"], rotation["factor"]) == ("digit", "rotation")
    assert digit["content"]["corrected"] > 0.99
    assert abs(digit["transformation"]["corrected"]) < 0.15
    assert rotation["transformation"]["corrected"] > 0.99
    assert abs(rotation["content"]["corrected"]) < 0.15


@pytest.mark.parametrize("model", ["dualcontrast", "vae"])
def test_digits_are_measured_once(tmp_path, monkeypatch, capsys, model):
    _write_digits(tmp_path / "digits.csv", 500)
    arguments = ["--data", str(tmp_path), "--model", model, "--epochs", "1", "--seed", "2"]
    arguments += ["--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["mnist", *arguments])
    monkeypatch.setattr(transfer, "_EPOCHS", 1)
    mnist.main()
    (result,) = read_results(tmp_path / "results", "mnist")
    assert (result["method"], result["seed"]) == (f"{model}-e1", 2)
    assert (result["n_training"], result["n_particles"]) == (400, 100)
    assert capsys.readouterr().out
    mnist.main()
    assert not capsys.readouterr().out


def test_a_run_that_was_stopped_gives_the_same_codes(tmp_path, upright):
    rng = np.random.default_rng(0)
    images = upright + rng.normal(size=(60, 28, 28)).astype(np.float32)
    labels = np.arange(60) % 2
    known = labelled_images.LabelledImages(images, labels, labels, ("digit", "rotation"))
    parser = labelled_images.image_parser("")
    found = []
    for folder in ("whole", "stopped"):
        asked = ["--data", "digits", "--out", str(tmp_path / folder), "--epochs", "2", "--device", "cpu"]
        arguments = parser.parse_args(asked)
        run = RunFolder(tmp_path / folder)
        inputs = (run, known.select(np.arange(40)), known.select(np.arange(40, 60)), "paper-mnist")
        if folder == "stopped":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(train, "write_log", _stop)
                with pytest.raises(KeyboardInterrupt):
                    labelled_images.encode_test(arguments, *inputs)
        found.append(labelled_images.encode_test(arguments, *inputs)[::2])
    assert [resumed for resumed, _ in found] == [False, True]
    assert np.array_equal(found[0][1].content, found[1][1].content)


def _stop(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "told"),
    [("1,2,3\n", "785 columns"), (",".join(["0"] * 784 + ["11"]) + "\n", "line 1"), ("1,2\n1\n", "table of numbers")],
)
def test_a_bad_table_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, text, told):
    (tmp_path / "digits.csv").write_text(text)
    monkeypatch.setattr(sys, "argv", ["mnist", "--data", str(tmp_path), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as stopped:
        command.run(mnist.main)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert told in message
    assert "digits.csv" in message
    assert not (tmp_path / "runs").exists()


def test_no_epochs_are_a_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        labelled_images.image_parser("").parse_args(["--data", "a", "--out", str(tmp_path), "--epochs", "0"])
    assert stopped.value.code == 2
    assert "expected 1 or more, found 0" in capsys.readouterr().err


def test_more_digits_than_there_are_is_a_mistake(tmp_path, monkeypatch):
    _write_digits(tmp_path / "digits.csv", 20)
    monkeypatch.setattr(sys, "argv", ["mnist", "--data", str(tmp_path), "--n", "21", "--out", str(tmp_path / "runs")])
    with pytest.raises(InputError, match="at most 20"):
        mnist.main()


def test_the_camera_turned_about_its_axis_sees_the_same_side():
    sides = Rotation.from_rotvec([[0, 0, 0], [np.pi / 2, 0, 0], [np.pi, 0, 0], [0, np.pi / 2, 0]]).as_matrix()
    turns = Rotation.from_rotvec(np.outer(np.linspace(0, 6, 5), [0, 0, 1])).as_matrix()
    bins = linemod.viewpoint_bins((turns[:, None] @ sides[None]).reshape(-1, 3, 3)).reshape(5, 4)
    assert (bins == bins[0]).all()
    assert len(set(bins[0])) == 4


def _write_scenes(folder: Path, n_views: int) -> None:
    """Two objects, a red bar and a green disc, each a scene with a picture from each of many sides."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :60]
    for scene, colour in ((1, (220, 30, 30)), (2, (30, 220, 30))):
        (folder / f"{scene:06d}" / "rgb").mkdir(parents=True)
        truth, info = {}, {}
        for view in range(n_views):
            rotation = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
            axis = rotation[:2, 0] / np.linalg.norm(rotation[:2, 0])
            along, across = axis[0] * (x - 30) + axis[1] * (y - 24), axis[1] * (x - 30) - axis[0] * (y - 24)
            inside = (abs(along) < 14) & (abs(across) < 4) if scene == 1 else along**2 + across**2 < 100
            picture = rng.integers(0, 40, size=(48, 60, 3)).astype(np.uint8)
            picture[inside] = colour
            Image.fromarray(picture).save(folder / f"{scene:06d}" / "rgb" / f"{view:06d}.png")
            pose = {"cam_R_m2c": rotation.flatten().tolist(), "cam_t_m2c": [0, 0, 400], "obj_id": scene}
            truth[str(view)], info[str(view)] = [pose], [{"bbox_visib": [10, 4, 40, 40]}]
        (folder / f"{scene:06d}" / "scene_gt.json").write_text(json.dumps(truth))
        (folder / f"{scene:06d}" / "scene_gt_info.json").write_text(json.dumps(info))


def test_rendered_objects_are_measured(tmp_path, monkeypatch, capsys):
    _write_scenes(tmp_path / "lm", 60)
    arguments = ["--data", str(tmp_path / "lm"), "--epochs", "1", "--seed", "0"]
    arguments += ["--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["linemod", *arguments])
    linemod.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["set"], result["n_training"], result["n_particles"]) == ("linemod", 96, 24)
    assert [row["factor"] for row in result["disentanglement"]] == ["object", "viewpoint"]
    # Red and green are told apart by any encoder that sees colour.
    assert result["disentanglement"][0]["content"]["corrected"] > 0.8


def test_too_few_objects_are_named(tmp_path, monkeypatch):
    _write_scenes(tmp_path / "lm", 4)
    monkeypatch.setattr(sys, "argv", ["linemod", "--data", str(tmp_path / "lm"), "--out", str(tmp_path / "runs")])
    with pytest.raises(InputError, match="too few images"):
        linemod.main()


def test_the_transfer_grid_is_judged_by_what_its_cells_show():
    """One model draws the label of its content code, the other that of its transformation code; both turn it."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 2
    degrees = rng.uniform(-90, 90, size=160).astype(np.float32)
    images = np.stack([_drawn(*pair) for pair in zip(labels, degrees, strict=True)])
    content = np.eye(2, dtype=np.float32)[labels]
    transformation = np.column_stack([degrees, labels]).astype(np.float32)
    codes = Codes(tuple(map(str, range(160))), content, transformation, content, transformation)
    scores = {}
    for shows in ("content", "transformation"):
        model = _Drawing(shows)
        known = (images, labels)
        scores[shows] = transfer.transfer_scores(model, codes, known, known, seed=1)
    right, wrong = scores["content"], scores["transformation"]
    assert right["recorded"] > 0.95
    assert right["own"] > 0.95
    assert right["row"] > 0.95
    assert wrong["own"] > 0.95
    assert wrong["column"] > 0.95
    assert 0.3 < right["column"] < 0.7
    assert 0.3 < wrong["row"] < 0.7


def _drawn(label: int, degrees: float) -> np.ndarray:
    """A bar, or a bar with a second one across it."""
    image = np.zeros((28, 28), dtype=np.float32)
    image[13:15, 6:22] = 1
    if label == 1:
        image[6:22, 13:15] = 1
    return rotate(image, degrees, reshape=False, order=1)


class _Drawing(torch.nn.Linear):
    """Decodes a label and an angle to a drawing."""

    def __init__(self, shows: str) -> None:
        super().__init__(1, 1)
        self.shows = shows

    def decode(self, content: torch.Tensor, transformation: torch.Tensor) -> torch.Tensor:
        labels = content.argmax(dim=1) if self.shows == "content" else transformation[:, 1]
        angles = transformation[:, 0]
        return torch.stack(
            [torch.from_numpy(_drawn(int(label), float(a))) for label, a in zip(labels, angles, strict=True)]
        )
