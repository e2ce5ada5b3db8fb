"""Run examples/full_checkpoint.py, and kill rank 0 at an instant of its third save: EXAMPLE INSTANT RUN HOW."""

import os
import runpy
import signal
import sys

from torch.distributed.checkpoint.filesystem import FileSystemWriter

from globidx import CheckpointManager


def kill_at(owner, name, *, before, about=""):
    """Let the third call of a function, on something of that name, end this process: before it does it or when it has."""
    original, calls = getattr(owner, name), []

    def function(*arguments, **options):
        if about not in str(arguments):
            return original(*arguments, **options)
        calls.append(arguments)
        if before and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, function)


def main(example, instant, run, how):
    if os.environ["RANK"] == "0":
        if instant == "after the record":
            kill_at(CheckpointManager, "save", before=False)
        elif how == "dcp":
            kill_at(FileSystemWriter, "finish", before=instant == "before the model counts")
        else:
            kill_at(os, "replace", before=instant == "before the model counts", about="model-")
    sys.argv = [example, run, how]
    runpy.run_path(example, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
