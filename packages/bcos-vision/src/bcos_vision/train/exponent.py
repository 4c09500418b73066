"""The exponents B while a classifier trains: how they rise, what they answer to, what is logged of them."""

import torch
from bcos_core.minimax import Bound, create_objective
from bcos_core.nn import BatchNormUncentered2d, Exponent, layer_exponents, learnt_exponents, set_exponent
from torch import Tensor, nn

from bcos_vision.config import ExponentConfig
from bcos_vision.models import ImageClassifier

PREFIX = "b/"
"""Of the metrics: b/PATH for each layer (of channels, their mean), b/min, b/mean, b/max over layers, b/multiplier."""

_MOMENTUM = 0.9
"""Of batch norms while B rises: responses shrink with |cos|^(B-1), by orders of magnitude over many layers, and running
statistics that remembered a smaller B would be wrong at the end of a short fine-tuning."""


class ExponentTraining(nn.Module):
    """What a run's :class:`ExponentConfig` asks for. A module, so that a training state holds the multiplier.

    Args:
        model: The classifier; where B rises, its present B, a number, is where it ends.
        config: The run's.
        epochs: Of the run.
    """

    def __init__(self, model: ImageClassifier, config: ExponentConfig, epochs: int) -> None:
        super().__init__()
        self._model = (model,)  # not a submodule: its parameters are the training's already
        self.config = config
        self._rise = epochs / 4 if config.rise_epochs is None else config.rise_epochs
        self.objective = create_objective(
            config.objective,
            sum(raw.numel() for raw in self.learnt),
            strength=config.strength,
            sharpness=config.sharpness,
            bound=config.bound,
            step=config.dual_lr,
        )
        fixed = [b for b in layer_exponents(model).values() if not isinstance(b, Exponent)]
        self._end = fixed[0] if fixed else None
        self._momenta = {
            m: m.momentum for m in model.modules() if isinstance(m, (nn.BatchNorm2d, BatchNormUncentered2d))
        }

    @property
    def learnt(self) -> list[nn.Parameter]:
        """Each distinct one once."""
        return [module.raw for module in self._model[0].modules() if isinstance(module, Exponent)]

    def rise(self, epoch: float) -> None:
        """Set B for a step at ``epoch``, a fraction, where the run asks for a rise."""
        if (start := self.config.start) is not None:
            assert self._end is not None
            share = min(1.0, epoch / self._rise) if self._rise else 1.0
            set_exponent(self._model[0], start + share * (self._end - start))
            for norm, momentum in self._momenta.items():
                norm.momentum = momentum if share == 1 else _MOMENTUM  # type: ignore[assignment]

    def term(self) -> Tensor | float:
        """What is added to the loss."""
        if self.config.objective == "none":
            return 0.0
        return self.objective(learnt_exponents(self._model[0]))

    def ascend(self) -> None:
        """The objective's own step, after the optimiser's."""
        if self.config.objective != "none":
            self.objective.ascend(learnt_exponents(self._model[0]).detach())

    @torch.no_grad()
    def excess(self) -> float:
        """By how much an exponent is beyond its bound; 0 if none is, or there is no bound."""
        if not isinstance(self.objective, Bound):
            return 0.0
        return max(0.0, self.objective.excess(learnt_exponents(self._model[0])).max().item())

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Of an epoch, by the names that :data:`PREFIX` has; nothing where B is fixed and at rest."""
        if self.config.learn is None and self.config.start is None:
            return {}
        values = {path: as_tensor(b) for path, b in layer_exponents(self._model[0].network).items()}
        found = {f"{PREFIX}{path}": float(b.mean()) for path, b in values.items()}
        all_of_them = torch.cat([b.reshape(-1) for b in values.values()])
        means = torch.tensor(list(found.values()))
        found |= {
            f"{PREFIX}min": float(all_of_them.min()),
            f"{PREFIX}mean": float(means.mean()),
            f"{PREFIX}max": float(all_of_them.max()),
        }
        if isinstance(self.objective, Bound):
            found[f"{PREFIX}multiplier"] = self.objective.multiplier
        return found


def as_tensor(b: float | Exponent) -> Tensor:
    """The exponents of a layer: one value, or one for each channel."""
    return b().detach().cpu() if isinstance(b, Exponent) else torch.tensor(b)
