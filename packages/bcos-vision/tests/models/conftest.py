"""Networks as after training, without the training."""

import pytest
import torch
from bcos_core.nn import BatchNorm2d, BatchNormUncentered2d
from torch import nn


@pytest.fixture(scope="session")
def trained():
    """(model, images) -> in evaluation mode, with norm weights, biases and statistics away from their easy values.

    Statistics are those of the images: with others the signal of a deep B-cos network would vanish, and with it
    whatever could be wrong.
    """

    def prepare(model: nn.Module, images: torch.Tensor) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        norms = [m for m in model.modules() if isinstance(m, (BatchNorm2d, BatchNormUncentered2d))]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.uniform_(-0.1, 0.1, generator=generator)
                elif "layer_scale" in name or parameter.dim() == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
            for norm in norms:
                norm.momentum = 1.0
            model.train()(images)
            for norm in norms:
                norm.momentum = 0.1
                norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.2, generator=generator))
        return model.eval()

    return prepare
