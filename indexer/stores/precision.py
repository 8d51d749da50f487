"""How an index keeps its vectors: whole, in half precision, or in 8 bits a value; knows nothing of FAISS itself."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from model.errors import IndexInvalid


class Storage(StrEnum):
    """What a value of a vector takes: 4 bytes, 2 or 1."""

    fp32 = "fp32"
    fp16 = "fp16"
    sq8 = "sq8"

    @property
    def recipe(self) -> dict[str, str]:
        """What an index manifest says of it."""
        return dict(_RECIPES[self])

    @property
    def lossy(self) -> bool:
        """Whether vectors come back other than they were given."""
        return self is not Storage.fp32

    @property
    def bytes_a_value(self) -> int:
        return {Storage.fp32: 4, Storage.fp16: 2, Storage.sq8: 1}[self]


class StorageChoice(StrEnum):
    """What somebody who builds an index asks for; `auto` is fp16 where that finds what fp32 finds, else fp32."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    sq8 = "sq8"


CHOSEN = "chosen"
"""In a manifest's recipe: who asked for `auto` once is not asked again."""

_RECIPES = {
    Storage.fp32: {"kind": "IndexFlatIP"},
    Storage.fp16: {"kind": "IndexScalarQuantizer", "type": "QT_fp16"},
    Storage.sq8: {"kind": "IndexScalarQuantizer", "type": "QT_8bit"},
}


def storage_of(recipe: Mapping[str, Any]) -> Storage:
    """The storage that a manifest's recipe names, whatever else stands in it; raises IndexInvalid for any other."""
    for storage, known in _RECIPES.items():
        if {name: recipe.get(name) for name in ("kind", "type")} == {"type": None, **known}:
            return storage
    raise IndexInvalid("The index has a recipe that this version does not know; build the index again.")
