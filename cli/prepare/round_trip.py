"""What ``cryodc check --round-trip`` prints."""

from typing import TYPE_CHECKING

from cryodc_cli.options import (
    console,
)

if TYPE_CHECKING:
    from cryodc.star import BlockComparison, Differences, StarComparison

_N_NAMES = 3
_CELL = 60


def print_comparison(comparison: "StarComparison") -> None:
    """Every block, what changed in it with the first examples, and the verdict."""
    lines = [f"{comparison.before} → {comparison.after}"]
    for block in comparison.blocks:
        lines += _describe(block)
    for sign, texts in (("-", comparison.lines_removed), ("+", comparison.lines_added)):
        lines += [f"other lines {sign} {_short(text) or '(blank)'}" for text in texts[:_N_NAMES]]
    verdict = comparison.verdict
    out = console()
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    out.print(verdict[0].upper() + verdict[1:] + ".", style="bold", markup=False, soft_wrap=True)


def _describe(block: "BlockComparison") -> list[str]:
    before, after = block.n_rows
    rows = _rows(before) if before == after else f"{_rows(before)} → {after}"
    how = f", matched by {block.matched_by}" if block.matched_by else ""
    lines = [f"data_{block.name}: {rows}{how}" + ("" if block.changes() else ", nothing changed")]
    for label, differences in block.columns.items():
        lines += [f"  {label} changed in {_rows(differences.n_rows)}", *_examples(differences)]
    for word, names in (("added", block.columns_added), ("removed", block.columns_removed)):
        lines += [f"  {name} {word}" for name in names]
    for word, names in (("removed", block.removed), ("added", block.added)):
        if names:
            more = ", …" if len(names) > _N_NAMES else ""
            lines.append(f"  {_rows(len(names))} {word}: {', '.join(names[:_N_NAMES])}{more}")
    if not block.n_compared and max(block.n_rows):
        lines.append("  rows could not be matched: they have no name in common")
    if block.is_reordered:
        lines.append("  rows in another order")
    if block.are_columns_reordered:
        lines.append("  columns in another order")
    if block.layout.n_rows:
        lines += [f"  white space, quotes or comments in {block.layout.n_rows} lines", *_examples(block.layout)]
    return lines


def _examples(differences: "Differences") -> list[str]:
    lines = []
    for example in differences.examples:
        first, second = example.lines
        place = f"line {first}" if first == second else f"line {first} → {second}"
        name = f" {example.name}" if example.name else ""
        lines.append(f"    {place}{name}: {_short(example.before) or '(empty)'} → {_short(example.after) or '(empty)'}")
    if differences.n_rows > len(differences.examples):
        lines.append("    …")
    return lines


def _short(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _rows(n_rows: int) -> str:
    return f"{n_rows} {'row' if n_rows == 1 else 'rows'}"
