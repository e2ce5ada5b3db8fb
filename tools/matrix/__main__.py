"""Does a resume lose or repeat samples? Each framework's own way and ours, in real processes.

python tools/matrix             print the tables; name files of ways/ to print their rows only
python tools/matrix --write     put them into docs/explanation/matrix.md
python tools/matrix --check     fail if they differ from those of the page

A run of four epochs is saved in the middle of the second, on 1, 2 and 3 ranks, and from each of the three checkpoints
it is resumed on 1, 2 and 3. Fails, too, if a row of ours misses a sample, or repeats one otherwise than as padding.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TOOLS = str(Path(__file__).resolve().parents[1])
sys.path[0] = TOOLS
# for the processes that are started, which import a way by its name
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOOLS, os.environ.get("PYTHONPATH")]))
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from matrix import launch, page  # noqa: E402
from matrix.count import Leg, exact, of_later_epochs, of_the_resumed_epoch  # noqa: E402
from matrix.leg import BATCH  # noqa: E402
from matrix.rows import ROWS, Row  # noqa: E402

SAVED_ON = RESUMED_ON = (1, 2, 3)


def leg(row: Row, ranks: int, checkpoint: Path, seen: Path, *, resumes: bool) -> Leg:
    """What each rank of a leg read."""
    launch.run(f"matrix.ways.{row.way}", ranks, checkpoint, seen, resumes)
    files = [seen / f"{rank}.jsonl" for rank in range(ranks)]
    return [list(map(json.loads, file.read_text().splitlines())) for file in files]


def cells_of(row: Row, folder: Path) -> page.Cells:
    """The counts of a row."""
    cells = {}
    for saved in SAVED_ON:
        checkpoint = folder / f"saved-on-{saved}"
        first = leg(row, saved, checkpoint, folder / f"{saved}", resumes=False)
        for resumed in RESUMED_ON:
            second = leg(row, resumed, checkpoint, folder / f"{saved}-{resumed}", resumes=True)
            padding = row.most_padding(resumed, BATCH)
            counts = of_the_resumed_epoch(first, second, padding), of_later_epochs(second, padding)
            cells[saved, resumed] = counts
    return cells


def main() -> int:
    """Print, write or check the tables; the exit code is 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    files = list(dict.fromkeys(row.way.partition(".")[0] for row in ROWS))
    parser.add_argument("only", nargs="*", choices=[[], *files], help="files of ways/")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="put the tables into the page")
    what.add_argument("--check", action="store_true", help="compare them with those of the page")
    given = parser.parse_args()
    if given.only and (given.write or given.check):
        parser.error("the page has the rows of all frameworks")

    rows = [row for row in ROWS if not given.only or row.way.partition(".")[0] in given.only]
    launch.preload([f"matrix.ways.{file}" for file in given.only or files])
    found, wrong = {}, []
    for row in rows:
        began = time.monotonic()
        with TemporaryDirectory() as folder:
            found[row] = cells_of(row, Path(folder))
        if row.is_ours:
            wrong += [
                f"{row.way}, {saved} -> {resumed}: {cells[0]}, later {', '.join(map(str, cells[1]))}"
                for (saved, resumed), cells in found[row].items()
                if cells != exact(saved, resumed)
            ]
        print(f"{row.way}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    text = page.tables(found)
    print(text)
    now = page.PAGE.read_text()
    if given.write:
        page.PAGE.write_text(page.with_printed(now, text))
    if given.check:
        wrong += page.differences(now, text)
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
