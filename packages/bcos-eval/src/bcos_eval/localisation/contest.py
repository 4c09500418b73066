"""Every method on every model, scored alike: the games of one command."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_vision.data import Images, to_unit_range
from bcos_vision.data.picture import Box
from bcos_vision.models import TrainedClassifier
from bcos_vision.progress import track

from bcos_eval.attribution import Attributor, coincidences, create_attributor
from bcos_eval.attribution.cam import find_layer
from bcos_eval.faithfulness import measure

from .difull import FEATURES, DisconnectedModel
from .grids import Grids, Prediction, draw_grids, draw_official_grids, predict, shared_images
from .mosaic import resize_cells, tile
from .pointing_game import play_boxes, play_grids

Game = Literal["grid", "energy", "difull"]
SAMPLE = 4
"""Maps by which methods are compared with one another."""


@dataclass(frozen=True)
class Rules:
    """How the games are played; fields are the command's options."""

    side: int = 3
    number: int | None = None
    """Of grids; None for as many as there can be, 250 at most."""
    threshold: float = 0.5
    """Least confidence."""
    smooth: int = 1
    cell_size: int | None = None
    official: bool = False
    """Each model has the grids of the public B-cos v2 code, instead of all the same."""
    count: int = 100
    """Images of the energy game and of faithfulness."""
    batch_size: int = 16
    seed: int = 0


class Contest:
    """Models that meet on the same images.

    Args:
        models: By name, on ``device``.
        images: Whose labels are the models' logits.
        boxes: Of objects, by image.
        source: Fingerprint of the images.
        rules: How.
        device: Where the models are.

    Attributes:
        predictions: What each model answers.
        usable: Images that every model is right and sure about.
        grids: By model, once :meth:`draw` was called; all the same unless the rules are official.
    """

    def __init__(
        self,
        models: Mapping[str, TrainedClassifier],
        images: Images,
        rules: Rules,
        *,
        boxes: Mapping[int, Box] | None = None,
        source: str = "",
        device: str = "cpu",
    ) -> None:
        self.models, self.images, self.boxes, self.rules = models, images, boxes or {}, rules
        self.predictions: dict[str, Prediction] = {
            name: predict(
                trained.model, images, softmax=trained.softmax, batch_size=4 * rules.batch_size, device=device
            )
            for name, trained in models.items()
        }
        self.usable = shared_images(list(self.predictions.values()), threshold=rules.threshold)
        self.grids: dict[str, Grids] = {}
        self._source, self._device = source, device

    def draw(self) -> None:
        """Draw the grids.

        Raises:
            InputError: If there are too few classes or images.
        """
        labels, rules = self.images.labels.numpy(), self.rules
        options = {"side": rules.side, "number": rules.number, "source": self._source}
        if rules.official:
            for name, prediction in self.predictions.items():
                self.grids[name] = draw_official_grids(prediction, labels, threshold=rules.threshold, **options)
        else:
            shared = draw_grids(labels, self.usable, seed=rules.seed, **options)
            self.grids.update(dict.fromkeys(self.models, shared))

    def chosen(self, among: np.ndarray) -> list[int]:
        """At most ``count`` of the images, drawn by the seed."""
        rng = np.random.default_rng(derive_seed(self.rules.seed, "images"))
        return sorted(rng.permutation(among)[: self.rules.count].tolist())

    def play(self, game: Game, model: str, method: str) -> pd.DataFrame:
        """Score one method on one model; columns game, model, method, confidence and those of the game.

        Raises:
            InputError: If the method cannot work on the network.
        """
        rules, trained = self.rules, self.models[model]
        options = {"smooth": rules.smooth, "batch_size": rules.batch_size, "device": self._device}
        attributor = self.attributor(game, model, method)
        if game == "energy":
            images = self.chosen(np.array([i for i in self.boxes if self.usable[i]], int))
            if not images:
                raise InputError("--game energy: no image with a box is right and confident enough for every model")
            found = play_boxes(attributor, self.images, self.boxes, images, **options)
            index = found["grid"].to_numpy()
        else:
            grids = self.grids[model]
            disconnected = trained.model.num_classes if game == "difull" else 0
            found = play_grids(
                attributor, self.images, grids, cell_size=rules.cell_size, disconnected=disconnected, **options
            )
            index = grids.indices[found["grid"], found["cell"]]
        return found.assign(game=game, model=model, method=method, confidence=self.predictions[model].confidence[index])

    def attributor(self, game: Game, model: str, method: str) -> Attributor:
        """A method on a model, or on the model that DiFull makes of it."""
        classifier, seed = self.models[model].model, self.rules.seed
        if game != "difull":
            return create_attributor(method, classifier, seed=seed)
        if method != "gradcam":
            return create_attributor(method, DisconnectedModel(classifier, self.rules.side), seed=seed)
        layer = find_layer(classifier.network, classifier.encode(self._cells(self.grids[model], 1)))
        disconnected = DisconnectedModel(classifier, self.rules.side, layer)
        return create_attributor(method, disconnected, seed=seed, layer=FEATURES)

    def same(self, model: str, methods: Sequence[str]) -> list[tuple[str, ...]]:
        """Groups of methods that say the same of a model, on the first few maps of its grids (or of its images).

        A method that cannot work on them is in no group.
        """
        if self.grids:
            grids = self.grids[model]
            pictures = tile(self._cells(grids, self.rules.side**2), grids.side).expand(SAMPLE, -1, -1, -1)
            target = torch.from_numpy(grids.classes[0, :SAMPLE]).to(self._device)
        else:
            batch, target = self.images[self.chosen(np.flatnonzero(self.usable))[:SAMPLE]]
            pictures, target = to_unit_range(batch.to(self._device)), target.to(self._device)
        made = {}
        for name in methods:
            with contextlib.suppress(InputError):
                made[name] = self.attributor("grid", model, name).attribute(pictures, target).map
        return coincidences(made)

    def faithfulness(self, model: str, method: str) -> pd.DataFrame:
        """The metrics of one method on one model: columns model, method and those of :func:`.metrics.measure`."""
        trained, rules = self.models[model], self.rules
        chosen = self.chosen(np.flatnonzero(self.usable))
        if not chosen:
            raise InputError("--faithfulness: no image is classified correctly and confidently enough by every model")
        parts = []
        starts = range(0, len(chosen), rules.batch_size)
        for start in track(starts, f"faithfulness, {method}", len(starts)):
            index = chosen[start : start + rules.batch_size]
            batch, labels = self.images[index]
            found = measure(
                lambda network: create_attributor(method, network, seed=rules.seed),
                trained.model,
                to_unit_range(batch.to(self._device)),
                labels.to(self._device),
                softmax=trained.softmax,
                seed=rules.seed,
            )
            parts.append(found.assign(model=model, method=method, image=np.array(index)[found["image"]]))
        return pd.concat(parts, ignore_index=True)

    def _cells(self, grids: Grids, number: int) -> torch.Tensor:
        cells = to_unit_range(self.images[grids.indices[0, :number]][0].to(self._device))
        return cells if self.rules.cell_size is None else resize_cells(cells, self.rules.cell_size)
