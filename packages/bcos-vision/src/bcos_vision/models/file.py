"""A classifier and what it was trained for, in one file."""

import pathlib
from dataclasses import dataclass

from bcos_core.run.checkpoint import load_model, load_state, save_model
from bcos_core.run.error import InputError, unknown_name

from bcos_vision.config import Loss

from .catalogue import create_model
from .classifier import ImageClassifier


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, the classes its logits stand for, and the images it expects."""

    model: ImageClassifier
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width of the images it is scored on."""
    data: str
    """Name of the data it was trained on."""
    resize: int | None = None
    """Size of an image's shorter side before its centre is cut out; None: the crop's own."""
    loss: Loss = "bce"
    """What it was trained by, which says how a logit becomes a probability."""

    @property
    def softmax(self) -> bool:
        """Whether its logits were trained through a softmax, or each by itself."""
        return self.loss == "cross_entropy"

    def class_index(self, name: str) -> int:
        """Index of a class, by its name or its number.

        Raises:
            InputError: If there is no such class.
        """
        if name in self.classes:
            return self.classes.index(name)
        if name.isdigit() and int(name) < len(self.classes):
            return int(name)
        raise unknown_name("class", name, self.classes)

    def save(self, path: pathlib.Path) -> None:
        """Write model and description; see :func:`bcos_core.run.checkpoint.save_model`."""
        description = {
            "model": self.model.description,
            "classes": list(self.classes),
            "image_size": list(self.image_size),
            "data": self.data,
            "resize": self.resize,
            "loss": self.loss,
        }
        save_model(path, self.model, description)

    @classmethod
    def load(cls, path: pathlib.Path) -> "TrainedClassifier":
        """Read what :meth:`save` wrote; the model is in evaluation mode.

        Raises:
            InputError: If the file is missing, damaged, or of another architecture than it says.
        """
        state, found = load_model(path)
        try:
            arguments = dict(found["model"])
            trained = cls(
                create_model(arguments.pop("name"), **arguments),
                tuple(found["classes"]),
                (found["image_size"][0], found["image_size"][1]),
                found["data"],
                found.get("resize"),
                found.get("loss", "bce"),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path}: not a classifier's description ({error})") from None
        load_state(trained.model, state, str(path))
        trained.model.eval()
        return trained
