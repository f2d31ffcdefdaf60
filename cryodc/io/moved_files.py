"""Files that are not where a STAR says: looked for by name, so that an error can say where they went."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

_MOST_FILES = 100_000


def find_moved(names: Sequence[str], roots: Sequence[Path]) -> dict[str, Path]:
    """Find files of the same name below some folders; of several, the one whose path ends most alike.

    Hidden folders are passed over and links to folders not followed. At most 100,000 files are looked at.

    Examples
    --------
    >>> find_moved(["gone.mrc"], [])
    {}
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(PurePosixPath(name).name, []).append(name)
    moved: dict[str, Path] = {}
    n_seen = 0
    for root in _outermost(roots):
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            n_seen += len(files)
            for file in wanted.keys() & set(files):
                candidate = Path(folder, file)
                for name in wanted[file]:
                    if name not in moved or _shared(name, candidate) > _shared(name, moved[name]):
                        moved[name] = candidate
            if n_seen > _MOST_FILES:
                return moved
    return moved


def data_dir_for(name: str, moved_to: Path) -> Path | None:
    """Give the folder from which a name leads to a file; None where its path differs in more than the start.

    Examples
    --------
    >>> print(data_dir_for("tomo1/a.mrc", Path("/new/tomo1/a.mrc")), data_dir_for("tomo1/a.mrc", Path("/new/a.mrc")))
    /new None
    """
    n_parts = len(PurePosixPath(name).parts)
    if os.path.isabs(name) or _shared(name, moved_to) < n_parts:  # noqa: PTH117
        return None
    return moved_to.parents[n_parts - 1]


def _shared(name: str, path: Path) -> int:
    """How many parts, from the end, two paths have in common."""
    pairs = zip(reversed(PurePosixPath(name).parts), reversed(path.parts), strict=False)
    n_shared = 0
    for one, other in pairs:
        if one != other:
            break
        n_shared += 1
    return n_shared


def _outermost(roots: Sequence[Path]) -> list[Path]:
    """Each folder once, without those inside another."""
    resolved = list(dict.fromkeys(root.resolve() for root in roots))
    return [root for root in resolved if not any(other in root.parents for other in resolved)]
