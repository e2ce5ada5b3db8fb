"""What becomes a tensor, and what stays: as torch says, or as the user's registry does."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from globidx.core.metrics.metric import Metric
from globidx.torch.collating.collate import default
from globidx.torch.collating.leaves import (
    are_metrics,
    becomes_tensor,
    is_list_of_objects,
    together,
)

VALUES = [
    *(torch.ones(2), np.ones(2), np.float32(1), np.bool_(1), 1, 1.5, True),
    *("a", b"a", None, object(), np.array(["a"]), np.array([None]), np.datetime64("2020")),
    np.array(["2020"], dtype="datetime64[D]"),
]


# torch 2.4 makes tensors of numpy's bools so
@pytest.mark.filterwarnings(
    "ignore:In future, it will be an error for 'np.bool_':DeprecationWarning"
)
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_it_becomes_a_tensor_where_torch_makes_one(value):
    """Asked of torch itself."""
    try:
        made = isinstance(default_collate([value, value]), torch.Tensor)
    except TypeError:
        made = False
    assert becomes_tensor(value) == made
    batch = together([value, value], "x")
    assert isinstance(batch, torch.Tensor) if made else batch == [value, value]


def test_types_that_users_registered_are_torchs():
    """Whenever they did it."""

    class Box(dict):
        pass

    assert not becomes_tensor(Box())
    default_collate_fn_map[Box] = lambda batch, *, collate_fn_map: len(batch)
    try:
        assert becomes_tensor(Box()) and together([Box(), Box()], "x") == 2
        assert default([Box(a="b")] * 2) == 2 and default([(Box(), None)] * 2) == [2, [None] * 2]
    finally:
        del default_collate_fn_map[Box]


def test_a_list_of_texts_in_any_depth_is_one_of_objects():
    """Of numbers, tensors, dicts or tuples it is not."""
    for value in ([], ["a"], [b"a", None], [["a"], ["b", "c"]], [[]]):
        assert is_list_of_objects(value)
    for value in ([1], ["a", 1], [["a"], [1]], [torch.ones(1)], [{}], [("a",)], ("a",), "a"):
        assert not is_list_of_objects(value)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (
            [torch.ones(2), torch.ones(3)],
            ValueError,
            r"has shape \(2,\).*\(3,\) in sample 1.*pad\(\)",
        ),
        ([torch.ones(2), None], TypeError, "is a Tensor in sample 0.*None in sample 1"),
        (["a", "b", 3], TypeError, "is a str in sample 0.*3 in sample 2"),
    ],
)
def test_what_makes_no_one_value_is_told_with_the_field(values, error, words):
    """Whichever sample is the odd one."""
    with pytest.raises(error, match="^field 'a/b' " + words):
        together(values, "a/b")


def test_metrics_are_told_by_their_name_and_their_kind():
    """An empty list under another name may be one of texts, and one under this name may hold none."""
    metric = Metric("a", "x", 1, "sum")
    assert are_metrics([[metric], []], ("obs", "metrics")) and are_metrics([[]], ("metrics",))
    for values in ([[metric], ["a"]], [[metric], None], [(metric,)], ["a"]):
        assert not are_metrics(values, ("metrics",))
    assert not are_metrics([[metric]], ("others",)) and not are_metrics([[metric]], ())
