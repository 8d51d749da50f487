"""The stored codes of a FAISS index, decoded to the same bits on every machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.stores.originals import UNIT_TOLERANCE, check_unit
from indexer.stores.precision import Storage
from model.errors import DimMismatch, IndexInvalid
from model.retrieval import score_tolerance
from model.types import Embeddings, Rows

LEVELS = 255
RANGE_ROUNDINGS = 8
QTYPES = {Storage.fp16: faiss.ScalarQuantizer.QT_fp16, Storage.sq8: faiss.ScalarQuantizer.QT_8bit}


def new_index(embeddings: Embeddings, storage: Storage) -> Any:
    """A FAISS index of unit rows float32 (n, D); 8-bit ranges are the smallest and largest value of each dimension."""
    dim = embeddings.shape[1]
    if storage is Storage.fp32:
        index: Any = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexScalarQuantizer(dim, QTYPES[storage], faiss.METRIC_INNER_PRODUCT)
    contiguous = np.ascontiguousarray(embeddings)
    if not index.is_trained:
        index.train(contiguous)  # needs one row for the ranges
    index.add(contiguous)
    return index


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The codes of an index, without a copy: (n, D) float32, float16 or uint8.

    An 8-bit code c stands for low + c * step; low and step float64 (D,). The index must outlive this object.
    """

    codes: npt.NDArray[Any]
    low: npt.NDArray[np.float64] | None
    step: npt.NDArray[np.float64] | None

    @classmethod
    def of(cls, index: Any, storage: Storage) -> Self:
        kind = {Storage.fp32: np.float32, Storage.fp16: np.float16, Storage.sq8: np.uint8}[storage]
        shape = (int(index.ntotal), int(index.d))
        codes: npt.NDArray[Any] = np.empty((0, shape[1]), kind)
        if shape[0]:
            size = index.codes.size()
            codes = faiss.rev_swig_ptr(index.codes.data(), size).view(kind).reshape(shape)
        if storage is not Storage.sq8:
            return cls(codes, None, None)
        # FAISS cuts a range into 255 parts and decodes a code to the middle of its part.
        smallest, width = faiss.vector_to_array(index.sq.trained).astype(np.float64).reshape(2, -1)
        return cls(codes, smallest + width / LEVELS / 2, width / LEVELS)

    def decoded(self, rows: Rows | slice) -> Embeddings:
        """int64 (...) -> float32 (..., D)."""
        codes = self.codes[rows]
        if self.low is None or self.step is None:
            return codes.astype(np.float32, copy=False)
        return (codes * self.step + self.low).astype(np.float32)

    @property
    def tolerance(self) -> float:
        """An upper bound of the difference between FAISS's score of a unit query and that of the decoded row.

        In fp32 and fp16 FAISS multiplies and adds exactly the stored values, in float32. In 8 bits it also decodes in
        float32, or sums codes and ranges separately; then every term is at most |query| (|low| + 255 step) with a few
        more roundings, and their sum is bounded by Cauchy-Schwarz.
        """
        dim = self.codes.shape[1]
        if self.low is None or self.step is None:
            return score_tolerance(dim) * (1 + UNIT_TOLERANCE)
        scale = float(np.linalg.norm(np.abs(self.low) + (LEVELS + 1) * self.step))
        return score_tolerance(dim + RANGE_ROUNDINGS) * max(1.0, scale) * (1 + UNIT_TOLERANCE)

    @property
    def rounding(self) -> float:
        """An upper bound of the distance of a row to the 8-bit row that stands for it, 0 in fp32 and fp16.

        A value is at most half a step from its code.
        """
        return 0.0 if self.step is None else float(np.linalg.norm(self.step)) / 2 * (1 + UNIT_TOLERANCE)

    def check_unit(self, path: Path) -> None:
        """Raises IndexInvalid unless all rows are unit vectors, up to the rounding of their storage."""
        allowed = UNIT_TOLERANCE
        if self.low is not None and self.step is not None:
            ranges = np.concatenate([self.low, self.step])
            if not (np.isfinite(ranges).all() and (self.step >= 0).all() and (self.step * LEVELS <= 2.01).all()):
                raise IndexInvalid(f"{path} holds 8-bit ranges that no unit vectors have.")
            allowed += self.rounding
        check_unit(self.decoded, len(self.codes), path, allowed)


def check_index(index: Any, storage: Storage, dim: int, count: int, path: Path) -> None:
    """Raises IndexInvalid or DimMismatch unless an index has this storage, dimension and number of rows."""
    kind = storage.recipe["kind"]
    if type(index).__name__ != kind:
        raise IndexInvalid(f"{path} holds a {type(index).__name__}, not an {kind}.")
    if index.d != dim:
        raise DimMismatch(f"{path} has {index.d} dimensions, its manifest says {dim}.")
    if index.ntotal != count:
        raise IndexInvalid(f"{path} has {index.ntotal} rows, its manifest says {count}.")
    valid = index.codes.size() == count * storage.row_bytes(dim)
    if storage.lossy:
        quantizer = index.sq
        trained = 2 * dim if storage is Storage.sq8 else 0
        valid &= (index.metric_type, quantizer.qtype) == (faiss.METRIC_INNER_PRODUCT, QTYPES[storage])
        valid &= (index.is_trained, quantizer.d, quantizer.trained.size()) == (True, dim, trained)
        valid &= quantizer.code_size == index.code_size == storage.row_bytes(dim)
    if not valid:
        raise IndexInvalid(f"{path} is not an index in {storage}, as its manifest says.")
