"""Every model of the zoo, tried: ``python -m benchmarks.zoo`` builds it, trains it, saves and loads it, explains it.

Writes docs/results/zoo.md.
"""

import argparse
import pathlib
import tempfile
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from bcos_core import explain
from bcos_core.nn import BatchNorm2d, BatchNormUncentered2d
from bcos_vision import create_model, list_models
from bcos_vision.models import TrainedClassifier, architecture
from bcos_vision.models.card import model_card
from bcos_vision.progress import track

from .environment import environment

VARIANTS = ("bcos", "baseline", "standard")
STEPS, BATCH, NUM_CLASSES = 3, 4, 10
_ASKED = ("trains", "file", "completeness")
OUT = pathlib.Path(__file__).parents[1] / "docs" / "results" / "zoo.md"


@dataclass(frozen=True)
class Trial:
    """What became of one model in one variant."""

    losses: tuple[float, ...]
    trained: bool
    """Whether every parameter had a finite gradient and moved."""
    same_after_loading: bool
    completeness: float
    """Largest error, float32."""
    explained: float
    """Mean over images of the sum of |contributions|: what there was to add up."""


def side_of(name: str) -> int:
    """Images smaller than those a model was designed for: all that is asked here shows on them."""
    return min(64, architecture(name).image_size)


def try_model(name: str, variant: str) -> Trial:
    """Three steps of Adam on random images, batch statistics taken over whole, then a file and an explanation."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=NUM_CLASSES, variant=variant)
    for module in model.modules():
        if isinstance(module, (BatchNorm2d, BatchNormUncentered2d)):
            module.momentum = 1.0
    side = side_of(name)
    images, labels = torch.rand(BATCH, 3, side, side), torch.arange(BATCH)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        losses.append(float(loss.detach()))
        finite = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
    moved = all(bool((a != b).any()) for a, b in zip(before, model.parameters(), strict=True))
    del before, optimiser
    classes = tuple(map(str, range(NUM_CLASSES)))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.safetensors"
        TrainedClassifier(model, classes, (side, side), "random").save(path)
        loaded = TrainedClassifier.load(path).model
    found = explain(model, images)
    with torch.no_grad():
        same = torch.equal(loaded(images), model.eval()(images))
    return Trial(
        losses=tuple(losses),
        trained=finite and moved,
        same_after_loading=same,
        completeness=float(found.completeness_error.max()),
        explained=float(found.contributions.abs().flatten(1).sum(1).mean()),
    )


def row(name: str) -> str:
    """One model in all variants, as a line of the table."""
    cards = [model_card(name, variant, num_classes=1000) for variant in VARIANTS]
    cells = [name, f"{cards[0].image_size}", f"{cards[0].multiply_adds / 1e9:.2f}"]
    cells += [f"{card.parameters / 1e6:.2f}" for card in cards]
    for variant in VARIANTS:
        trial = try_model(name, variant)
        cells.append("yes" if trial.trained else f"NO ({trial.losses})")
        cells.append("same" if trial.same_after_loading else "DIFFERENT")
        cells.append(f"{trial.completeness:.0e} of {trial.explained:.2g}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default="", help="models whose name holds this")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    names = [name for name in list_models() if options.filter in name]
    began = time.monotonic()
    found = environment("cpu")
    lines = [row(name) for name in track(names, "trying models", len(names))]
    columns, rule = (" | ".join(cells) for cells in (_COLUMNS, ["---"] * len(_COLUMNS)))
    page = _PAGE.format(e=found, steps=STEPS, batch=BATCH, columns=columns, rule=rule, lines="\n".join(lines))
    options.out.write_text(page)
    print(f"{len(names)} models in {time.monotonic() - began:.0f} s: {options.out}")


_COLUMNS = ["model", "side", "multiply-adds", *VARIANTS, *(f"{v} {what}" for v in VARIANTS for what in _ASKED)]
_PAGE = """# The zoo, tried

`python -m benchmarks.zoo`, {e.date}, commit {e.commit}; {e.cpu}, {e.threads} threads, torch {e.torch}.

Parameters in millions and multiply-adds in thousands of millions (of the B-cos network, at its image size) with 1000
classes. Each model and variant took {steps} steps of Adam on {batch} random images of 64 pixels (32 where it was
designed for those): *trains* says that every parameter had a finite gradient and moved; *file* that the model gives the
same logits, bit for bit, after saving and loading; *completeness* is the largest error of the explanations in float32,
relative to max(1, |logit|), beside the sum of |contributions| that it is an error of. Plain networks of ReLUs add up
contributions far larger than their logits: float32 shows there, and only B-cos networks are held to 1e-5.

| {columns} |
| {rule} |
{lines}
"""

if __name__ == "__main__":
    main()
