"""Array types that every package uses."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB pixels: one photo (H, W, 3) or a batch of crops (B, S, S, 3), values 0 to 255."""

Embeddings = npt.NDArray[np.float32]
"""Embeddings (n, D) or one embedding (D,), of length 1."""

Rows = npt.NDArray[np.int64]
"""Row numbers, from 0; also class codes by row."""
