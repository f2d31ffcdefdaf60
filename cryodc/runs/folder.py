"""The run folder: one place for everything a run reads and writes."""

from dataclasses import dataclass
from pathlib import Path

from cryodc.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run; every one is documented in ``docs/run_folder.md``."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting, versions, seed, command, dataset fingerprint."""
        return self.path / "config.yaml"

    @property
    def particles(self) -> Path:
        """The input STAR, text kept."""
        return self.path / "particles.star"

    @property
    def pack(self) -> Path:
        """Folder of the particles as training reads them; a cache that may be deleted."""
        return self.path / "particles.pack"

    @property
    def checkpoints(self) -> Path:
        """Folder of last.pt."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """One line per epoch, each loss term by name."""
        return self.path / "log.csv"

    @property
    def codes(self) -> Path:
        """Content and transformation codes of every particle."""
        return self.path / "codes.npz"

    @property
    def templates(self) -> Path:
        """Folder of the templates that content codes are made of: template001.mrc and so on."""
        return self.path / "templates"

    @property
    def clusters(self) -> Path:
        """Folder of clusters.star, class001.star …, summary.json."""
        return self.path / "clusters"

    @property
    def averages(self) -> Path:
        """Folder of class averages, half maps, FSC curves, particles.star with poses."""
        return self.path / "averages"

    @property
    def leakage(self) -> Path:
        """The leakage table of the codes; a cache that may be deleted."""
        return self.path / "leakage.json"

    @property
    def states(self) -> Path:
        """Folder of the states of each class: class001 and so on."""
        return self.path / "states"

    @property
    def identified(self) -> Path:
        """Folder of what the classes are: candidates.csv, particles.star with names, structures where classes lie."""
        return self.path / "identified"

    @property
    def generated(self) -> Path:
        """Folder of decoded volumes and pictures: grid, class001 and so on."""
        return self.path / "generated"

    @property
    def comparison(self) -> Path:
        """Picture of the codes of this run beside those of others."""
        return self.path / "comparison.png"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"


def find_run(run: Path | None) -> RunFolder:
    """The run folder a user named or, with none named, the latest one in the current folder, demos included.

    A run folder is one that holds config.yaml.

    Raises
    ------
    InputError
        If the named folder is no run, or there is none to find.
    """
    if run is not None:
        if not (run / "config.yaml").is_file():
            raise InputError(
                "not a run folder",
                file=run,
                expected="a folder with config.yaml",
                remedy="name the --out of `cryodc train`",
            )
        return RunFolder(run)
    here = Path.cwd()
    places = ("*/config.yaml", "*/run/config.yaml", "demo/*/run/config.yaml")
    configs = sorted((path for place in places for path in here.glob(place)), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise InputError(
            "no run in this folder",
            file=here,
            expected="a folder with config.yaml",
            remedy="run `cryodc train particles.star --out run/` first, or name a run",
        )
    return RunFolder(configs[-1].parent)


def require(path: Path, made_by: str) -> Path:
    """Give the path if it exists.

    Raises
    ------
    InputError
        If it does not: the message names the command that makes it.
    """
    if not path.exists():
        raise InputError("this run has no such file yet", file=path, remedy=f"run `{made_by}` first")
    return path
