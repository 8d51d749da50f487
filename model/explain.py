"""Why two photos match: their cosine as a sum over the places of both feature maps.

With average pooling an embedding is, but for its length, a sum over places. So the cosine of two embeddings is a sum
over pairs of places (Stylianou, Souvenir & Pless, "Visualizing Deep Similarity Networks", WACV 2019). The generalised
mean over N places, v = (mean of x^p)^(1/p), is as exactly the sum of x^p / (N v^(p-1)), and a whitening is linear. A
map has at each place the sum over all pairs that the place is in; each of the two maps adds up to the cosine.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Maps = npt.NDArray[np.float32]
"""Feature maps (D, h, w): D values at each of h x w places."""

Shares = npt.NDArray[np.float64]
"""What each place adds to the pooled features: (D, h, w), whose sum over places is the pooled features (D,)."""

Linear = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""A whitening or its offset; in float64 it is not converted for each pair."""

Heat = npt.NDArray[np.float32]
"""What each place adds to a cosine: (h, w)."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cosine of two photos by places: `query.sum() + constant` is the cosine, and so is `hit.sum() + constant`.

    `query` is float32 (h, w) over what the network saw of one photo, `hit` over what it saw of the other. `constant` is
    of no place; it is 0 where the whitening has no offset.
    """

    query: Heat
    hit: Heat
    constant: float

    @property
    def cosine(self) -> float:
        """The cosine of the two embeddings."""
        return float(self.query.sum(dtype=np.float64)) + self.constant


def shares_of(maps: Maps, power: float = 1.0) -> Shares:
    """Feature maps (D, h, w) -> float64 (D, h, w): what each place adds to their generalised mean over places.

    A power of 1 is average pooling; another one needs maps without negative values.
    """
    powered = maps.astype(np.float64) ** power
    pooled = powered.mean(axis=(1, 2)) ** (1 / power)
    # Where nothing is to be shared out every place has 0, and dividing by 1 leaves that.
    slope = np.where(pooled == 0, 1.0, pooled) ** (power - 1) if power != 1 else np.ones_like(pooled)
    shares: Shares = powered / (maps[0].size * slope[:, None, None])
    return shares


def explain(query: Shares, hit: Shares, whitening: Linear | None = None, offset: Linear | None = None) -> Explanation:
    """Shares (D, h, w) of two photos -> the cosine of their embeddings by places.

    An embedding is `whitening @ pooled + offset` at length 1, with `whitening` (E, D) and `offset` (E,). The places of
    the two photos may differ in number.
    """
    matrix = None if whitening is None else np.asarray(whitening, np.float64)
    features = [shares.sum(axis=(1, 2)) for shares in (query, hit)]
    # einsum computes in this thread: BLAS would wake others for it, and wait for them while searches take the cores.
    linear = [one if matrix is None else np.einsum("ed,d->e", matrix, one) for one in features]
    apart = np.zeros_like(linear[0]) if offset is None else np.asarray(offset, np.float64)
    lengths = float(np.prod([np.linalg.norm(one + apart) for one in linear])) or 1.0

    def heat_of(shares: Shares, other: npt.NDArray[np.float64]) -> Heat:
        """What each place adds to the product with the other photo's vector; one row for a matrix of all places."""
        row = other if matrix is None else np.einsum("e,ed->d", other, matrix)
        heat: Heat = (np.einsum("d,dhw->hw", row, shares) / lengths).astype(np.float32)
        return heat

    constant = float((linear[0] + linear[1] + apart) @ apart) / lengths
    return Explanation(heat_of(query, linear[1]), heat_of(hit, linear[0]), constant)
