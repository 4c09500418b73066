"""Sparse regression of polynomial fields (SINDy): the reference line for whatever claims to find equations."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bcos_ode.systems import System


@dataclass(frozen=True)
class SparseModel:
    """A field whose components are polynomials with few terms."""

    names: tuple[str, ...]
    """Of the variables."""
    monomials: tuple[str, ...]
    """Of the library: "1", "x", "x^2", "x y", ..."""
    powers: np.ndarray
    """(m, d), of each variable in each monomial."""
    matrix: np.ndarray
    """(d, m), coefficient of each monomial in each variable's equation; zero where it was dropped."""
    shares: np.ndarray
    """(d, m), root mean square of each term over the samples, in units of the derivative's: which terms are large."""

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """Derivatives at states; both of shape (..., d)."""
        return _evaluate(self.powers, np.asarray(states)) @ self.matrix.T

    @property
    def coefficients(self) -> dict[str, dict[str, float]]:
        """Of the terms that remained, by variable and monomial: {"x": {"x": 1.3, "x y": -0.9}, ...}."""
        return {
            name: {text: float(value) for text, value in zip(self.monomials, row, strict=True) if value}
            for name, row in zip(self.names, self.matrix, strict=True)
        }

    def equations(self, most: int | None = None) -> str:
        """The equations as text, one a line.

        Args:
            most: Terms of each that are written out, the largest ones; by default all.
        """
        lines = []
        for name, row, shares in zip(self.names, self.matrix, self.shares, strict=True):
            kept = np.flatnonzero(row)
            shown = kept if most is None else np.sort(kept[np.argsort(-shares[kept], kind="stable")[:most]])
            parts = [f"{row[j]:+.4g} {self.monomials[j]}" if self.powers[j].any() else f"{row[j]:+.4g}" for j in shown]
            if len(shown) < len(kept):
                parts.append(f"and {len(kept) - len(shown)} smaller ones")
            lines.append(f"{name}' = {' '.join(parts) or '0'}")
        return "\n".join(lines)

    def term_f1(self, system: System) -> float:
        """F1 score of the terms found, against those of the true equations.

        A term is a monomial in an equation; coefficients do not matter. Terms of the system that no polynomial has
        (sines) count as missed.

        Raises:
            ValueError: If the system has other variables.
        """
        if system.variables != self.names:
            raise ValueError(f"system: expected the variables {self.names}, got {system.variables}")
        true: defaultdict[tuple[int, tuple[int, ...], tuple[int, ...]], float] = defaultdict(float)
        for i, equation in enumerate(system.terms):
            for term in equation:
                true[i, term.powers, term.sines] += term.coefficient
        expected = {key for key, value in true.items() if value}
        found = {(i, tuple(int(p) for p in self.powers[j]), ()) for i, j in np.argwhere(self.matrix)}
        return 2 * len(found & expected) / max(1, len(found) + len(expected))


def fit_sparse(
    states: np.ndarray,
    derivatives: np.ndarray,
    degree: int,
    threshold: float,
    names: Sequence[str],
    weights: np.ndarray | None = None,
) -> SparseModel:
    """Fit polynomials with few terms by sequentially thresholded least squares.

    Brunton, Proctor & Kutz, PNAS 113 (2016) 3932, with every monomial and every derivative divided by its root mean
    square over the samples: a term is dropped when its own root mean square is below ``threshold`` times that of the
    derivative, whatever the units.

    Args:
        states: Shape (n, d).
        derivatives: Shape (n, d).
        degree: Largest degree of a monomial, at least 1.
        threshold: Share of its equation that a term needs to stay, in [0, 1).
        names: Of the d variables.
        weights: Of each sample's error, shape (n, 1), as :func:`bcos_ode.fit.fit_network` takes them.

    Raises:
        ValueError: If a number is out of range, shapes differ, or there are fewer samples than monomials.

    Example:
        >>> x = np.linspace(1, 2, 9)[:, None]
        >>> print(fit_sparse(x, 2 * x - 0.5 * x**2, 3, 0.01, ["x"]).equations())
        x' = +2 x -0.5 x^2
    """
    from sklearn.preprocessing import PolynomialFeatures

    if degree < 1 or not 0 <= threshold < 1:
        raise ValueError(f"expected a degree >= 1 and a threshold in [0, 1), got {degree} and {threshold}")
    if states.shape != derivatives.shape or states.ndim != 2 or states.shape[1] != len(names):
        raise ValueError(
            f"states, derivatives: expected shape (n, {len(names)}), got {states.shape} and {derivatives.shape}"
        )
    library = PolynomialFeatures(degree).fit(states)  # which refuses what is not finite
    if len(states) < library.n_output_features_:  # before they are listed: of many variables they are very many
        raise ValueError(
            f"states: {len(states)} are too few for {library.n_output_features_} monomials of degree <= {degree}"
        )
    powers = library.powers_
    row = 1.0 if weights is None else weights
    columns, targets = _evaluate(powers, states) * row, derivatives * row
    size, target_size = _root_mean_square(columns), _root_mean_square(targets)
    columns, targets = columns / size, targets / target_size
    matrix = np.stack([_thresholded(columns, target, threshold) for target in targets.T])
    texts = tuple(str(text) for text in library.get_feature_names_out(list(names)))
    return SparseModel(tuple(names), texts, powers, matrix * target_size[:, None] / size, np.abs(matrix))


def _thresholded(columns: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
    kept = np.full(columns.shape[1], bool(target.any()))
    while True:
        found = np.zeros(len(kept))
        found[kept] = np.linalg.lstsq(columns[:, kept], target, rcond=None)[0]
        small = kept & (np.abs(found) < threshold)
        if not small.any():
            return found
        kept &= ~small


def _evaluate(powers: np.ndarray, states: np.ndarray) -> np.ndarray:
    return np.prod(states[..., None, :] ** powers, -1)


def _root_mean_square(columns: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.square(columns).mean(0))
    return np.where(size > 0, size, 1.0)
