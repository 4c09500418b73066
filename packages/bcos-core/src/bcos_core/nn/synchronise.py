"""Batch norms of processes that train one network together: the statistics of the whole batch, not of each share."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def synchronise_batch_norms(model: nn.Module, enabled: bool = True) -> None:
    """Let a model's batch norms, in training, take their statistics over all processes of ``torch.distributed``.

    All processes must then run the model together. Norms of single images need nothing of the kind.

    Args:
        model: Its :class:`BatchNormUncentered2d` and :class:`BatchNorm2d` are switched.
        enabled: Whether on or off.

    Raises:
        ValueError: If there is a batch norm of another class.

    Example:
        >>> norm = torch.nn.Sequential(torch.nn.BatchNorm2d(4))
        >>> synchronise_batch_norms(norm)
        Traceback (most recent call last):
            ...
        ValueError: 0: expected a batch norm of bcos_core.nn, which can be synchronised, got BatchNorm2d
    """
    for name, module in model.named_modules():
        if hasattr(module, "synchronised"):
            module.synchronised = enabled  # type: ignore[assignment] - a plain flag
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{name}: expected a batch norm of bcos_core.nn, which can be synchronised, got {type(module).__name__}"
            )


def moments_of_all(x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, ""]]:
    """Mean and biased variance of each channel over the shares of all processes, and how many values they are of.

    Each process gives the moments of its share about its own mean, which are merged without cancellation (Chan et al.,
    1983, doi 10.1080/00031305.1983.10483115). The gradient goes back to every share.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    count = mean.new_tensor([x.numel() // x.shape[1]])
    counts, means, variances = _Gather.apply(torch.cat([count, mean, var])).split([1, len(mean), len(var)], dim=1)
    shares = counts / counts.sum()
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), counts.sum()


class _Gather(torch.autograd.Function):
    """A row from each process."""

    @staticmethod
    def forward(ctx, row: Tensor) -> Tensor:  # noqa: ANN001, ARG004
        rows = row.new_empty(dist.get_world_size(), len(row))
        dist.all_gather(list(rows.unbind()), row)
        return rows

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # noqa: ANN001, ARG004  # type: ignore[override]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]
