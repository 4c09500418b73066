"""What each channel contributed to each prediction, and how exactly that adds up."""

import csv
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core import explain
from jaxtyping import Float

from bcos_ode.encoding import InverseChannels
from bcos_ode.model import VariableModel


@dataclass(frozen=True)
class Contributions:
    """Terms of n predictions of k outputs, in the outputs' units."""

    channels: tuple[str, ...]
    values: Float[np.ndarray, "n k m"]
    remainder: Float[np.ndarray, "n k"]
    """Of biases, for which no channel is responsible; zero without them."""
    predictions: Float[np.ndarray, "n k"]
    completeness_error: float
    """The largest |sum of values + remainder - prediction| / max(1, |prediction|)."""

    @property
    def unaccounted(self) -> Float[np.ndarray, "n k"]:
        """What predictions are more than the sum of their terms; of B-cos networks nothing but rounding."""
        return self.predictions - self.values.sum(-1) - self.remainder

    def save(self, path: pathlib.Path, rows: Sequence[int], outputs: Sequence[str], targets: np.ndarray) -> None:
        """Write a table, a line for each sample and output.

        Args:
            path: CSV to write.
            rows: Each sample's row in the data, from 0.
            outputs: Names of the outputs.
            targets: Observed, shape (n, k).
        """
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "output", "observed", "prediction", *self.channels, "remainder", "unaccounted"])
            for i, row in enumerate(rows):
                for j, output in enumerate(outputs):
                    numbers = (*self.values[i, j], self.remainder[i, j], self.unaccounted[i, j])
                    writer.writerow([row, output, targets[i, j], self.predictions[i, j], *map(float, numbers)])


def contributions_of(model: VariableModel, inputs: Float[np.ndarray, "n d"]) -> Contributions:
    """Explain every output of every sample; see :func:`bcos_core.explain`.

    A variable that is encoded twice, as itself and 1 minus itself, has the sum of both.

    Args:
        model: Of a kind that does not explain itself, too: what its input times gradient and its biases leave out is
            then ``unaccounted``.
        inputs: Variables, shape (n, d).
    """
    x = torch.from_numpy(inputs)
    found = [explain(model, x, output) for output in range(len(model.outputs))]
    values = torch.stack([explanation.contributions for explanation in found], 1)
    channels = model.channels
    if isinstance(model.encoding, InverseChannels):
        values = values.unflatten(-1, (2, len(model.inputs))).sum(-2)
        channels = model.inputs
    return Contributions(
        channels,
        values.numpy(),
        torch.stack([explanation.remainder for explanation in found], 1).numpy(),
        found[0].logits.numpy(),
        float(torch.stack([explanation.completeness_error for explanation in found]).max()),
    )
