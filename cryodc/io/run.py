"""The run folder: one place for everything a run reads and writes."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cryodc.codes import Codes
from cryodc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    Whatever goes wrong, ``path`` keeps its old content and no temporary file stays.

    Raises
    ------
    InputError
        If the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror or error}",
            file=path,
            remedy="free space or choose a folder you may write to; what was there before is unchanged",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
        """Folder of last.pt and best.pt."""
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
        """What the codes hold beside identity; a cache that may be deleted."""
        return self.path / "leakage.json"

    @property
    def states(self) -> Path:
        """Folder of the states of each class: class001 and so on."""
        return self.path / "states"

    @property
    def generated(self) -> Path:
        """Folder of decoded volumes and pictures: grid, class001 and so on."""
        return self.path / "generated"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"


def find_run(run: Path | None, folder: Path | None = None) -> RunFolder:
    """The run folder a user named or, with none named, the latest one in a folder.

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
    here = folder or Path.cwd()
    configs = sorted(here.glob("*/config.yaml"), key=lambda config: config.stat().st_mtime)
    if not configs:
        raise InputError(
            "no run in this folder",
            file=here,
            expected="a folder with config.yaml",
            remedy="run `cryodc train particles.star --out run/` first, or name a run",
        )
    return RunFolder(configs[-1].parent)


def require(path: Path, made_by: str) -> Path:
    """The path, if it exists.

    Raises
    ------
    InputError
        If it does not: the message names the command that makes it.
    """
    if not path.exists():
        raise InputError("this run has no such file yet", file=path, remedy=f"run `{made_by}` first")
    return path


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds anything: an output never overwrites.

    Raises
    ------
    InputError
        If it is a file, or a folder that is not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            "refusing to overwrite",
            file=folder,
            expected="a folder that does not exist yet, or an empty one",
            remedy="choose another --out, or remove this one",
        )


def load_config(run: RunFolder) -> dict[str, Any]:
    """The run's config.yaml as a dictionary."""
    content: dict[str, Any] = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    return content


def save_config(run: RunFolder, config: dict[str, Any]) -> None:
    """Write config.yaml."""
    write_text(run.config, yaml.safe_dump(config, sort_keys=False))


def save_codes(run: RunFolder, codes: Codes) -> None:
    """Write codes.npz."""
    of_templates = {name: getattr(codes, name) for name in ("matched", "placed") if getattr(codes, name) is not None}
    with atomic_path(run.codes) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            names=np.array(codes.names),
            content=codes.content,
            transformation=codes.transformation,
            content_log_variance=codes.content_log_variance,
            transformation_log_variance=codes.transformation_log_variance,
            directional=np.array(codes.directional),
            **of_templates,
        )


def load_codes(run: RunFolder) -> Codes:
    """Read codes.npz.

    Raises
    ------
    InputError
        If training has not finished.
    """
    with np.load(require(run.codes, "cryodc train")) as arrays:
        return Codes(
            tuple(str(name) for name in arrays["names"]),
            arrays["content"],
            arrays["transformation"],
            arrays["content_log_variance"],
            arrays["transformation_log_variance"],
            bool(arrays["directional"]) if "directional" in arrays else True,
            arrays.get("matched"),
            arrays.get("placed"),
        )
