"""The one door through which torchvision is imported.

A torchvision wheel that was built against CUDA does not find its compiled operators beside a
CPU build of torch, and its import fails although datasets need none of them. Declaring the two
operators that its Python code registers is enough; they are declared only when the import fails.
"""

import torch

try:
    from torchvision.datasets import CIFAR10
except RuntimeError:
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.datasets import CIFAR10

__all__ = ["CIFAR10"]
