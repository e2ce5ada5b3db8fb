"""Files of weights beside the records of a run: model, optimizer, and what else ``torch.save`` writes.

``model-ID.pt`` belongs to ``record-ID.json``, and has the text of that record in it, so that the
file alone is a whole checkpoint. It counts when it has its name: a kill between record and weights
leaves the older pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from typing import IO, Any

import torch

from globidx.disk.files.atomic import temporary_name
from globidx.errors import RecordCorruptError, RecordMismatchError

#: The name under which a file of weights holds its record.
RECORD = "record"
_PLAIN = "state_dict() return tensors, numbers, text, and dicts and lists of these"


def newest(folder: Path) -> str | None:
    """The name of the newest file of weights in ``folder``; None if there is none."""
    # ids sort by age
    return max((path.name for path in folder.glob("model-*.pt")), default=None)


def load(path: Path, names: set[str]) -> dict[str, Any]:
    """The record's text and the states of the objects ``names``, on the CPU.

    RecordMismatchError if the file has those of other objects, RecordCorruptError if it is damaged.
    """
    try:
        states: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise RecordCorruptError(
            f"{path} cannot be read: {str(error)[:200]}; remove it to go on from the one before it"
        ) from error
    held = set(states) - {RECORD}
    if held != names or RECORD not in states:
        raise RecordMismatchError(
            f"{path} holds the states of {sorted(held)}, and this run has {sorted(names)}; give it "
            "objects of the same names, or start in another folder"
        )
    return states


def refuse_sharded(states: Mapping[str, Any]) -> None:
    """ValueError if a state has a tensor of which this rank has only a part."""
    for name, state in states.items():
        for part in _parts(state):
            # DTensor of FSDP2 and tensor parallelism, ShardedTensor of FSDP1
            if hasattr(part, "full_tensor") or hasattr(part, "local_shards"):
                raise ValueError(
                    f"the state of {name!r} is sharded over ranks, and one file would have rank "
                    "0's part of it; save it with torch.distributed.checkpoint, and use "
                    "CheckpointManager instead of Run (examples/full_checkpoint.py)"
                )


def write(folder: Path, id: str, states: Mapping[str, Any]) -> None:
    """Write the weights of the record ``id``, and remove those whose records are gone.

    At every instant the file is not there, or whole. TypeError if it could not be loaded again.
    """
    path = folder / f"model-{id}.pt"
    temporary = folder / temporary_name(path.name)
    try:
        with open(temporary, "xb") as file:
            _dump(states, file)
            file.flush()
            os.fsync(file.fileno())
        _refuse_unloadable(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _persist(folder)
    _prune(folder, path)


def _dump(states: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write the states; TypeError if pickle refuses one of them, which it says in three ways."""
    try:
        torch.save(dict(states), file)
    except (PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"a state holds an object that torch.save refuses: {str(error)[:200]}; let {_PLAIN}"
        ) from error


def _refuse_unloadable(path: Path) -> None:
    """TypeError if ``torch.load`` refuses the file: that must be known now, not at the next start."""
    try:
        # mapped, so that no tensor is read
        torch.load(path, weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise TypeError(
            f"a state holds an object that torch.load(weights_only=True) refuses: let {_PLAIN}; "
            f"torch says: {str(error)[:300]}"
        ) from None


def _persist(folder: Path) -> None:
    """Wait until the names in ``folder`` would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(folder: Path, written: Path) -> None:
    """Remove weights whose record is gone."""
    for path in folder.glob("model-*.pt"):
        record = folder / f"record-{path.stem.removeprefix('model-')}.json"
        if path != written and not record.exists():
            path.unlink(missing_ok=True)


def _parts(state: Any) -> Iterator[Any]:
    """All that is in a state and no container."""
    if isinstance(state, Mapping):
        for value in state.values():
            yield from _parts(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _parts(value)
    else:
        yield state
