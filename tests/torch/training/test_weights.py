"""Files of weights: whole or not there, loadable, and gone with their records."""

from collections import OrderedDict

import pytest
import torch
from torch.distributed.tensor import DTensor

from globidx import errors
from globidx.torch.training import weights


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def states(value=1.0):
    return {"model": OrderedDict(w=torch.full((3,), value)), "record": "{}"}


def test_what_is_written_is_loaded_and_the_newest_is_found(tmp_path):
    """Names sort by age."""
    assert weights.newest(tmp_path) is None
    for number in (9, 10):
        id = f"{number:08d}-{'ab' * 6}"
        (tmp_path / f"record-{id}.json").touch()
        weights.write(tmp_path, id, states(float(number)))
    assert weights.newest(tmp_path) == "model-00000010-abababababab.pt"
    loaded = weights.load(tmp_path / weights.newest(tmp_path), {"model"})
    assert loaded["model"]["w"].tolist() == [10.0] * 3 and loaded["record"] == "{}"


def test_weights_go_with_their_records_but_never_the_one_just_written(tmp_path):
    """A policy may keep one record only, whose weights come after it."""
    for number in range(3):
        id = f"{number:08d}-abababababab"
        if number == 1:
            (tmp_path / f"record-{id}.json").touch()
        weights.write(tmp_path, id, states())
    assert [name for name in names(tmp_path) if name.startswith("model")] == [
        "model-00000001-abababababab.pt",
        "model-00000002-abababababab.pt",
    ]


def test_what_could_not_be_loaded_again_is_refused_and_leaves_nothing(tmp_path):
    """Known at the save, not at the next start; the older file stands."""
    weights.write(tmp_path, "00000000-abababababab", states())
    with pytest.raises(TypeError, match=r"torch\.load\(weights_only=True\) refuses"):
        weights.write(tmp_path, "00000001-abababababab", {"model": {"odd": pytest.approx}})
    with pytest.raises(TypeError, match=r"an object that torch\.save refuses"):
        weights.write(tmp_path, "00000001-abababababab", {"model": {"odd": lambda: 0}})
    assert names(tmp_path) == ["model-00000000-abababababab.pt"]


def test_a_damaged_file_is_told_with_what_to_do(tmp_path):
    """Cut in the middle."""
    weights.write(tmp_path, "00000000-abababababab", states())
    path = tmp_path / weights.newest(tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(errors.RecordCorruptError, match="remove it to go on from the one before"):
        weights.load(path, {"model"})


def test_objects_of_other_names_are_refused(tmp_path):
    """One more or one less: half of a state is no state."""
    weights.write(tmp_path, "00000000-abababababab", states())
    path = tmp_path / weights.newest(tmp_path)
    for other in (set(), {"model", "optimizer"}, {"net"}):
        with pytest.raises(errors.RecordMismatchError, match=r"holds the states of \['model'\]"):
            weights.load(path, other)


def test_a_sharded_tensor_is_refused_wherever_it_is():
    """Rank 0's shard in a file would be taken for the whole; the optimizer's state holds it deep inside."""
    local = torch.zeros(2)

    class Part(torch.Tensor):
        full_tensor = DTensor.full_tensor

    weights.refuse_sharded({"model": {"w": local}, "optimizer": {"state": [({"m": local},)]}})
    with pytest.raises(ValueError, match=r"'optimizer' is sharded.*distributed\.checkpoint"):
        weights.refuse_sharded(
            {"model": {"w": local}, "optimizer": {"state": [({"m": local.as_subclass(Part)},)]}}
        )
