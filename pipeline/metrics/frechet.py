"""The Fréchet distance of two sets of features, each taken for a Gaussian: what FID and FVD are.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982); Heusel et al., "GANs trained
by a two time-scale update rule converge to a local Nash equilibrium" (2017, section 2).
"""

from __future__ import annotations

import numpy as np


class Moments:
    """Count, sum and sum of outer products of features, float64: their memory doesn't grow with the count."""

    def __init__(self, width: int) -> None:
        """Of no features yet; each will have ``width`` numbers."""
        self.count = 0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    @property
    def width(self) -> int:
        return len(self._sum)

    def add(self, features: np.ndarray) -> None:
        """[n, width]."""
        features = features.astype(np.float64)
        self.count += len(features)
        self._sum += features.sum(0)
        self._products += features.T @ features

    def include(self, other: Moments) -> None:
        """As if the features of ``other`` had been added here."""
        self.count += other.count
        self._sum += other._sum
        self._products += other._products

    def mean(self) -> np.ndarray:
        """[width]. Raises ValueError where there are no features."""
        if not self.count:
            raise ValueError("expected at least 1 feature, found none")
        return self._sum / self.count

    def covariance(self) -> np.ndarray:
        """[width, width], by count - 1, as both papers' authors take it. Raises ValueError under two features."""
        if self.count < 2:
            raise ValueError(f"expected at least 2 features, found {self.count}")
        return (self._products - np.outer(self._sum, self.mean())) / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); 0 for equal moments. Raises ValueError under two features."""
    apart = one.mean() - other.mean()
    covariances = [one.covariance(), other.covariance()]
    ours, theirs = map(_root, covariances)
    # With S = R R', the eigenvalues of S1 S2 are the squared singular values of R1' R2. Taking these, and not roots of
    # eigenvalues, keeps singular covariances exact: a root makes 1e-8 of a rounding error of 1e-16.
    shared = np.linalg.svd(ours.T @ theirs, compute_uv=False).sum()
    distance = float(apart @ apart + sum(np.trace(each) for each in covariances) - 2 * shared)
    # Of equal sets rounding may leave a little less than nothing.
    return max(distance, 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """R [width, rank] with R R' = ``covariance``, but for what is rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    root: np.ndarray = vectors[:, kept] * np.sqrt(values[kept])
    return root
