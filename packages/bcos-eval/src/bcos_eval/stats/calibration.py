"""Are the tests honest? Studies of two arms that do not differ, simulated: ``python -m bcos_eval.stats.calibration``.

Counts how often each test of :func:`~bcos_eval.stats.contrast.run_tests` finds a difference that is not there, and one
that is; writes ``docs/results/statistics.md``.
"""

import argparse
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_vision.progress import track
from jaxtyping import Float
from scipy import stats

from ..design import Design
from .contrast import estimate_difference, run_tests
from .interval import mean_interval
from .power import smallest_detectable
from .predictions import mcnemar

ALPHA = 0.05
DESIGNS = (Design(5, 10), Design(5, 1), Design(2, 5), Design(1, 1, tuple(range(5))), Design(1, 1, tuple(range(10))))
COMMAND = "python -m bcos_eval.stats.calibration"
NUM_SAMPLES, NUM_FEATURES, SHIFT = 200, 5, 0.4  # of each data set that is really cross-validated

Pair = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


@dataclass(frozen=True)
class Count:
    """How often a test rejected, or an interval covered."""

    design: str
    what: str
    hits: int
    studies: int

    @property
    def rate(self) -> float:
        """Share of the studies."""
        return self.hits / self.studies

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the share that endlessly many studies would have (Wilson)."""
        ends = stats.binomtest(self.hits, self.studies).proportion_ci(method="wilson")
        return float(ends.low), float(ends.high)


def assumed_study(design: Design, rng: np.random.Generator) -> Pair:
    """Scores of two arms as Nadeau and Bengio assume them: normal, sd 1, correlated by 1/k from fold to fold.

    On one split, seeds are independent.

    Args:
        design: Its folds, repeats and seeds.
        rng: Source of the draw.
    """
    correlation = 1 / design.folds if design.is_crossval else 0.0
    num = design.folds * design.repeats if design.is_crossval else len(design.seeds)
    common, own = rng.standard_normal((2, 1)), rng.standard_normal((2, num))
    arm, control = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    return arm, control


def halves_study(design: Design, rng: np.random.Generator) -> Pair:
    """Accuracies of two classifiers, really cross-validated, equal by symmetry: each has its own half of the features.

    Both halves tell as much of the class, in truth; in one data set of 200 samples one half happens to tell more, in
    all folds alike. That is the correlation which the correction is for.

    Args:
        design: With folds.
        rng: Source of data and divisions.
    """
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.naive_bayes import GaussianNB

    x, y = _draw_data(rng, 2 * NUM_FEATURES)
    divisions = RepeatedStratifiedKFold(n_splits=design.folds, n_repeats=design.repeats, random_state=_seed(rng))
    halves = x[:, :NUM_FEATURES], x[:, NUM_FEATURES:]
    scores = [
        [(GaussianNB().fit(half[train], y[train]).predict(half[test]) == y[test]).mean() for half in halves]
        for train, test in divisions.split(x, y)
    ]
    arm, control = np.array(scores).T
    return arm, control


def seeds_study(design: Design, rng: np.random.Generator) -> Pair:
    """Accuracies of two arms of the same random classifier, with a draw of their own for each fold or seed.

    Trees with random splits: all that tells the arms apart is drawn anew in each run.

    Args:
        design: With folds, or on one split (150 training and 50 test samples).
        rng: Source of data, divisions and seeds.
    """
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.tree import DecisionTreeClassifier

    x, y = _draw_data(rng, NUM_FEATURES)
    divisions = RepeatedStratifiedKFold(
        n_splits=design.folds if design.is_crossval else 4, n_repeats=design.repeats, random_state=_seed(rng)
    )
    splits = list(divisions.split(x, y)) if design.is_crossval else [next(divisions.split(x, y))] * len(design.seeds)

    def score(train: np.ndarray, test: np.ndarray) -> float:
        tree = DecisionTreeClassifier(splitter="random", max_depth=4, random_state=_seed(rng))
        return float((tree.fit(x[train], y[train]).predict(x[test]) == y[test]).mean())

    arm, control = np.array([[score(*split) for _ in range(2)] for split in splits]).T
    return arm, control


def count_rejections(studies: Iterable[Pair], design: Design, *, paired: bool = True) -> list[Count]:
    """How often each test rejects at the 5% level; the default test comes first."""
    ratio = 1 / (design.folds - 1) if design.is_crossval else None
    hits: dict[str, int] = {}
    total = 0
    for arm, control in studies:
        total += 1
        for test in run_tests(arm, control, design, paired=paired, ratio=ratio):
            hits[test.name] = hits.get(test.name, 0) + bool(test.p < ALPHA)
    return [Count(_name(design, paired), name, count, total) for name, count in hits.items()]


def fold_correlation(studies: Sequence[Pair]) -> float:
    """Correlation of the arms' difference from fold to fold, over studies of no true difference."""
    differences = np.array([arm - control for arm, control in studies])
    return float(1 - differences.var(axis=1, ddof=1).mean() / (differences**2).mean())


def calibrate(num_studies: int, num_data_sets: int, *, seed: int = 0) -> dict[str, list[Count] | list[tuple]]:
    """Run all simulations.

    Args:
        num_studies: Simulated score tables for each design.
        num_data_sets: Data sets really cross-validated for each design.
        seed: Of everything.
    """
    found: dict[str, Any] = {name: [] for name in ("assumed", "power", "halves", "seeds", "other", "correlation")}
    cases = [(design, paired) for design in DESIGNS for paired in (True, False) if paired or not design.is_crossval]
    for design, paired in cases:
        rng, label = _rng(seed, "assumed", design), _name(design, paired)
        studies = (assumed_study(design, rng) for _ in track(range(num_studies), f"assumed {label}", num_studies))
        found["assumed"] += count_rejections(studies, design, paired=paired)
        found["power"].append(_count_power(design, paired, num_studies, seed))
    for kind, study in (("halves", halves_study), ("seeds", seeds_study)):
        for design in (d for d in DESIGNS if d.is_crossval or kind == "seeds"):
            rng = _rng(seed, kind, design)
            bar = track(range(num_data_sets), f"{kind} {design.name}", num_data_sets)
            studies = [study(design, rng) for _ in bar]
            found[kind] += count_rejections(studies, design)
            if design.is_crossval:
                found["correlation"].append((kind, design.name, fold_correlation(studies), 1 / design.folds))
    found["other"] = [*_count_mcnemar(num_studies, seed), *_count_coverage(num_data_sets, seed)]
    return found


def write_page(found: dict[str, Any], num_studies: int, num_data_sets: int, seed: int) -> str:
    """The page of results, in Markdown."""
    rows = [f"| {kind} | {name} | {r:.3f} | {assumed:.3f} |" for kind, name, r, assumed in found["correlation"]]
    correlations = "\n".join(rows)
    return f"""# The tests, tested

`{COMMAND} --studies {num_studies} --data_sets {num_data_sets} --seed {seed}`

Two arms that do not differ, many times over: a test at the 5% level should find a difference in 5% of the studies.
**Bold** is what a comparison answers by; the others stand beside it. In brackets the 95% interval of each share
(Wilson).

## Scores as the correction assumes them

{num_studies} studies of each design: normal scores, correlated by 1/k from fold to fold; seeds are independent. Asked
of the default test: between 4% and 6%.

{_table(found["assumed"])}

The two 5x2cv tests assume another correlation (none between the two halves of a repeat), and are off here. Five values
have 32 patterns of signs, so the p of sign flips is never below 0.0625. Over ten and fifty folds they are as wrong as
the paired t: both take folds for independent.

## Power

The same, with a true difference of the size that, says `power.py` of the true standard deviation and the study's
degrees of freedom, 80% of studies find: of one contrast, at the 5% level.

{_table(found["power"], "found")}

## Real cross-validation: two halves of the features

{num_data_sets} data sets of {NUM_SAMPLES} samples for each design, two classes. Each arm is a Gaussian naive Bayes
classifier on its own {NUM_FEATURES} of {2 * NUM_FEATURES} features, which are equally informative: no arm is better
over data sets, but in one data set one of them often is, in all folds alike.

{_table(found["halves"])}

## Real cross-validation: the same classifier, other random numbers

{num_data_sets} data sets for each design. Both arms are trees with random splits, drawn anew in each fold, or for each
seed on one split of 150 training and 50 test samples.

{_table(found["seeds"])}

How far differences really are correlated from fold to fold. Above what is assumed the corrected test rejects too often,
below it too seldom:

| arms | design | measured | assumed |
| --- | --- | --- | --- |
{correlations}

## McNemar, and intervals of an arm's mean

McNemar: {num_studies} pairs of models, both right on 90% of the images. Intervals: {num_data_sets} arms, scores normal
or skewed (log-normal, sigma 0.5), of which 95% should cover the true mean. A comparison's intervals are by t; the
bootstrap (bias-corrected and accelerated) is shown beside it, and used nowhere.

{_table(found["other"], "share")}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the simulations, print the page and write it."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="False positives and power of the tests, by simulation.")
    parser.add_argument("--studies", type=int, default=4000, help="simulated score tables for each design")
    parser.add_argument("--data_sets", type=int, default=1000, help="data sets really cross-validated for each design")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/statistics.md"))
    args = parser.parse_args(argv)
    if not args.out.parent.is_dir():
        raise InputError(f"--out: no folder {args.out.parent}; run this in the repository's root")
    page = write_page(calibrate(args.studies, args.data_sets, seed=args.seed), args.studies, args.data_sets, args.seed)
    args.out.write_text(page)
    print(page)


def _count_power(design: Design, paired: bool, num_studies: int, seed: int) -> Count:
    """How often the default test finds what should be found in 80%."""
    rng, label = _rng(seed, "power", design), _name(design, paired)
    ratio = 1 / (design.folds - 1) if design.is_crossval else None
    n = design.folds * design.repeats if design.is_crossval else len(design.seeds)
    # two arms of sd 1 differ by variance 2; what folds have in common does not show in their sample variance
    variance = 2 * (1 - 1 / design.folds) if design.is_crossval else 2.0
    se = (variance * (1 / n + (ratio or 0.0))) ** 0.5
    hits, name = 0, ""
    for _ in track(range(num_studies), f"power {label}", num_studies):
        arm, control = assumed_study(design, rng)
        none = estimate_difference(arm, control, paired=paired, ratio=ratio)
        difference = smallest_detectable(se, none.df, alpha=ALPHA)  # Welch's df are the study's own
        found = estimate_difference(arm + difference, control, paired=paired, ratio=ratio)
        hits, name = hits + (found.p < ALPHA), found.name
    return Count(label, name, int(hits), num_studies)


def _count_mcnemar(num_studies: int, seed: int) -> list[Count]:
    counts = []
    for images in (100, 1000):
        rng, hits = _rng(seed, "mcnemar", images), 0
        for _ in track(range(num_studies), f"McNemar {images}", num_studies):
            # easy images are right for both; on the others (a fifth) each model has an even chance
            hard = rng.random(images) < 0.2
            arm, control = (~hard | (rng.random(images) < 0.5) for _ in range(2))
            hits += mcnemar(arm, control).p < ALPHA
        counts.append(Count(f"{images} test images", "**McNemar** finds a difference", int(hits), num_studies))
    return counts


def _count_coverage(num_arms: int, seed: int) -> list[Count]:
    """How often intervals of an arm's mean hold the true one."""
    counts = []
    for name, mean in (("normal", 0.0), ("skewed", float(np.exp(0.125)))):
        for n in (10, 20, 50):
            rng, bootstrap, t = _rng(seed, "coverage", name, n), 0, 0
            for _ in track(range(num_arms), f"coverage {name} {n}", num_arms):
                values = rng.standard_normal(n) if name == "normal" else rng.lognormal(sigma=0.5, size=n)
                found = stats.bootstrap((values,), np.mean, n_resamples=1999, rng=rng).confidence_interval
                bootstrap += found.low <= mean <= found.high
                low, high = mean_interval(values)
                t += low <= mean <= high
            hits = {"**t** covers": t, "BCa bootstrap covers": bootstrap}
            counts += [Count(f"{n} seeds, {name}", what, int(count), num_arms) for what, count in hits.items()]
    return counts


def _draw_data(rng: np.random.Generator, features: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(NUM_SAMPLES) % 2
    return rng.standard_normal((NUM_SAMPLES, features)) + SHIFT * (2 * y[:, None] - 1), y


def _rng(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, *map(str, names)))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _name(design: Design, paired: bool) -> str:
    return design.name if paired else f"{design.name}, not paired"


def _table(counts: Sequence[Count], heading: str = "false positives") -> str:
    lines = [f"| design | test | {heading} | |", "| --- | --- | --- | --- |"]
    seen = set()
    for count in counts:
        first = count.design not in seen
        seen.add(count.design)
        low, high = count.interval
        what = f"**{count.what}**" if first and "*" not in count.what else count.what
        ends = f"[{100 * low:.1f}, {100 * high:.1f}]"
        lines.append(f"| {count.design if first else ''} | {what} | {100 * count.rate:.1f}% | {ends} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
