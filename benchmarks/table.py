"""A Markdown table of what was measured on one set: median over seeds, and the range.

python -m benchmarks.table --set easy

Reads the table of the set in benchmarks/results/; --set names the particles as that does, for example easy-tilts. With
--published composition and conformation are judged by the proteins of the published set, where that counts otherwise.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.command import run
from benchmarks.measurements import RESULTS, Row, read_results

Reader = Callable[[Row], float | None]


def _number(*columns: str) -> Reader:
    """The number in the first of these columns that is filled."""

    def read(row: Row) -> float | None:
        cell = next((row[column] for column in columns if column in row), None)
        return cell if isinstance(cell, int | float) else None

    return read


def _told(factors: Sequence[str], score: str) -> Reader:
    """A score of one of these factors."""
    return _number(*(f"disentanglement.{factor}.{score}" for factor in factors))


def _above_shuffled(factor: str) -> Reader:
    """R² of a factor from the content code, less the mean of shuffled particles."""
    found, by_chance = (_number(f"leakage.{factor}.content.{name}") for name in ("value", "shuffled_mean"))

    def read(row: Row) -> float | None:
        value, shuffled = found(row), by_chance(row)
        return None if value is None or shuffled is None else value - shuffled

    return read


_CONTENT = ("protein", "digit", "object")
_TRANSFORMATION = ("conformation", "pose", "rotation", "viewpoint")

COLUMNS: dict[str, Reader] = {
    "ARI": _number("ari"),
    "accuracy": _number("accuracy"),
    "classes of `-k auto`": _number("auto_k"),
    "D(c\\|c)": _told(_CONTENT, "content.corrected"),
    "D(c\\|z)": _told(_CONTENT, "transformation.corrected"),
    "SAP(c)": _told(_CONTENT, "sap_corrected"),
}
for _factor in _TRANSFORMATION:
    COLUMNS[f"D(z\\|z), {_factor}"] = _told((_factor,), "transformation.corrected")
    COLUMNS[f"D(z\\|c), {_factor}"] = _told((_factor,), "content.corrected")
    COLUMNS[f"SAP(z), {_factor}"] = _told((_factor,), "sap_corrected")
COLUMNS["cells of the row's label"] = _number("transfer.row")
COLUMNS["of the column's"] = _number("transfer.column")
COLUMNS["R² of pose from c, less shuffled"] = _above_shuffled("orientation")
COLUMNS["R² of wedge from c, less shuffled"] = _above_shuffled("wedge_particle")
COLUMNS["ARI, poses as aligned"] = _number("ari_not_relaxed")
COLUMNS["states found"] = _number("n_states_found")
COLUMNS["ARI of those"] = _number("ari_found")

_PUBLISHED = "as_published."
_JUDGED = ("disentanglement.protein.", "disentanglement.conformation.")
"""Factors that depend on which particles are one protein: none of their cells stays as it was."""


def as_published(rows: Sequence[Row]) -> list[Row]:
    """Results with proteins as the published set counts them; those that were not judged so are left out."""
    judged = []
    for row in rows:
        told = {name.removeprefix(_PUBLISHED): cell for name, cell in row.items() if name.startswith(_PUBLISHED)}
        if told:
            judged.append({name: cell for name, cell in row.items() if not name.startswith(_JUDGED)} | told)
    return judged


def markdown(results: Sequence[Row]) -> str:
    """One row per method; columns that no method fills are left out."""
    methods = list(dict.fromkeys(result["method"] for result in results))
    columns = [name for name, read in COLUMNS.items() if any(read(result) is not None for result in results)]
    lines = ["| " + " | ".join(["method", "seeds", *columns]) + " |", "|---" * (len(columns) + 2) + "|"]
    for method in methods:
        of_method = [result for result in results if result["method"] == method]
        seeds = ", ".join(str(result["seed"]) for result in of_method)
        lines.append("| " + " | ".join([method, seeds, *(spread(of_method, COLUMNS[c]) for c in columns)]) + " |")
    return "\n".join(lines)


def spread(results: Sequence[Row], read: Reader) -> str:
    """Median, and the range where seeds differ."""
    values = [value for result in results if (value := read(result)) is not None]
    if not values:
        return "–"
    low, middle, high = (_text(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def _text(value: float) -> str:
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
