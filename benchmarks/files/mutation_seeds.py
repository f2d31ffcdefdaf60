"""Whole files of each kind, and ways to damage them; everything follows from the generator given."""

import random
import re
import struct

_WORDS = [
    "nan", "inf", "-inf", "1e400", "1_000", "0x10", "1,5", "", '""', "''", "'", '"', "#", "_", "data_", "loop_", "None",
    "-1", "0", "1.0", "2.000000", "+1", "1e0", "3", "1.5", "99999999999999999999", "9" * 400, "1e6", "1e-9", "-0", "١",
    "²@x.mrc", "000002@x.mrcs", "é", "\u2028", "\x85", "a b", "*", "&a", "*a", "[", "{", "}", "!!python/none", "<<",
    "true", "null", "~", "-", ":", "?", "|", "2024-13-45", "12:30", "\udce9", "\0", "\r", "\t", "\v", "\f", "1", "2",
]  # fmt: skip

_VALUES = [
    "1.0", "2.000000", "+1", "1e0", "-1", "0", "nan", "3", "1.5", "inf", "-0.0", "TS_01", "1", "2", "8", "16", "A",
]  # fmt: skip


def text_seed(kind: str, rng: random.Random) -> str:
    """A whole text file of a kind."""
    makers = {
        "particles": _particles,
        "relion picks": _relion_picks,
        "stopgap picks": _stopgap_picks,
        "tbl": _dynamo,
        "csv": _csv,
        "config": _config,
    }
    text = makers[kind](rng)
    return text.replace("\n", "\r\n") if rng.random() < 0.1 else text


def damage_text(content: bytes, rng: random.Random) -> bytes:
    """Lose, double, swap or overwrite a line, a word or a character."""
    text = content.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    kinds = ["word"] * 4 + ["value"] * 10 + ["drop word", "add word", "line", "double", "swap", "cut", "insert"]
    kind = rng.choice([*kinds, "swap words", "swap words"])
    if kind == "value":
        # A word of a row or a setting, for one that could stand there.
        i = rng.choice([k for k, line in enumerate(lines) if len(line.split()) > 1 or "," in line] or [i])
    if kind in ("word", "value", "drop word", "add word", "swap words"):
        words = re.split(r"([\s,]+)", lines[i])
        k = 2 * rng.randrange((len(words) + 1) // 2)
        if kind in ("word", "value"):
            words[k] = rng.choice(_WORDS if kind == "word" else _VALUES)
        elif kind == "drop word":
            del words[k : k + 2]
        elif kind == "add word":
            words[k:k] = [rng.choice(_WORDS), " "]
        else:
            m = 2 * rng.randrange((len(words) + 1) // 2)
            words[k], words[m] = words[m], words[k]
        lines[i] = "".join(words)
    elif kind == "line":
        del lines[i]
    elif kind == "double":
        lines.insert(j, lines[i])
    elif kind == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == "cut":
        return content[: rng.randrange(len(content) + 1)]
    else:
        at = rng.randrange(len(text) + 1)
        return (text[:at] + rng.choice(_WORDS) + text[at:]).encode("utf-8", "surrogateescape")
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Overwrite, cut off, add or repeat bytes."""
    at = rng.randrange(len(content) + 1)
    kind = rng.choice(["flip", "flip", "flip", "cut", "longer", "repeat", "zeros"])
    if kind == "flip":
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "longer":
        return content + rng.randbytes(rng.choice([1, 3, 64]))
    if kind == "repeat":
        return content[:at] + content[max(0, at - 16) :]
    return content[:at] + bytes(8) + content[at + 8 :]


def damage_header(content: bytes, rng: random.Random) -> bytes:
    """Overwrite one of the first 64 words, or one of the labels' first."""
    at = 4 * rng.randrange(56)
    order = rng.choice("<<<>")
    whole = [0, 1, -1, 2, 3, 5, 6, 7, 8, 12, 20, 80, 127, 128, 255, 401, 1024, 65536, 2**31 - 1, -(2**31), 1146047817]
    real = [0.0, 1.0, -1.0, 4.0, 24.0, 255.0, 1e30, 1e-30, float("nan"), float("inf"), 127.5, -128.0]
    word = (
        struct.pack(f"{order}i", rng.choice(whole))
        if rng.random() < 0.6
        else struct.pack(f"{order}f", rng.choice(real))
    )
    return content[:at] + word + content[at + 4 :]


def mrc_seed(rng: random.Random) -> bytes:
    """An MRC file of 6³ voxels in any mode and byte order, with or without an extended header."""
    mode, order = rng.choice([0, 0, 0, 1, 2, 2, 6, 12]), rng.choice("<<>")
    layout = {0: rng.choice("bB"), 1: "h", 2: "f", 6: "H", 12: "e"}[mode]
    low, high = (0, 200) if layout in "BH" else (-100, 100)
    voxels = [rng.randint(low, high) for _ in range(216)]
    extended = rng.choice([0, 0, 0, 160])
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, 6, 6, 6, mode, 0, 0, 0, 6, 6, 6)
    struct.pack_into(f"{order}6f3i", header, 40, 24, 24, 24, 90, 90, 90, 1, 2, 3)
    struct.pack_into(f"{order}3f", header, 76, min(voxels), max(voxels), 0)
    struct.pack_into(f"{order}2i", header, 88, 1, extended)
    if layout in "bB" and rng.random() < 0.5:
        struct.pack_into(f"{order}2i", header, 152, 1146047817, int(layout == "b"))
    struct.pack_into("4s4B", header, 208, b"MAP ", *((0x44, 0x44) if order == "<" else (0x11, 0x11)), 0, 0)
    return bytes(header) + bytes(extended) + struct.pack(f"{order}216{layout}", *voxels)


def em_seed(rng: random.Random) -> bytes:
    """An EM motivelist of one to five particles, in either byte order and precision."""
    n, order, layout = rng.randint(1, 5), rng.choice("<>"), rng.choice("fd")
    machine, kind = (6 if order == "<" else 0), {"f": 5, "d": 9}[layout]
    rows = []
    for i in range(n):
        row = [rng.random() for _ in range(20)]
        row[4], row[19], row[3] = float(rng.randint(1, 9)), float(rng.randint(-1, 5)), float(i)
        rows += row
    header = bytes([machine, 0, 0, kind]) + struct.pack(f"{order}3i", 20, n, 1)
    return header.ljust(512, b"\0") + struct.pack(f"{order}{20 * n}{layout}", *rows)


def _loop(name: str, labels: list[str], rows: list[list[str]], rng: random.Random) -> str:
    number, gap = rng.random() < 0.5, rng.choice([" ", "\t", "  "])
    head = "".join(f"_{label} #{i}\n" if number else f"_{label}\n" for i, label in enumerate(labels, start=1))
    return f"data_{name}\n\nloop_\n{head}" + "".join(gap.join(row) + "\n" for row in rows) + "\n"


def _particles(rng: random.Random) -> str:
    labels = ["rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnClassNumber", "rlnRandomSubset"]
    labels += [rng.choice(["rlnTomoName", "rlnMicrographName"])]
    is_old, is_named = rng.random() < 0.3, rng.random() < 0.4
    labels += ["rlnPixelSize"] if is_old else ["rlnOpticsGroup"]
    labels += ["rlnTomoParticleName"] if is_named else []
    order = rng.sample(range(len(labels)), len(labels))
    rows = []
    for i in range(rng.randint(1, 6)):
        cells = [f"a/{i:02d}.mrc", *(f"{rng.uniform(-400, 400):.6f}" for _ in range(3)), str(rng.randint(0, 4))]
        cells += [rng.choice(["1", "2", "1.0", "2.000000"]), f"TS_0{i % 2}", "10.0" if is_old else str(1 + i % 2)]
        cells += [f"TS_0{i % 2}/{i}"] if is_named else []
        rows.append([cells[k] for k in order])
    table = _loop("" if is_old else "particles", [labels[k] for k in order], rows, rng)
    if is_old:
        return table
    optics = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"]
    groups = [["1", "first", "10.0", "8", "3"], ["2", '"the second"', "10.000000", "8", "3"]]
    parts = [_loop("optics", optics, groups, rng), table]
    return "# version 30001\n\n" + "\n".join(parts if rng.random() < 0.7 else parts[::-1])


def _relion_picks(rng: random.Random) -> str:
    labels = ["rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    labels += ["rlnClassNumber", "rlnRandomSubset"]
    rows = [
        [
            f"TS_0{i % 2}",
            *(f"{rng.uniform(-200, 400):.4f}" for _ in range(6)),
            str(rng.randint(-1, 4)),
            rng.choice("12"),
        ]
        for i in range(rng.randint(1, 6))
    ]
    return _loop("particles", labels, rows, rng)


def _stopgap_picks(rng: random.Random) -> str:
    labels = ["tomo_num", "halfset", "orig_x", "orig_y", "orig_z", "score", "x_shift", "y_shift", "z_shift"]
    labels += ["phi", "psi", "the", "class"]
    rows = []
    for _ in range(rng.randint(1, 6)):
        numbers = [f"{rng.uniform(-200, 400):.4f}" for _ in range(10)]
        rows.append([str(rng.randint(1, 9)), rng.choice("AB"), *numbers, str(rng.randint(-1, 4))])
    return _loop("stopgap_motivelist", labels, rows, rng)


def _dynamo(rng: random.Random) -> str:
    lines = []
    for i in range(rng.randint(1, 6)):
        row = [f"{rng.uniform(-200, 400):.4f}" for _ in range(35)]
        row[0], row[19], row[21] = str(i + 1), str(rng.randint(1, 9)), str(rng.randint(-1, 4))
        lines.append(" ".join(row))
    return "\n".join(lines) + "\n"


def _csv(rng: random.Random) -> str:
    has_angles = rng.random() < 0.6
    names = ["x", "y", "z", "tomogram", *(["rot", "tilt", "psi"] if has_angles else [])]
    rows = []
    for i in range(rng.randint(1, 6)):
        numbers = [f"{rng.uniform(-200, 400):.3f}" for _ in names]
        numbers[3] = f"TS_0{i % 2}"
        rows.append(",".join(numbers))
    return "\n".join([",".join(names), *rows]) + "\n"


def _config(rng: random.Random) -> str:
    lines = {
        "model": ["width: 8", "max_channels: 16", "content_dims: 8"],
        "optimisation": ["epochs: 2", "batch_size: 8", "learning_rate: 1e-3", "precision: float32"],
        "loss": ["content_loss: infonce"],
        "templates": ["n_templates: 4", "wedge_correction: true"],
    }
    text = ""
    for section in rng.sample(list(lines), rng.randint(1, 4)):
        kept = rng.sample(lines[section], rng.randint(1, len(lines[section])))
        text += f"{section}:\n" + "".join(f"  {line}\n" for line in kept)
    return text
