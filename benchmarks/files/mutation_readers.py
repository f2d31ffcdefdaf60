"""What damaged files say, by readers that share no code with the package; and where the package says otherwise."""

import io
import linecache
import math
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
import yaml
from scipy.spatial.transform import Rotation

from cryodc.io import read_array
from cryodc.particles import read_particles
from cryodc.picks import Picks, read_picks
from cryodc.training.settings import checked_config, read_overrides

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_IMOD_STAMP = 1146047817
_NOTHING = {"", "nan", "<na>", "n/a", "na", "null", "none", "-nan", "#n/a", "-inf", "inf"}


class DifferenceError(Exception):
    """The package and the others read a file differently."""


def check_particles(path: Path) -> None:
    """Read particles, and compare names, tomograms, poses, half sets, spacing."""
    found = read_particles(path, check_images=False)
    table = _star_table(path, "rlnImageName")
    names = table.get("rlnTomoParticleName", table["rlnImageName"])
    if len(set(names)) < len(names):
        names = table["rlnImageName"]
    _same("names", found.names, names)
    _same("tomograms", found.tomograms, table.get("rlnTomoName", table.get("rlnMicrographName", [""] * len(names))))
    halves = _numbers(table["rlnRandomSubset"]) if "rlnRandomSubset" in table else np.zeros(0)
    is_known = len(halves) > 0 and bool(np.isin(halves, [1, 2]).all())
    found_halves = None if found.half_sets is None else found.half_sets.tolist()
    _same("half sets", found_halves, halves.tolist() if is_known else None)
    if all(label in table for label in _ANGLES):
        angles = np.stack([_numbers(table[label]) for label in _ANGLES], axis=1)
        expected = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()[:, ::-1, ::-1]
        _close("rotations", None if found.poses is None else found.poses.rotations, expected)
    elif found.poses is not None:
        raise DifferenceError("poses without angles")
    optics = _star_table(path, "rlnImagePixelSize", "optics")
    if optics and "rlnOpticsGroup" in optics and "rlnOpticsGroup" in table:
        of_group = dict(zip(_numbers(optics["rlnOpticsGroup"]), _numbers(optics["rlnImagePixelSize"]), strict=True))
        _close(
            "spacing",
            np.full(len(names), found.spacing_angstrom),
            [of_group[g] for g in _numbers(table["rlnOpticsGroup"])],
            2e-3,
        )
    elif "rlnPixelSize" in table and not optics:
        _close("spacing", np.full(len(names), found.spacing_angstrom), _numbers(table["rlnPixelSize"]), 2e-3)


def check_picks(path: Path) -> None:
    """Read picks, and compare positions, rotations, tomograms, classes."""
    found = read_picks(path)
    classes: Sequence[float] | None = None
    if path.suffix == ".star" and "orig_x" in _star_table(path, "orig_x"):
        table = _star_table(path, "orig_x")
        xyz = np.stack([_numbers(table[f"orig_{a}"]) + _numbers(table[f"{a}_shift"]) - 1 for a in "xyz"], axis=1)
        angles = np.stack([_numbers(table[label]) for label in ("phi", "the", "psi")], axis=1)
        rotations = Rotation.from_euler("zxz", angles, degrees=True).as_matrix()
        tomograms = [_as_whole(text) for text in table["tomo_num"]]
        classes = _numbers(table["class"]).tolist() if "class" in table else None
    elif path.suffix == ".star":
        table = _star_table(path, "rlnCoordinateX")
        xyz = np.stack([_numbers(table[f"rlnCoordinate{a}"]) for a in "XYZ"], axis=1)
        rotations = None
        if all(label in table for label in _ANGLES):
            angles = np.stack([_numbers(table[label]) for label in _ANGLES], axis=1)
            rotations = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
        tomograms = table.get("rlnTomoName", table.get("rlnMicrographName", [""] * len(xyz)))
        classes = _numbers(table["rlnClassNumber"]).tolist() if "rlnClassNumber" in table else None
    elif path.suffix == ".tbl":
        text = path.read_text(encoding="utf-8-sig")
        rows = [line.split()[:26] for line in text.splitlines() if line.split()]
        cells = pd.DataFrame(rows).apply(lambda column: _numbers(column.tolist()))
        values = cells.to_numpy()
        xyz = values[:, 23:26] + values[:, 3:6] - 0.5
        rotations = Rotation.from_euler("zxz", values[:, 6:9], degrees=True).inv().as_matrix()
        tomograms, classes = [str(int(number)) for number in values[:, 19]], values[:, 21].tolist()
    else:
        content = pd.read_csv(
            io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""),
            dtype=str,
            keep_default_na=False,
            index_col=False,
        )
        content.columns = [name.strip().lower() for name in content.columns]
        xyz = np.stack([_numbers(content[a].tolist()) for a in "xyz"], axis=1)
        rotations = None
        if all(name in content for name in ("rot", "tilt", "psi")):
            angles = np.stack([_numbers(content[name].tolist()) for name in ("rot", "tilt", "psi")], axis=1)
            rotations = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
        tomograms = [name.strip() for name in content["tomogram"]] if "tomogram" in content else [""] * len(content)
    _compare_picks(found, xyz, rotations, tomograms, classes)


def check_em(path: Path) -> None:
    """Read a motivelist, and compare with its numbers unpacked one by one."""
    found = read_picks(path)
    content = path.read_bytes()
    order = "<" if content[0] == 6 else ">"
    n = struct.unpack_from(f"{order}i", content, 8)[0]
    layout, size = {5: ("f", 4), 9: ("d", 8)}[content[3]]
    rows = [struct.unpack_from(f"{order}20{layout}", content, 512 + 20 * size * i) for i in range(n)]
    values = np.array(rows, dtype=np.float64)
    rotations = Rotation.from_euler("zxz", values[:, [16, 18, 17]], degrees=True).as_matrix()
    tomograms = [str(int(number)) for number in values[:, 4]]
    _compare_picks(found, values[:, 7:10] + values[:, 10:13] - 1, rotations, tomograms, values[:, 19].tolist())


def check_mrc(path: Path) -> None:
    """Read voxels, and compare with mrcfile's, or with struct's where mrcfile refuses or bytes are unsigned."""
    found = read_array(path)
    content = path.read_bytes()
    expected = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with mrcfile.open(path) as mrc:
                axes = [int(mrc.header[name]) for name in ("maps", "mapr", "mapc")]
                expected = np.array(mrc.data, dtype=np.float32).reshape(
                    tuple(int(mrc.header[n]) for n in ("nz", "ny", "nx"))
                )
        except ValueError:
            axes = []
    order = min(
        "<>",
        key=lambda o: (
            max(struct.unpack_from(f"{o}3i", content)) if min(struct.unpack_from(f"{o}3i", content)) > 0 else math.inf
        ),
    )
    nx, ny, nz, mode = struct.unpack_from(f"{order}4i", content)
    if expected is None or mode == 0:
        axes = list(struct.unpack_from(f"{order}3i", content, 64))[::-1]
        low, high = struct.unpack_from(f"{order}2f", content, 76)
        stamp, flags = struct.unpack_from(f"{order}2i", content, 152)
        extended = struct.unpack_from(f"{order}i", content, 92)[0]
        is_unsigned = flags % 2 == 0 if stamp == _IMOD_STAMP else 127 < high < 256 and high - 127 > -low > -math.inf
        layout = {0: "B" if is_unsigned else "b", 1: "h", 2: "f", 6: "H", 12: "e"}[mode]
        voxels = struct.unpack_from(f"{order}{nx * ny * nz}{layout}", content, 1024 + extended)
        expected = np.array(voxels, dtype=np.float32).reshape(nz, ny, nx)
    if any(axes):
        expected = expected.transpose([axes.index(axis) for axis in (3, 2, 1)])
    if not np.array_equal(found, expected):
        raise DifferenceError(f"voxels of {found.shape} and {expected.shape}")


def _longest(edges: tuple[int, ...]) -> float:
    return max(edges) if min(edges) > 0 else math.inf


def check_config(path: Path) -> None:
    """Read settings, check their ranges, and compare with what PyYAML reads."""
    overrides = read_overrides(path)
    config = checked_config("default", 32, overrides).model_dump(mode="json")
    for section, values in (yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}).items():
        for name, value in values.items():
            if config[section][name] != value and float(config[section][name]) != float(value):
                raise DifferenceError(f"{section}.{name}: {config[section][name]!r} and {value!r}")


def _compare_picks(
    found: Picks,
    xyz: np.ndarray,
    rotations: np.ndarray | None,
    tomograms: Sequence[str],
    classes: Sequence[float] | None,
) -> None:
    _same("tomograms", list(found.tomograms), list(tomograms))
    _close("positions", found.positions, xyz[:, ::-1])
    if (rotations is None) != (found.rotations is None):
        raise DifferenceError("rotations in one of the two")
    if rotations is not None:
        _close("rotations", found.rotations, rotations[:, ::-1, ::-1])
    if classes is None or not any(float(value).is_integer() and abs(value) < 2**31 for value in classes):
        _same("classes", found.classes, None)
    else:
        is_class = [float(value).is_integer() and abs(value) < 2**31 for value in classes]
        expected = [int(value) if known else 0 for value, known in zip(classes, is_class, strict=True)]
        _same("classes", None if found.classes is None else found.classes.tolist(), expected)


def _star_table(path: Path, label: str, name: str | None = None) -> Mapping[str, list[str]]:
    """The table that has a label: as starfile reads it, or, where that cannot be, by characters; none without one.

    starfile takes a # within a word for a comment, a text like nan for nothing, a vertical tab, which is white space to
    RELION, for a part of a word, and white space beyond ASCII, which is none to RELION, for an end of one.

    Parameters
    ----------
    path, label
        The file, and a label of the table.
    name
        The block it must stand in.
    """

    def is_it(block: str, table: Mapping[str, object]) -> bool:
        return label in table and name in (None, block)

    by_characters = _tables_by_characters(path)
    mine = next((table for block, table in by_characters if is_it(block, table)), {})
    texts = [text for column in mine.values() for text in column]
    is_odd = re.search(r"[\v\f\x85\u2028]", path.read_bytes().decode("utf-8", "surrogateescape")) is not None
    is_odd |= any("#" in text or text.strip().lower() in _NOTHING or text != text.strip() for text in texts)
    try:
        linecache.clearcache()
        labels = [each for _, table in by_characters for each in table]
        tables = starfile.read(path, always_dict=True, parse_as_string=labels)
        frames = {block: table for block, table in tables.items() if isinstance(table, pd.DataFrame)}
        theirs = next(table for block, table in frames.items() if is_it(block, table))
    except Exception:
        return mine
    return mine if is_odd or not mine else {each: list(map(str, theirs[each])) for each in theirs}


def _tables_by_characters(path: Path) -> list[tuple[str, dict[str, list[str]]]]:
    """Tables of a STAR and the names of their blocks, read one character after the other."""
    tables: list[tuple[str, dict[str, list[str]]]] = []
    labels: list[str] = []
    state, name = "outside", ""
    for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
        words = _words(line)
        if not words:
            continue
        (first, is_quoted), is_alone = words[0], len(words) == 1
        if is_alone and not is_quoted and first.lstrip("\ufeff").lower().startswith("data_"):
            state, name, labels = "block", first.lstrip("\ufeff")[5:], []
        elif is_alone and first.lower() == "loop_":
            state, labels = "labels", []
            tables.append((name, {}))
        elif state == "labels" and is_alone and first.startswith("_"):
            labels.append(first[1:])
            tables[-1][1][first[1:]] = []
        elif state in ("labels", "rows"):
            state = "rows"
            for label, (word, _) in zip(labels, words, strict=True):
                tables[-1][1][label].append(word)
    return tables


def _words(line: str) -> list[tuple[str, bool]]:
    """Words of a line, and whether each was quoted; what follows a # is no word."""
    words, at, white = [], 0, " \t\r\v\f"
    while at < len(line):
        if line[at] in white:
            at += 1
            continue
        if line[at] == "#":
            break
        end = at
        mark = line[at] if line[at] in "\"'" else ""
        if mark:
            end = at + 1
            while end < len(line) and not (line[end] == mark and (end + 1 == len(line) or line[end + 1] in white)):
                end += 1
            words.append((line[at + 1 : end], True))
            at = end + 1
            continue
        while end < len(line) and line[end] not in white:
            end += 1
        words.append((line[at:end], False))
        at = end
    return words


def _numbers(texts: Sequence[str]) -> np.ndarray:
    """Numbers as pandas takes texts, infinite ones as none."""
    values = pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _as_whole(text: str) -> str:
    value = _numbers([text])[0]
    return str(int(value)) if math.isfinite(value) and value.is_integer() and abs(value) < 2**31 else text


def _same(what: str, found: object, expected: object) -> None:
    left, right = (list(v) if isinstance(v, tuple) else v for v in (found, expected))
    if left != right:
        raise DifferenceError(f"{what}: {found!r} and {expected!r}"[:2000])


def _close(what: str, found: object, expected: object, tolerance: float = 1e-6) -> None:
    if found is None or not np.allclose(np.asarray(found), np.asarray(expected), rtol=tolerance, atol=1e-6):
        raise DifferenceError(f"{what}: {found} and {expected}"[:2000])
