"""Slots are pinned once; where CUDA refuses, the loader goes on without."""

import os
from types import SimpleNamespace

import pytest
import torch

from globidx.torch.delivery.mapping import Mapping
from globidx.torch.delivery.pinning import CudaPins

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PAGE = 4096


@pytest.fixture
def mapping():
    fd = os.memfd_create("test")
    os.ftruncate(fd, PAGE)
    yield Mapping(fd, 0, PAGE)
    os.close(fd)


@pytest.fixture
def runtime(monkeypatch):
    """CUDA's runtime as far as it is called, on a machine without a device: what was asked, and its answers."""
    asked = SimpleNamespace(calls=[], error=0)

    def register(address, size, flags):
        asked.calls.append((address, size, flags))
        return asked.error

    runtime = SimpleNamespace(
        cudaHostRegister=register, cudaHostUnregister=lambda address: asked.calls.append(address)
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    return asked


def test_a_slot_is_registered_until_it_is_unmapped(mapping, runtime):
    """Its address and size, and then its address alone."""
    address = mapping.address
    CudaPins(torch.device("cuda")).pin(mapping)
    assert runtime.calls == [(address, PAGE, 1)]
    mapping.__del__(unmap=lambda *_: None)
    assert runtime.calls[1:] == [address]
    mapping.on_unmap = None


def test_a_refusal_is_logged_once_and_nothing_more_is_asked(mapping, runtime, caplog):
    """And nothing is taken back that was not given."""
    runtime.error = 2
    pins = CudaPins(torch.device("cpu"))
    pins.pin(mapping)
    pins.pin(mapping)
    assert len(runtime.calls) == len(caplog.records) == 1
    assert "CUDA does not pin the loader's shared memory (error 2)" in caplog.text
    assert mapping.on_unmap is None


@cuda
def test_a_registered_slot_is_pinned_memory(mapping):
    """To torch, which then copies from it without waiting."""
    tensor = torch.frombuffer(mapping.block(), dtype=torch.uint8)
    assert not tensor.is_pinned()
    CudaPins(torch.device("cuda")).pin(mapping)
    assert tensor.is_pinned()
    tensor.fill_(3)
    assert tensor.to("cuda", non_blocking=True).cpu().eq(3).all()
