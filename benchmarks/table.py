"""A Markdown table of what was measured on one set: median over seeds, and the range.

python -m benchmarks.table --set easy

Reads the JSON files of benchmarks/results/; --set names the particles as they do, for example easy-tilts. With
--published composition and conformation are judged by the proteins of the published set, where that counts otherwise.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.recipes import RESULTS, run

Result = dict[str, Any]


def _score(factors: Sequence[str], *path: str) -> Callable[[Result], float | None]:
    """A number of the row of one of these factors in ``disentanglement``."""

    def read(result: Result) -> float | None:
        value: Any = next((row for row in result.get("disentanglement", []) if row["factor"] in factors), None)
        for key in path:
            value = None if value is None else value[key]
        return value

    return read


def _above_shuffled(factor: str) -> Callable[[Result], float | None]:
    """R² of a factor from the content code, less the mean of shuffled particles."""

    def read(result: Result) -> float | None:
        probe = next((row["content"] for row in result.get("leakage", []) if row["factor"] == factor), None)
        if probe is None or probe["value"] is None:
            return None
        return float(probe["value"] - probe["shuffled_mean"])

    return read


def _transfer(share: str) -> Callable[[Result], float | None]:
    """A share of the transfer grid, see :func:`benchmarks.transfer.transfer_scores`."""
    return lambda result: result.get("transfer", {}).get(share)


_CONTENT = ("protein", "digit", "object")
_TRANSFORMATION = ("conformation", "pose", "rotation", "viewpoint")

COLUMNS: dict[str, Callable[[Result], float | None]] = {
    "ARI": lambda result: result.get("ari"),
    "accuracy": lambda result: result.get("accuracy"),
    "classes of `-k auto`": lambda result: result.get("auto_k"),
    "D(c\\|c)": _score(_CONTENT, "content", "corrected"),
    "D(c\\|z)": _score(_CONTENT, "transformation", "corrected"),
    "SAP(c)": _score(_CONTENT, "sap_corrected"),
}
for _factor in _TRANSFORMATION:
    COLUMNS[f"D(z\\|z), {_factor}"] = _score((_factor,), "transformation", "corrected")
    COLUMNS[f"D(z\\|c), {_factor}"] = _score((_factor,), "content", "corrected")
    COLUMNS[f"SAP(z), {_factor}"] = _score((_factor,), "sap_corrected")
COLUMNS["cells of the row's label"] = _transfer("row")
COLUMNS["of the column's"] = _transfer("column")
COLUMNS["R² of pose from c, less shuffled"] = _above_shuffled("orientation")
COLUMNS["R² of wedge from c, less shuffled"] = _above_shuffled("wedge_particle")


def read_results(folder: Path, name: str) -> list[Result]:
    """All results of one set, by method and seed."""
    results = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return sorted((r for r in results if r["set"] == name), key=lambda r: (r["method"], r["seed"]))


def as_published(results: Sequence[Result]) -> list[Result]:
    """Results with proteins as the published set counts them; those that were not judged so are left out."""
    judged = []
    for result in results:
        if "as_published" not in result:
            continue
        told = result["as_published"]
        factors = {row["factor"] for row in told["disentanglement"]}
        others = [row for row in result["disentanglement"] if row["factor"] not in factors]
        judged.append({**result, **told, "disentanglement": [*told["disentanglement"], *others]})
    return judged


def markdown(results: Sequence[Result]) -> str:
    """One row per method; columns that no method fills are left out."""
    methods = list(dict.fromkeys(result["method"] for result in results))
    columns = [name for name, read in COLUMNS.items() if any(read(result) is not None for result in results)]
    lines = ["| " + " | ".join(["method", "seeds", *columns]) + " |", "|---" * (len(columns) + 2) + "|"]
    for method in methods:
        of_method = [result for result in results if result["method"] == method]
        seeds = ", ".join(str(result["seed"]) for result in of_method)
        lines.append("| " + " | ".join([method, seeds, *(spread(of_method, COLUMNS[c]) for c in columns)]) + " |")
    return "\n".join(lines)


def spread(results: Sequence[Result], read: Callable[[Result], float | None]) -> str:
    """Median, and the range where seeds differ."""
    values = [value for result in results if (value := read(result)) is not None]
    if not values:
        return "–"
    low, middle, high = (_number(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def main() -> None:
    """Print the table of one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--published", action="store_true", help="proteins as the published set counts them")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = read_results(arguments.results, arguments.set)
    results = as_published(results) if arguments.published else results
    if not results:
        parser.error(f"no results of {arguments.set} in {arguments.results}")
    print(markdown(results))


if __name__ == "__main__":
    run(main)
