"""The second part of docs/troubleshooting.md, every error message: ``python docs/site/troubleshooting.py``.

It is read from the source: what each ``InputError`` says, what it expects, and its remedy. What depends on the case is
an ellipsis.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
MARK = "<!-- What follows is written by docs/site/troubleshooting.py. -->\n"
TOPICS = {
    "particles": "Particles in a STAR file",
    "star": "STAR files",
    "io": "Volumes, weights, tilt ranges and other files",
    "check": "Pre-flight: `check`",
    "tilts": "2D stacks: `import`",
    "picks": "Picks: `extract` and `convert`",
    "centring": "Off centre: `recentre`",
    "simulation": "Practice particles: `simulate`",
    "dataset": "Reading and packing: `pack`, `train`",
    "training": "Training: `train`",
    "models": "Training: `train`",
    "device": "Devices",
    "runs": "Run folders",
    "clustering": "Clusters: `cluster`",
    "averaging": "Averages: `average`",
    "alignment": "Averages: `average`",
    "maps": "Averages: `average`",
    "states": "States: `states`",
    "identify": "Known structures: `identify`",
    "templates": "Decoded volumes: `generate`",
    "generate": "Decoded volumes: `generate`",
    "report": "Report and viewer: `report`, `view`",
    "evaluation": "Evaluation: `evaluate`",
    "export": "Export: `select`, `export`, `map-back`",
}
_OTHER = "Other"
Row = tuple[str, str, str]


def catalogue() -> str:
    """Every message as Markdown tables, by topic."""
    rows: dict[str, list[Row]] = {topic: [] for topic in [*TOPICS.values(), _OTHER]}
    for file in [*sorted(ROOT.glob("cryodc/**/*.py")), *sorted(ROOT.glob("cli/**/*.py"))]:
        parts = file.relative_to(ROOT).with_suffix("").parts
        topic = TOPICS.get(parts[1], _OTHER) if parts[0] == "cryodc" else _OTHER
        # Nothing but an ellipsis is the message of another error, passed on.
        rows[topic] += [row for row in messages(file) if row[0].strip("… ")]
    return "\n".join(_table(topic, found) for topic, found in rows.items() if found)


def messages(file: Path) -> Iterator[Row]:
    """Message, expectation and remedy of every InputError that a module makes, in the order of its lines."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InputError":
            around = [tree, *(each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0))]
            given = {word.arg: word.value for word in node.keywords}
            said = node.args[0] if node.args else given.get("problem")
            problem, expected, remedy = (
                _text(one, around) for one in (said, given.get("expected"), given.get("remedy"))
            )
            yield problem, expected, remedy


def _table(topic: str, rows: list[Row]) -> str:
    lines = [f"## {topic}", "", "| message | expected | cure |", "|---|---|---|"]
    lines += [
        f"| {' | '.join(_cell(text) for text in row)} |"
        for row in sorted(set(rows), key=lambda row: [text.strip("‹").lower() for text in row])
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    parts = " ".join(text.replace("|", "\\|").split()).split("`")
    # Code stands as it is; elsewhere Markdown would read these signs.
    parts[::2] = [re.sub(r"([*_<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).strip("; ") or "–"


def _text(node: ast.expr | None, around: list[ast.AST]) -> str:
    """What an expression says, as far as the source tells.

    Either of two texts; ‹name› or … for what the case decides.

    Parameters
    ----------
    node
        The expression.
    around
        The module and the functions that it stands in.
    """
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(_text(value, around) for value in values)
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():
            return "".join(_text(value, []) for value in _assigned(name, around[:1])) or "…"
        case ast.FormattedValue(value=ast.Name(id=name)):
            return f"‹{name.replace('_', ' ')}›" if len(name) > 2 else "…"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, around) + _text(right, around)
        case ast.IfExp(body=body, orelse=orelse):
            texts = [text for text in (_text(body, around), _text(orelse, around)) if text]
            return " / ".join(dict.fromkeys(texts))
        case ast.Name(id=name):
            found = [_text(value, []) for value in _assigned(name, around[1:])]
            return " / ".join(dict.fromkeys(text for text in found if text.strip("… "))) or "…"
        case None | ast.Constant(value=None):
            return ""
    return "…"


def _assigned(name: str, around: list[ast.AST]) -> list[ast.expr]:
    """What a name is given in the functions around; of several names at once, the one in its place."""
    found: list[ast.expr] = []
    for node in (inner for function in around for inner in ast.walk(function)):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name) and target.id == name:
            found.append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            places = [part.id if isinstance(part, ast.Name) else "" for part in target.elts]
            found += [each for place, each in zip(places, value.elts, strict=False) if place == name]
    return found


def page(now: str) -> str:
    """The page with its second part written anew."""
    return f"{now.partition(MARK)[0]}{MARK}\n{catalogue()}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
