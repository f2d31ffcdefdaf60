"""Compare two STAR files cell by cell: what a program changed, added or dropped.

Cells are compared as text: ``1.0`` and ``1.00`` differ. Nothing of a million rows is copied; a row is split into
its cells only where its line differs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryodc.star.blocks import StarBlock
from cryodc.star.difference import BlockComparison, Differences, StarComparison
from cryodc.star.document import StarDocument, read_star
from cryodc.star.lexer import cells_of, edit_line, without_collection

_KEYS = ("rlnTomoParticleName", "rlnImageName", "rlnOpticsGroup", "rlnTomoName", "rlnMicrographName")
_NUMBER = re.compile(r"\s*#\d+(?=\s|$)")


@without_collection()
def compare_stars(before: Path, after: Path) -> StarComparison:
    """Compare two STAR files block by block, column by column, row by row.

    Rows are matched by their place or, where rows were dropped, added or reordered, by particle name
    (rlnTomoParticleName, else rlnImageName).

    Raises
    ------
    InputError
        If one of them is no STAR file.
    """
    first, second = read_star(before), read_star(after)
    if first.lines == second.lines:
        return StarComparison(before, after, is_identical=True)
    ours, theirs = _occurrences(first), _occurrences(second)
    removed, added = _only_in(_frame(first), _frame(second))
    return StarComparison(
        before,
        after,
        is_identical=False,
        blocks=tuple(_compare_blocks(block, theirs[key]) for key, block in ours.items() if key in theirs),
        blocks_removed=tuple(name for name, i in ours if (name, i) not in theirs),
        blocks_added=tuple(name for name, i in theirs if (name, i) not in ours),
        lines_removed=removed,
        lines_added=added,
        line_ends=(_n_crlf(first), _n_crlf(second)),
    )


def _occurrences(document: StarDocument) -> dict[tuple[str, int], StarBlock]:
    """Blocks by name, and how many of that name came before."""
    seen: Counter[str] = Counter()
    blocks = {}
    for block in document.blocks:
        blocks[block.name, seen[block.name]] = block
        seen[block.name] += 1
    return blocks


def _compare_blocks(before: StarBlock, after: StarBlock) -> BlockComparison:
    ours, theirs = before.labels, after.labels
    if not (before.is_loop and after.is_loop):
        return _compare_values(before, after)
    key = next((label for label in _KEYS if label in ours and label in theirs), None)
    by_place = None
    if before.n_rows == after.n_rows:
        by_place = _compare_rows(before, after, key, range(before.n_rows), range(after.n_rows))
        renamed = by_place.columns.get(key or "")
        if renamed is None or 2 * renamed.n_rows < before.n_rows:
            return by_place
    matched = _match_by_name(before, after, key) if key else None
    return matched or by_place or _begin(before, after)


def _compare_values(before: StarBlock, after: StarBlock) -> BlockComparison:
    """Compare blocks of which one or both are no table, label by label."""
    result = _begin(before, after)
    shared = [label for label in before.labels if label in after.labels]
    old, new = before.columns(shared), after.columns(shared)
    result.n_compared = min(result.n_rows)
    for label in shared:
        lines = _label_line(before, label), _label_line(after, label)
        places = lines[0] + 1, lines[1] + 1
        was, now = before.lines[lines[0]].strip(), after.lines[lines[1]].strip()
        if old[label] != new[label]:
            result.columns.setdefault(label, Differences()).add(
                "", places, ", ".join(old[label]), ", ".join(new[label])
            )
        elif was != now:
            result.layout.add("", places, was, now)
    return result


def _match_by_name(before: StarBlock, after: StarBlock, key: str) -> BlockComparison | None:
    """Match rows by the values of a column; None where they are not unique or none is shared."""
    old, new = before.column(key), after.column(key)
    places, new_places = ({name: i for i, name in enumerate(names)} for names in (old, new))
    if len(places) < len(old) or len(new_places) < len(new) or not places.keys() & new_places.keys():
        return None
    kept = [(i, new_places[name]) for i, name in enumerate(old) if name in new_places]
    result = _compare_rows(before, after, key, [i for i, _ in kept], [j for _, j in kept])
    result.matched_by = key
    result.removed = [name for name in old if name not in new_places]
    result.added = [name for name in new if name not in places]
    order = [j for _, j in kept]
    result.is_reordered = order != sorted(order)
    return result


def _compare_rows(
    before: StarBlock, after: StarBlock, key: str | None, old_rows: Sequence[int], new_rows: Sequence[int]
) -> BlockComparison:
    result = _begin(before, after)
    result.n_compared = len(old_rows)
    _compare_labels(before, after, result)
    old_lines, new_lines = before.row_lines.tolist(), after.row_lines.tolist()
    shared = [(i, after.labels.index(label), label) for i, label in enumerate(before.labels) if label in after.labels]
    fresh = [i for i, label in enumerate(after.labels) if label not in before.labels]
    # Only where nothing was taken out or moved can the line be rebuilt from its old text and its new cells.
    rebuildable = not result.columns_removed and not result.are_columns_reordered
    at = before.labels.index(key) if key else None
    for i, j in zip(old_rows, new_rows, strict=True):
        lines = old_lines[i], new_lines[j]
        was, now = before.lines[lines[0]].rstrip("\r\n"), after.lines[lines[1]].rstrip("\r\n")
        if was == now:
            continue
        old, new = cells_of(was), cells_of(now)
        name = old[at] if at is not None else ""
        places = (lines[0] + 1, lines[1] + 1)
        for a, b, label in shared:
            if old[a] != new[b]:
                result.columns.setdefault(label, Differences()).add(name, places, old[a], new[b])
        if rebuildable:
            changes = [(a, new[b]) for a, b, _ in shared if old[a] != new[b]]
            if edit_line(was, changes, [new[b] for b in fresh]) != now:
                result.layout.add(name, places, was.strip(), now.strip())
    return result


def _compare_labels(before: StarBlock, after: StarBlock, result: BlockComparison) -> None:
    """Compare the lines of the labels, whose numbers follow from the order of columns."""
    for label in before.labels:
        if label not in after.labels:
            continue
        lines = _label_line(before, label), _label_line(after, label)
        was, now = before.lines[lines[0]].strip(), after.lines[lines[1]].strip()
        if _NUMBER.sub("", was) != _NUMBER.sub("", now):
            result.layout.add(label, (lines[0] + 1, lines[1] + 1), was, now)


def _begin(before: StarBlock, after: StarBlock) -> BlockComparison:
    ours, theirs = before.labels, after.labels
    shared = [label for label in ours if label in theirs]
    return BlockComparison(
        before.name,
        (before.n_rows, after.n_rows),
        columns_removed=[label for label in ours if label not in theirs],
        columns_added=[label for label in theirs if label not in ours],
        are_columns_reordered=shared != [label for label in theirs if label in ours],
    )


def _frame(document: StarDocument) -> list[str]:
    """Lines that are neither rows nor labels: comments, blank lines, ``data_`` and ``loop_``."""
    cells = {line for block in document.blocks for line in (*block.label_lines, *block.row_lines.tolist())}
    return [line.strip() for i, line in enumerate(document.lines) if i not in cells]


def _only_in(before: Iterable[str], after: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first, second = Counter(before), Counter(after)
    return tuple((first - second).elements()), tuple((second - first).elements())


def _n_crlf(document: StarDocument) -> int:
    return sum(line.endswith("\r\n") for line in document.lines)


def _label_line(block: StarBlock, label: str) -> int:
    return block.label_lines[block.labels.index(label)]
