"""The one exception a user sees: what is wrong, where, and what to do about it."""

from pathlib import Path


class InputError(Exception):
    """Something the user gave cannot be used.

    The command line prints it and exits with code 2, without a traceback.

    Parameters
    ----------
    problem
        One sentence saying what is wrong.
    file
        The file it is wrong in.
    row
        The line of that file, 1-based, as a text editor counts.
    expected, found
        What should have been there, and what was.
    remedy
        What the user can do.

    Examples
    --------
    >>> print(InputError("the box is odd", file="a.mrc", expected="an even box", found="33", remedy="crop it"))
    the box is odd
      file:     a.mrc
      expected: an even box
      found:    33
      remedy:   crop it
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else Path(file)
        self.row = row
        self.expected = expected
        self.found = found
        self.remedy = remedy
        where = None if file is None else f"{file}" + ("" if row is None else f", line {row}")
        details = {"file": where, "expected": expected, "found": found, "remedy": remedy}
        lines = [f"  {f'{label}:':<9} {text}" for label, text in details.items() if text is not None]
        super().__init__("\n".join([problem, *lines]))
