"""The main job on this machine: train on 2 processes, be killed in mid-epoch, finish on 3, and count every sample.

python tools/demo.py
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import zarr

from globidx import read_record

TRAIN = Path(__file__).parents[1] / "examples" / "resume_any_gpus.py"


def write_data(folder: Path) -> int:
    """Five files of two formats and uneven lengths, 1003 samples together."""
    random = np.random.default_rng(0)
    for number, length in enumerate((300, 200, 203, 150, 150)):
        data = {
            "images": random.integers(1, 99, (length, 8, 8), np.uint8),
            "labels": random.integers(0, 2, length),
        }
        if number < 3:
            zarr.save_group(folder / f"part-{number}.zarr", zarr_format=2 + number % 2, **data)
        else:
            with h5py.File(folder / f"part-{number}.h5", "w") as file:
                for name, array in data.items():
                    file.create_dataset(name, data=array, chunks=True, compression="gzip")
    return 1003


def train(processes: int, data: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    return subprocess.Popen(
        [*command, TRAIN, data, run, "--step-seconds=0.02"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def kill(launcher: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the launcher and its ranks, as when a node goes away."""
    ranks = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for pid in (launcher.pid, *map(int, ranks)):
        os.kill(pid, signal.SIGKILL)
    launcher.wait()


def steps(run: Path, pattern: str) -> list[tuple[int, list[int]]]:
    """(step, ids) of every rank and step that was trained on; a line that the kill cut short is left out."""
    lines = [
        line.split() for path in run.glob(pattern) for line in path.read_text().split("\n")[:-1]
    ]
    return [(int(step), [int(id) for id in ids]) for _, step, *ids in lines]


def report(samples: int, before: list[int], after: list[int], last_step: list[int]) -> None:
    """Ids trained on before the kill (that the record has) and after it; repeats in the last step are padding."""
    times = Counter(before + after)
    repeats = sum(times.values()) - len(times)
    padding = min(repeats, sum(times[id] > 1 for id in set(last_step)))
    print(f"samples                            {samples:6}")
    print(f"committed before the kill, 2 ranks {len(before):6}")
    print(f"committed after it, 3 ranks        {len(after) - padding:6}")
    print(f"missing                            {samples - len(times):6}")
    print(f"repeated                           {repeats - padding:6}")
    print(f"(padding of the last step          {padding:6})")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder, "data"), Path(folder, "run")
        data.mkdir()
        samples = write_data(data)
        first = train(2, data, run)
        while not any(step >= 37 for step, _ in steps(run, "*of-2.txt")) and first.poll() is None:
            time.sleep(0.01)
        kill(first)
        record = read_record(max(run.glob("record-*.json")))
        if train(3, data, run).wait() != 0:
            sys.exit("the second run failed")
        before = [
            id for step, ids in steps(run, "*of-2.txt") if step <= record["step"] for id in ids
        ]
        resumed = steps(run, "*of-3.txt")
        last = max(step for step, _ in resumed)
        after, in_last = (
            [i for _, ids in resumed for i in ids],
            [i for s, ids in resumed if s == last for i in ids],
        )
        report(samples, before, after, in_last)


if __name__ == "__main__":
    main()
