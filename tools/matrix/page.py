"""The part of docs/explanation/matrix.md that the command prints."""

import difflib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from matrix.count import Count
from matrix.rows import PACKAGES, Row

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "matrix.md"
BEGIN, END = "<!-- printed by: python tools/matrix -->", "<!-- until here -->"

#: The counts of a row by (saved on, resumed on): the resumed epoch, and the later ones.
Cells = Mapping[tuple[int, int], tuple[Count, Sequence[Count]]]


def tables(found: Mapping[Row, Cells]) -> str:
    """Versions, a table for each number of ranks that saved, and what was done in each row."""
    saves = sorted({saved for cells in found.values() for saved, _ in cells})
    parts = [f"With {', '.join(map(_with_version, PACKAGES))}."]
    parts += [_table(found, saved) for saved in saves]
    notes = [f"| {row.framework} | {row.label} | {row.note} |" for row in found]
    parts.append("\n".join(["## What was done", "", "| | | |", "|---|---|---|", *notes]))
    return "\n\n".join(parts)


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package).partition('+')[0]}"
    except PackageNotFoundError:
        return f"no {package}"


def _table(found: Mapping[Row, Cells], saved: int) -> str:
    ranks = sorted({resumed for cells in found.values() for _, resumed in cells})
    heading = ["", "", *(f"resumed on {n}" for n in ranks), *(f"later, on {n}" for n in ranks)]
    lines = [heading, ["---", "---", *["---:"] * (len(heading) - 2)]]
    for row, cells in found.items():
        resumed = [str(cells[saved, n][0]) for n in ranks]
        later = [", ".join(map(str, cells[saved, n][1])) for n in ranks]
        counts = [f"**{cell}**" if row.is_ours else cell for cell in resumed + later]
        lines.append([row.framework, row.label, *counts])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## Saved on {_ranks(saved)}\n\n{table}"


def _ranks(number: int) -> str:
    return f"{number} rank" + "s" * (number != 1)


def printed(page: str) -> str:
    r"""What the page has of it.

    >>> printed(f"Above.\n{BEGIN}\n\nfigures\n\n{END}\nBelow.")
    'figures'
    """
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def with_printed(page: str, text: str) -> str:
    r"""The page with ``text`` in the place of what it had.

    >>> print(with_printed(f"Above.\n{BEGIN}\n{END}\nBelow.", "figures"))
    Above.
    <!-- printed by: python tools/matrix -->
    <BLANKLINE>
    figures
    <BLANKLINE>
    <!-- until here -->
    Below.
    """
    above, _, rest = page.partition(BEGIN)
    return f"{above}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def differences(page: str, text: str) -> list[str]:
    r"""The lines of the page that are not in ``text``, after a minus, and those of ``text``, after a plus.

    >>> differences(f"{BEGIN}\n\nsame\nfive\n\n{END}", "same\nsix")
    ['-five', '+six']
    """
    lines = difflib.unified_diff(printed(page).split("\n"), text.split("\n"), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]
