"""Memory of slots that a CUDA device copies by itself, since its pages are pinned."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

import torch

from globidx.torch.delivery.mapping import Mapping

_log = logging.getLogger("globidx")
# for all devices and contexts
_PORTABLE = 1


class CudaPins:
    """Registers slots with CUDA, each once.

    Where that is refused, slots stay as they are, and the mover pins each batch.

    Parameters
    ----------
    device : torch.device
        The device that batches go to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_refused = device, False

    def pin(self, mapping: Mapping) -> None:
        """Register a mapping until it is unmapped."""
        if self._is_refused:
            return
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        refused = int(runtime.cudaHostRegister(mapping.address, mapping.size, _PORTABLE))
        if not refused:
            mapping.on_unmap = partial(_unregister, runtime)
            return
        self._is_refused = True
        _log.warning(
            "CUDA does not pin the loader's shared memory (error %d), so each batch is copied to "
            "pinned memory first",
            refused,
        )
        # CUDA keeps an error until some call asks for it
        with suppress(RuntimeError):
            torch.ones(1, device=self._device)


def _unregister(runtime: object, address: int) -> None:
    # the context may be gone with the interpreter, and then so is the registration
    with suppress(RuntimeError):
        runtime.cudaHostUnregister(address)  # type: ignore[attr-defined]
