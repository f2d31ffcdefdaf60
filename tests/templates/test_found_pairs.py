"""What a network is given of the templates of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.codes import Codes
from cryodc.geometry import random_rotations
from cryodc.models import TrainConfig
from cryodc.runs import RunFolder, load_codes, save_codes
from cryodc.templates import BOX, FoundPairs, found_pairs, load_template_decoder
from cryodc.templates.groups import ROTATION_SCALE
from cryodc.training import Listener, train
from tests.training.test_train import make_dataset, read_losses, small_config

N = 13


def a_run(folder: Path, distance: float = 6.0) -> RunFolder:
    """Two groups, and one particle midway between them."""
    run, dataset = RunFolder(folder), make_dataset(N)
    run.templates.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, BOX, BOX, BOX, generator=generator).numpy()
    centres = np.array([[0.0], [distance]], np.float32)
    turns, moves = np.stack([np.eye(3, dtype=np.float32)] * 2), np.zeros((2, 3), np.float32)
    axes = np.zeros((2, 0, BOX, BOX, BOX), np.float32)
    np.savez(run.templates / "groups.npz", centres=centres, maps=maps, axes=axes, turns=turns, moves=moves)
    content = centres[np.arange(N) % 2]
    content[-1] = distance / 2
    rotations = ROTATION_SCALE * random_rotations(N, generator).flatten(1)
    pose = torch.cat([rotations, torch.zeros(N, 3)], dim=1).numpy()
    codes = replace(Codes.of_no_network(dataset.names), template_content=content, template_pose=pose)
    save_codes(run, codes)
    return run


def any_pairs_of(run: RunFolder) -> FoundPairs | None:
    decoder = load_template_decoder(run, torch.device("cpu"))
    assert decoder is not None
    return found_pairs(decoder, load_codes(run))


def pairs_of(run: RunFolder) -> FoundPairs:
    pairs = any_pairs_of(run)
    assert pairs is not None
    return pairs


def test_groups_poses_and_averages_are_those_of_the_run(tmp_path: Path) -> None:
    pairs = pairs_of(a_run(tmp_path))
    found = pairs.of(torch.tensor([0, 1, N - 1]), BOX)
    assert found.groups.tolist() == [0, 1, -1]
    torch.testing.assert_close(found.rotations @ found.rotations.transpose(1, 2), torch.eye(3).expand(3, 3, 3))
    codes = pairs.content[:2], pairs.transformation[:2]
    torch.testing.assert_close(found.averages[:2], pairs.decoder.decode(*codes))
    # Standardised in a larger box a particle has more noise in it, and the protein is so much fainter.
    larger = pairs.of(torch.tensor([0]), 20).averages
    assert float(larger.norm() / found.averages[0].norm()) == pytest.approx(1.0, abs=0.05)


def test_groups_that_cannot_be_told_apart_are_no_pairs(tmp_path: Path) -> None:
    assert any_pairs_of(a_run(tmp_path, distance=0.1)) is None


def config(**loss: object) -> TrainConfig:
    whole = small_config()
    return whole.model_copy(update={"loss": whole.loss.model_copy(update=loss)})


def test_a_killed_run_with_found_pairs_resumes_to_the_same_losses(tmp_path: Path) -> None:
    dataset = make_dataset(N)
    whole, broken = a_run(tmp_path / "whole"), a_run(tmp_path / "broken")
    expected = train(dataset, config(), whole, seed=3, pairs=pairs_of(whole))

    def kill(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, config(), broken, seed=3, pairs=pairs_of(broken), listener=Listener(on_epoch=kill))
    resumed = train(dataset, config(), broken, seed=3, resume=True, pairs=pairs_of(broken))
    assert read_losses(broken) == read_losses(whole)
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("switch", ["found_content", "found_poses", "found_averages"])
def test_each_kind_of_found_pairs_has_a_switch(switch: str, tmp_path: Path) -> None:
    dataset, run = make_dataset(N), a_run(tmp_path / "run")
    losses = []
    for number, settings in enumerate(({}, {switch: not getattr(config().loss, switch)})):
        to = RunFolder(tmp_path / str(number))
        train(dataset, config(**settings), to, pairs=pairs_of(run))
        losses.append(read_losses(to))
    term = {"found_content": "content", "found_poses": "transformation_found", "found_averages": "reconstruction"}
    assert losses[0][0][term[switch]] != losses[1][0][term[switch]]
    assert (float(losses[1][0]["transformation_positive"]) > 0) == (switch == "found_poses")


def test_without_found_pairs_the_published_ones_are_what_is_learned_from(tmp_path: Path) -> None:
    dataset, run = make_dataset(N), a_run(tmp_path / "run")
    none = {"found_content": False, "found_poses": False, "found_averages": False}
    train(dataset, config(**none), RunFolder(tmp_path / "1"), pairs=pairs_of(run))
    train(dataset, config(), RunFolder(tmp_path / "2"))
    assert read_losses(RunFolder(tmp_path / "1")) == read_losses(RunFolder(tmp_path / "2"))
