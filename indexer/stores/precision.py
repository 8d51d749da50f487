"""How an index stores its vectors: fp32, fp16 or 8 bits per value. Does not import FAISS."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from model.errors import IndexInvalid


class Storage(StrEnum):
    """The type of a stored value: 4, 2 or 1 bytes."""

    fp32 = "fp32"
    fp16 = "fp16"
    sq8 = "sq8"

    @property
    def recipe(self) -> dict[str, str]:
        """What an index manifest records."""
        return dict(_RECIPES[self])

    @property
    def lossy(self) -> bool:
        """Whether stored vectors differ from those that were given."""
        return self is not Storage.fp32

    @property
    def bytes_per_value(self) -> int:
        return {Storage.fp32: 4, Storage.fp16: 2, Storage.sq8: 1}[self]


StorageChoice = Literal["auto", "fp32", "fp16", "sq8"]
"""What the user asks for; `auto` is fp16 where it finds what fp32 finds, else fp32."""

CHOSEN = "chosen"
"""Key in a manifest's recipe: the user's choice, where it was `auto`."""

_RECIPES = {
    Storage.fp32: {"kind": "IndexFlatIP"},
    Storage.fp16: {"kind": "IndexScalarQuantizer", "type": "QT_fp16"},
    Storage.sq8: {"kind": "IndexScalarQuantizer", "type": "QT_8bit"},
}


def storage_of(recipe: Mapping[str, Any]) -> Storage:
    """The storage that a manifest's recipe names, whatever else the recipe holds; raises IndexInvalid for others."""
    for storage, known in _RECIPES.items():
        if {name: recipe.get(name) for name in ("kind", "type")} == {"type": None, **known}:
            return storage
    raise IndexInvalid("The index has a recipe that this version does not know; build the index again.")
