"""Bytes go through tensors and come out as they were."""

from hypothesis import given
from hypothesis import strategies as st

from globidx.torch.ranks.payloads import room, to_bytes, to_tensor


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_bytes_of_any_length_come_back(payloads):
    """Empty ones, and ones that end in zeros: the sizes say where they end."""
    sizes = [len(payload) for payload in payloads]
    tensors = [to_tensor(payload, max(sizes)) for payload in payloads]
    places = room(sizes)
    assert [place.shape for place in places] == [tensor.shape for tensor in tensors]
    for place, tensor in zip(places, tensors, strict=True):
        place.copy_(tensor)
    assert to_bytes(places, sizes) == payloads


def test_a_tensor_is_no_view_of_the_bytes():
    """Those are immutable, and torch would write to them."""
    data = b"abc"
    tensor = to_tensor(data, 3)
    tensor[0] = 0
    assert data == b"abc"
