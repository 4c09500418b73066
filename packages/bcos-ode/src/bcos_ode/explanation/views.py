"""How the two views of a field differ, and the identity that says by what."""

import torch
from bcos_core.nn import BcosLinear
from jaxtyping import Float
from torch import Tensor

from bcos_ode.model import VariableModel

from .ledger import Ledger, degree_of, encoded, ledger


def disagreement(w: Ledger, j: Ledger) -> dict[str, float]:
    """Of each equation, |W - J| / |J|, Frobenius over states and channels: above a few percent, show both."""
    difference = (w.contributions - j.contributions).flatten(2).norm(dim=(0, 2))
    size = j.contributions.flatten(2).norm(dim=(0, 2))
    return dict(zip(j.equations, (difference / size).tolist(), strict=True))


def norm_share(field: VariableModel, z: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
    """The share μ of every derivative that W gives to a channel for moving the norms of the layers' inputs.

    μ_k = B^-L e_k ∂/∂e_k [Σ_l (B-1) B^(L-1-l) log|h_l| - (p-1) log|e|], h_l the input of layer l = 0 ... L-1. It sums
    to 1 - p B^-L, and no equation has a say in it. See :func:`check_views`.
    """
    p, e = degree_of(field), encoded(field, z)
    layers = [module for module in field.network.modules() if isinstance(module, BcosLinear)]
    seen: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _layer, args: seen.append(args[0])) for layer in layers]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            e = e.clone().requires_grad_()
            field.network(e)
            b, total = field.config.exponent, (1 - p) * e.norm(dim=-1).log()
            for i, h in enumerate(seen):
                total = total + (b - 1) * b ** (len(layers) - 1 - i) * h.norm(dim=-1).log()
            (gradient,) = torch.autograd.grad(total.sum(), e)
    finally:
        for handle in handles:
            handle.remove()
    return (gradient * e).detach() / b ** len(layers)


def check_views(field: VariableModel, z: Float[Tensor, "n d"]) -> float:
    """Largest error of the identity W = p B^-L J + f μ over states, equations and channels (J the view, over p).

    In units of each equation's largest contribution. Rounding for B of 1 and 2; for others the 1e-6 that
    their layers add to the cosine shows, 1e-7 to 1e-5.
    """
    w, j = ledger(field, z, "W"), ledger(field, z, "J")
    layers = sum(isinstance(module, BcosLinear) for module in field.network.modules())
    factor = degree_of(field) / field.config.exponent**layers
    expected = factor * j.contributions + w.derivatives[..., None] * norm_share(field, z)[:, None]
    size = w.contributions.abs().amax((0, 2))
    return float(((w.contributions - expected).abs().amax((0, 2)) / size).max())
