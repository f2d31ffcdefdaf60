"""Lists of names: kept as a STAR, and made classes of a run of their own."""

import shutil
from pathlib import Path

import pytest

from cryodc.errors import InputError
from cryodc.export import run_of_names, select_run
from cryodc.runs import RunFolder, classes_if_any, load_clusters, load_codes
from cryodc.star import read_star


def listed(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(["", *names, ""]) + "\n")
    return path


def test_particles_of_a_list_are_kept_in_the_order_of_the_star(small_run: Path, tmp_path: Path) -> None:
    run = RunFolder(small_run)
    names = list(load_clusters(run).names)
    chosen = listed(tmp_path / "set1.txt", [names[7], names[2], names[7]])
    more = listed(tmp_path / "set2.txt", [names[5]])
    kept = select_run(run, tmp_path / "kept.star", names=[chosen, more])
    assert len(kept) == 3
    written = read_star(tmp_path / "kept.star").block("particles").column("rlnImageName")
    assert [Path(name).name for name in written] == [Path(names[row]).name for row in (2, 5, 7)]


def test_a_run_of_lists_has_them_as_classes_and_the_codes_of_the_old_run(small_run: Path, tmp_path: Path) -> None:
    run = RunFolder(small_run)
    names = list(load_clusters(run).names)
    lists = [listed(tmp_path / "a.txt", names[20:22]), listed(tmp_path / "b.txt", names[3:8])]
    made = run_of_names(run, lists, tmp_path / "picked")
    assert made.sizes == (2, 5)
    classes = classes_if_any(made.run)
    assert classes is not None
    assert list(classes.names) == [*names[3:8], *names[20:22]]
    assert classes.labels.tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert classes.mean_confidence(1) is None
    old, new = load_codes(run).select(classes.names), load_codes(made.run)
    assert (old.content == new.content).all()
    assert not made.run.averages.exists()


def test_what_a_list_may_not_hold_is_one_error_and_nothing_is_written(small_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(small_run, tmp_path / "run"))
    names = list(load_clusters(run).names)
    stranger = listed(tmp_path / "stranger.txt", [names[0], "nobody.mrc"])
    twice = [listed(tmp_path / "a.txt", names[:3]), listed(tmp_path / "b.txt", names[2:4])]
    with pytest.raises(InputError, match="1 of 2 names are of no particle") as caught:
        select_run(run, tmp_path / "kept.star", names=[stranger])
    # The list begins with an empty line.
    assert caught.value.row == 3
    with pytest.raises(InputError, match="names no particle"):
        select_run(run, tmp_path / "kept.star", names=[listed(tmp_path / "empty.txt", [])])
    with pytest.raises(InputError, match="in two lists"):
        run_of_names(run, twice, tmp_path / "picked")
    assert not (tmp_path / "kept.star").exists()
    assert not (tmp_path / "picked").exists()
