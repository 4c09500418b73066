"""How many images a loader gives a second, without a network behind it: the training must be the slower one.

``python -m bcos_vision.data.throughput`` takes the options of ``bcos-vision train`` and prints one line.
"""

import sys
import time
from collections.abc import Sequence

from bcos_core.run.command import CommandParser, parse_config, run_command

from bcos_vision.config import TrainConfig

from . import load_data, make_loader, picture_change
from .images import ArrayImages
from .loader import Loader


def measure(loader: Loader, seconds: float = 5.0) -> float:
    """Images a second over ``seconds``, or over a single epoch if the loader is through before.

    The first batch is not counted: until it comes, workers start.

    Args:
        loader: From :func:`bcos_vision.data.make_loader`; at least two batches.
        seconds: How long to read.

    Raises:
        ValueError: If there is nothing after the first batch.

    Example:
        >>> digits = load_data("digits").train
        >>> measure(make_loader(digits, 64, seed=0), seconds=0.1) > 0
        True
    """
    batches = iter(loader)
    next(batches, None)
    count, began, now = 0, time.perf_counter(), 0.0
    for _, labels in batches:
        count += len(labels)
        now = time.perf_counter()
        if now - began > seconds:
            break
    if not count:
        raise ValueError(f"loader: expected at least two batches, got {len(loader)}")
    return count / (now - began)


def report(argv: Sequence[str]) -> None:
    """Print the speed of the loader of a training configuration."""
    parser = CommandParser(prog="throughput", description="Measure the loader of a training run.")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to read")
    parser.add_class_arguments(TrainConfig, as_group=True)
    config = parse_config(parser, TrainConfig, argv)
    data = load_data(config.data, config.split, image_size=config.image_size, skip_corrupt=config.skip_corrupt)
    loader = make_loader(
        data.train if len(data.train) else data.test,
        config.batch_size,
        seed=config.seed,
        num_workers=config.num_workers,
        repeats=config.augment.repeats,
        change=picture_change(config.augment, data.size),
    )
    speed = measure(loader, parser.parse_args(list(argv)).seconds)
    where = "memory" if isinstance(data.train, ArrayImages) else "files"
    print(
        f"{config.data_name}: {speed:.0f} images/s of {data.size[1]}x{data.size[0]} from {where}, "
        f"{config.num_workers} workers, batches of {config.batch_size}"
    )


if __name__ == "__main__":
    run_command("bcos_vision.data", {"throughput": ("measure a loader", report)}, ["throughput", *sys.argv[1:]], str)
