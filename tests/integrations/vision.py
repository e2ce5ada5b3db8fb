"""torchvision beside any build of torch: importing it needs operators of its C++ library, its transforms need none.

Import this before torchvision. It is installed in a folder of its own, which only those who import this
have on their path: other frameworks would import it where they find it, and fail.
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(sys.prefix) / "vision"))


def declare():
    """Say what two operators look like whose library was built for CUDA, or for another torch, and does not load."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


try:
    import torchvision  # noqa: F401
except ImportError:
    # not installed: whoever needs it says so
    pass
except RuntimeError:
    # kept: they are declared as long as it lives
    LIBRARY = declare()
