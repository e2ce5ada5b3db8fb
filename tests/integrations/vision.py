"""torchvision as PyPI has it, beside a torch for the CPU."""

import importlib.util


def without_its_operators():
    """Let torchvision be imported, if it is there: PyPI's is built for CUDA, and so without its operators here.

    Composer and PhysicsNeMo import it, and use none of these.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


# a library that is freed takes its operators with it
_kept = []
