"""Every command of every page is run, in the order of its page, on particles that are few and small.

What a page calls ``particles.star``, ``run/`` or ``known/`` lies in the folder of its commands. Options that make a
command small, :data:`SMALLER`, come last and so win over those of the page. What cannot be run here, :data:`ELSEWHERE`,
is named with the reason. Commands of benchmarks take minutes to hours: they are read to their last option.
"""

import argparse
import gzip
import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import mrcfile
import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.spatial.transform import Rotation

from cryodc.averaging import average_run
from cryodc.clustering import cluster_run
from cryodc.simulation import SimulationConfig, phantom, write_simulation
from cryodc.training import TrainRequest, train_run
from tests.particles.test_images_2d import write_project
from tests.test_docs_commands import PAGES, ROOT, arguments, command_lines, require_parses
from tests.tilts.test_image_series import Series

BOX, SPACING, PER_PROTEIN, CLASSES = 16, 20.0, 24, 5
LITTLE = "model: {width: 8, max_channels: 16}\noptimisation: {epochs: 1, batch_size: 8}\n"
SMALLER = {
    "bench": ["--particles", "40", "--stage", "pack", "--stage", "average"],
    "train": ["--config", "small.yaml"],
    "cluster": ["-k", str(CLASSES)],
    "average": ["--starts", "1", "--iterations", "3"],
    "states": ["--starts", "1"],
    "identify": ["--decoys", "5"],
    "simulate": ["--n", "2"],
    "plan": ["--trial", "8", "--particles", "8", "--box", "16", "--snr", "1", "--resolution", "60"],
    "extract": ["--box", "16"],
    "pack": ["--box", "16"],
    "generate": ["--columns", "2", "--steps", "3", "--particles", "2"],
    "relion-job": ["--config", "small.yaml", "--classify", "No"],
}
ELSEWHERE = {
    "cryodc view run/": "it needs a display: tests/viewer opens the viewer",
    "cryodc bench --device cuda --box 32 --box 48 --box 64 --box 96 --particles 2000"
    " --out bench_gpu.json": "it needs a GPU",
    "cryodc average run/ --slurm partition=gpu,nodes=4,gpus-per-node=2,time=12:00:00"
    ",mem=64G": "it needs Slurm: tests/cli/test_slurm.py has one",
    "cryodc demo --seed 0": "it takes eight minutes: tests/test_demo.py runs the same on few particles",
}


FROM_THE_START = (ROOT / "docs/tutorial.md", ROOT / "README.md")
"""Pages that go on with the run they train; others name runs that a user has."""


def whole_commands(page: Path) -> list[str]:
    """What can be copied from a page: its blocks, and of its prose what has every argument."""
    found = []
    for line, in_block in command_lines(page.read_text(encoding="utf-8")):
        words = arguments(line)[1]
        if not in_block and (not words or any(re.fullmatch(r"[A-Z]+(/.*)?|.*…", word) for word in words)):
            continue
        if not in_block and words[-1] == "--help":
            continue
        try:
            require_parses(line, whole=True)
        except click.UsageError:
            assert not in_block, line
            continue
        if in_block or any("." in word or word.endswith("/") for word in words):
            found.append(re.split(r"\s+(?:#|&&|\|)\s", line)[0].strip())
    return list(dict.fromkeys(found))


def commands_by_page() -> dict[Path, list[str]]:
    """Each distinct command with the first page that has it: the tutorial and the README before the others."""
    seen: set[str] = set()
    found: dict[Path, list[str]] = {}
    for page in [*FROM_THE_START, *(page for page in PAGES if page not in FROM_THE_START)]:
        of_page = whole_commands(page)
        # The run that such a page trains has no classes until the page makes some.
        again = ("cryodc cluster run/", "cryodc average run/") if page in FROM_THE_START else ()
        lines = [line for line in of_page if line not in seen or line in again]
        seen.update(lines)
        # So few particles cannot be aligned from nothing, and then there are no classes to go on with.
        found[page] = sorted(lines, key=lambda line: "--ignore-poses" in line)
    return {page: lines for page, lines in found.items() if lines}


COMMANDS = commands_by_page()


@pytest.fixture(scope="session")
def desk(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that pages name, as a user has it before the first command."""
    desk = tmp_path_factory.mktemp("desk")
    proteins = {name: phantom(shape) for name, shape in (("3j9i", "barrel"), ("bilobe", "bilobe"))}
    config = SimulationConfig(n_per_map=PER_PROTEIN, snr=2, n_tomograms=2, box_size=BOX, spacing_angstrom=SPACING)
    write_simulation(proteins, config, desk / "sim", with_poses=True)
    text = (desk / "sim/particles.star").read_text().replace("tomogram0", "TS_0")
    for name in ("subtomograms", "weights"):
        (desk / name).symlink_to(desk / "sim" / name)
    for name in ("particles.star", "new.star", "before.star", "after.star", "Extract/job011/particles.star"):
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text(text)
    (desk / "small.yaml").write_text(LITTLE)
    request = TrainRequest(
        desk / "particles.star",
        desk / "run",
        overrides={"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 1, "batch_size": 8}},
    )
    run, _ = train_run(request)
    cluster_run(run, CLASSES)
    average_run(run)
    shutil.copytree(run.path, desk / "run2")
    shutil.copytree(run.path, desk / "runs/hard.3/dualcontrast")
    shutil.copytree(desk / "sim", desk / "runs/hard.3/sim")
    names = json.loads((run.clusters / "summary.json").read_text())["names"]
    (desk / "set1.txt").write_text("\n".join(names[:12]))
    (desk / "set2.txt").write_text("\n".join(names[12:30]))
    lay_out_maps(desk)
    lay_out_picks(desk)
    lay_out_tilt_series(desk, shared_data / "real/ribosome70s/tilt_stacks")
    write_project(desk)
    series = Series(tmp_path_factory.mktemp("warp") / "in", poses=Rotation.random(2, rng=np.random.default_rng(5)))
    for written in series.write().parent.iterdir():
        (desk / written.name).symlink_to(written)
    for name in ("structures/1bxn.pdb.gz", "structures/spike/6vxx.pdb.gz"):
        (desk / Path(name).name).symlink_to(shared_data / name)
    return desk


def lay_out_maps(desk: Path) -> None:
    """Maps of known proteins under the names of the pages."""
    (desk / "known").mkdir()
    maps = desk / "sim/maps"
    for name in ("3j9i", "bilobe"):
        shutil.copy(maps / f"{name}.mrc", desk / "known" / f"{name}.mrc")
    shutil.copy(maps / "3j9i.mrc", desk / "3j9i.mrc")
    for name, source in (("a", "3j9i"), ("b", "bilobe")):
        shutil.copy(maps / f"{source}.mrc", desk / f"{name}.mrc")
    for name, source in (("4v4r", "3j9i"), ("4v4r_50S", "bilobe"), ("1f4a", "bilobe")):
        (desk / f"{name}.mrc.gz").write_bytes(gzip.compress((maps / f"{source}.mrc").read_bytes()))


def lay_out_picks(desk: Path) -> None:
    """Two tomograms, and picks in them as every program writes them."""
    (desk / "tomograms").mkdir()
    generator = np.random.default_rng(0)
    for name in ("TS_01", "TS_02"):
        with mrcfile.new(desk / f"{name}.mrc") as tomogram:
            tomogram.set_data(generator.standard_normal((48, 48, 48)).astype(np.float32))
            tomogram.voxel_size = 10.0
        (desk / "tomograms" / f"{name}.mrc").symlink_to(desk / f"{name}.mrc")
    places = [f"{name},{x},{x + 1},24" for name in ("TS_01", "TS_02") for x in range(20, 28)]
    (desk / "picks.csv").write_text("\n".join(["tomogram,x,y,z", *places]))
    (desk / "names.csv").write_text("number,tomogram\n1,TS_01\n2,TS_02\n")
    for out in ("picks.star", "refined.tbl", "motl.star"):
        kind = ["--to", "stopgap"] if out == "motl.star" else []
        run_command(f"cryodc convert {desk}/picks.csv {desk}/{out} --spacing 10 {' '.join(kind)}")
    # The page that writes motl.star makes its names again.
    (desk / "motl.tomograms.csv").unlink()
    rows = [f"TS_0{1 + i % 2} {i}.5 {-i}.25 {10 * i} {i} 90 0 1" for i in range(6)]
    labels = ["TomoName", *(f"CenteredCoordinate{axis}Angst" for axis in "XYZ"), "AngleRot", "AngleTilt", "AnglePsi"]
    heads = "".join(f"_rln{label}\n" for label in [*labels, "OpticsGroup"])
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n_rlnImagePixelSize\n1 10 10\n"
    body = "\n".join(rows)
    (desk / "run_data.star").write_text(f"\n# version 50001\n\n{optics}\ndata_particles\n\nloop_\n{heads}{body}\n")
    for name in ("TS_01", "TS_02"):
        (desk / f"project/ExperimentRuns/{name}/VoxelSpacing20.000").mkdir(parents=True)
    project = {"config_type": "filesystem", "name": "mine", "version": "1.31.0", "pickable_objects": []}
    project |= {"overlay_root": f"local://{desk}/project", "overlay_fs_args": {"auto_mkdir": True}}
    (desk / "project/config.json").write_text(json.dumps(project))


def lay_out_tilt_series(desk: Path, stacks: Path) -> None:
    """The real ribosomes of the tutorial, as WarpTools wrote them."""
    for file in stacks.iterdir():
        (desk / file.name).symlink_to(file)
    optimisation = next(stacks.glob("*_optimisation_set.star"))
    (desk / "optimisation_set.star").write_text(optimisation.read_text())


def run_command(line: str, keep: bool = True) -> None:
    """Run a command as a shell would: files are named by patterns, and the smaller options follow.

    With ``keep`` later commands find the run that it trained, else the one of the desk.
    """
    verb, words = arguments(line)
    expanded: list[str] = []
    for word in words:
        expanded += (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
    smaller = [] if verb == "cluster" and "-k" in words else SMALLER.get(verb, [])
    with without(made_by(verb, words), keep):
        done = CliRunner().invoke(load_verb(verb), [*expanded, *smaller])
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


def made_by(verb: str, words: list[str]) -> Path | None:
    """What a command makes and so refuses to find."""
    if verb == "convert":
        return Path(words[1])
    if "--out" in words and "--resume" not in words:
        return Path(words[words.index("--out") + 1])
    return Path("sim") if verb == "simulate" else None


@contextmanager
def without(made: Path | None, keep: bool) -> Iterator[None]:
    """Set aside what an earlier command, or the desk, has there; it comes back where a command makes nothing.

    What ``convert`` writes is picks: particles of that name come back too.
    """
    aside = Path("aside")
    there = made is not None and made.exists()
    if there:
        made.rename(aside)
    yield
    if there and (not made.exists() or made.name == "particles.star" or (made.name == "run" and not keep)):
        if made.is_dir():
            shutil.rmtree(made)
        aside.replace(made)
    elif there and aside.is_dir():
        shutil.rmtree(aside)
    elif there:
        aside.unlink()


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(desk, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(folder)
    for line in COMMANDS[page]:
        if line not in ELSEWHERE:
            run_command(line, page in FROM_THE_START)


def benchmark_lines() -> list[str]:
    """Every benchmark that a page says to run."""
    pattern = re.compile(r"^(?:\w+=\w+ )?(python -m benchmarks\.[^\n#]+)$", re.MULTILINE)
    texts = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES]
    return sorted({line.strip() for text in texts for line in pattern.findall(text)})


@pytest.mark.parametrize("line", benchmark_lines())
def test_every_benchmark_of_a_page_takes_its_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class OptionsError(Exception):
        """The options were read; what follows takes minutes to hours."""

    parse = argparse.ArgumentParser.parse_args

    def read(parser: argparse.ArgumentParser, *given: object) -> None:
        parse(parser, shlex.split(line)[3:])
        raise OptionsError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read)
    with pytest.raises(OptionsError):
        importlib.import_module(shlex.split(line)[2]).main()
