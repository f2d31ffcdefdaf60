"""What a reader is promised: every public function of four or more arguments says what each is."""

import ast
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "cryodc"


def public_functions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> list[tuple[str, ast.FunctionDef]]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += public_functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append((prefix + node.name, node))
    return found


def test_many_arguments_are_listed() -> None:
    missing = []
    for file in sorted(LIBRARY.rglob("*.py")):
        for name, function in public_functions(ast.parse(file.read_text(encoding="utf-8"))):
            given = function.args
            names = [
                a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")
            ]
            doc = ast.get_docstring(function) or ""
            if len(names) < 4:
                continue
            told = doc.partition("Parameters\n")[2]
            missing += [f"{file.name}: {name}({argument})" for argument in names if argument not in told]
    assert missing == []


def test_a_room_is_small_enough_to_know() -> None:
    """No folder of more than ten modules, and no module of more than 300 lines."""
    for top in ("cryodc", "cli"):
        for folder in (LIBRARY.parent / top, *(LIBRARY.parent / top).rglob("*/")):
            modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
            assert len(modules) <= 10, folder
            assert all(len(file.read_text(encoding="utf-8").splitlines()) <= 300 for file in modules), folder
    assert len(list(LIBRARY.glob("*.py"))) <= 8
