"""How an index stores its vectors: fp32, fp16, 8 bits per value, one bit in lists, Milvus. Does not import FAISS."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from model.errors import IndexInvalid


class Storage(StrEnum):
    """What a search reads of every row, or in `ivf-rabitq` of the rows in some lists."""

    fp32 = "fp32"
    fp16 = "fp16"
    sq8 = "sq8"
    ivf_rabitq = "ivf-rabitq"
    milvus = "milvus"

    @property
    def recipe(self) -> dict[str, str]:
        """What an index manifest records."""
        return dict(_RECIPES[self])

    @property
    def lossy(self) -> bool:
        """True where stored vectors may differ from the original ones; `embeddings.f32` keeps the originals then."""
        return self is not Storage.fp32

    @property
    def rescored(self) -> bool:
        """True where a store computes scores from the original vectors, in `embeddings.f32` beside the index."""
        return self in (Storage.sq8, Storage.ivf_rabitq)

    def row_bytes(self, dim: int) -> int:
        """The bytes of a row's values."""
        bits = {Storage.fp16: 16, Storage.sq8: 8, Storage.ivf_rabitq: 1}.get(self, 32)
        return -(-dim * bits // 8)


IN_FILES = tuple(storage for storage in Storage if storage is not Storage.milvus)
"""Those that are a file of the index."""

StorageChoice = Literal["auto", "fp32", "fp16", "sq8", "ivf-rabitq"]
"""What the user asks for; what `auto` is, is decided in `indexer/recipes.py`."""

CHOSEN = "chosen"
"""Key in a manifest's recipe: the user's choice, where it was `auto`."""

_RECIPES = {
    Storage.fp32: {"kind": "IndexFlatIP"},
    Storage.fp16: {"kind": "IndexScalarQuantizer", "type": "QT_fp16"},
    Storage.sq8: {"kind": "IndexScalarQuantizer", "type": "QT_8bit"},
    Storage.ivf_rabitq: {"kind": "IndexIVFRaBitQ"},
    Storage.milvus: {"kind": "Milvus"},
}


def storage_of(recipe: Mapping[str, Any]) -> Storage:
    """The storage that a manifest's recipe names, whatever else the recipe holds; raises IndexInvalid for others."""
    for storage, known in _RECIPES.items():
        if {name: recipe.get(name) for name in ("kind", "type")} == {"type": None, **known}:
            return storage
    raise IndexInvalid("The index has a recipe that this version does not know; build the index again.")
