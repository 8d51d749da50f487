"""The loader for YAML: a duplicate key is an error, a merged key may be overridden."""

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.yaml_loader import read_yaml


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 1\n", "job:\n  healthcheck: {x: 1}\n  healthcheck: {x: 2}\n"])
def test_a_duplicate_key_is_refused(text: str) -> None:
    assert yaml.safe_load(text)  # what PyYAML's own loader makes of it
    with pytest.raises(yaml.constructor.ConstructorError, match="is already defined"):
        read_yaml(text)


def test_a_merged_mapping_may_be_overridden_and_used_twice(tmp_path: Path) -> None:
    file = tmp_path / "file.yml"
    file.write_text("a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc:\n  <<: *b\n  y: 4\nd:\n  <<: *b\n")
    assert read_yaml(file) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 3, "y": 4},
        "d": {"x": 3, "y": 2},
    }
