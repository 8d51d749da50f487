"""YAML, read with a loader that refuses a duplicate key; `yaml.safe_load` keeps the last value without a word."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


class UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """PyYAML's safe loader, which also raises ConstructorError for a mapping that has a key twice."""

    def compose_mapping_node(self, anchor: str | None) -> Any:
        """The mapping as it is written: before merge keys (`<<`) are filled in, whose values may be overridden."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                problem = f"mapping key {key.value!r} is already defined"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


def read_documents(source: Path | str) -> list[Any]:
    """All documents of a file, or of a text."""
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    return list(yaml.load_all(text, UniqueKeyLoader))  # a subclass of the safe loader


def read_yaml(source: Path | str) -> Any:
    """The one document of a file, or of a text."""
    (document,) = read_documents(source)
    return document
