"""What is trained: the smallest model, on samples that are their own ids."""

from typing import Any

import torch
import torch.distributed as dist
from matrix.leg import SAMPLES, Leg
from torch import nn


def dataset() -> torch.Tensor:
    """Samples that are their own ids."""
    return torch.arange(SAMPLES, dtype=torch.float32)


def network() -> nn.Module:
    """A model of two weights."""
    return nn.Linear(1, 1)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that hardly moves."""
    return torch.optim.SGD(model.parameters(), lr=1e-6)


class Trained:
    """A model under DDP with its optimizer, for the loops that no framework writes."""

    def __init__(self) -> None:
        dist.init_process_group("gloo")
        self.model = nn.parallel.DistributedDataParallel(network())
        self.optimizer = optimizer_of(self.model)

    def step(self, batch: torch.Tensor) -> None:
        """Train on a batch."""
        self.model(batch[:, None]).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, leg: Leg, **state: Any) -> None:
        """Save the weights, and ``state`` of rank 0, in one file."""
        if leg.rank == 0:
            weights = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(weights | state, leg.checkpoint / "checkpoint.pt")
        dist.barrier()

    def load(self, leg: Leg) -> dict[str, Any]:
        """What was saved, weights loaded; nothing, if the leg starts a run."""
        if not leg.resumes:
            return {}
        state: dict[str, Any] = torch.load(leg.checkpoint / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        return state
