"""The tree in the docstring of model.errors is the tree of its classes, and a code means one thing."""

import inspect
from collections import Counter

import pytest

import model.errors
from model.errors import CarsearchError, MissingDependency, ServerRefused, missing_dependency

CLASSES = {
    name: member
    for name, member in inspect.getmembers(model.errors, inspect.isclass)
    if issubclass(member, CarsearchError) and member.__module__ == "model.errors"
}


def documented_tree() -> dict[str, tuple[str, str]]:
    """Class name -> (name of its parent, code) as the docstring draws them; codes in brackets are remarks."""
    path: list[str] = []
    tree: dict[str, tuple[str, str]] = {}
    for line in (model.errors.__doc__ or "").splitlines()[2:]:
        if not line:
            break
        name, _, code = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], name]
        tree[name] = (path[-2] if depth else "Exception", code.strip())
    return tree


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_is_in_the_documented_tree_under_its_parent_with_its_code(name: str) -> None:
    parent, code = documented_tree()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent
    if code and not code.startswith("("):
        assert CLASSES[name].code == code
    else:
        assert "code" not in vars(CLASSES[name]) or name == "CarsearchError"


def test_the_documented_tree_names_no_class_that_is_not_there() -> None:
    assert set(documented_tree()) == set(CLASSES)


def test_codes_are_unique() -> None:
    codes = Counter(vars(member)["code"] for member in CLASSES.values() if "code" in vars(member))
    assert [code for code, count in codes.items() if count > 1] == []


def test_a_class_without_subclasses_has_a_code_of_its_own() -> None:
    leaves = [member for member in CLASSES.values() if not member.__subclasses__()]
    assert [leaf.__name__ for leaf in leaves if "code" not in vars(leaf)] == ["ServerRefused"]


def test_an_answer_of_the_server_keeps_the_code_that_came_with_it() -> None:
    first, second = ServerRefused("invalid_k", "k is 0."), ServerRefused("overloaded", "Try later.")
    assert (first.code, second.code, ServerRefused.code) == ("invalid_k", "overloaded", "internal")


def test_a_missing_optional_package_names_its_extra() -> None:
    found = missing_dependency(ModuleNotFoundError(name="openvino.preprocess"))
    assert isinstance(found, MissingDependency)
    assert str(found) == 'openvino is not installed; install it with: pip install "carsearch[cpu]"'


def test_a_missing_module_of_our_own_is_a_bug_and_not_a_missing_package() -> None:
    assert missing_dependency(ModuleNotFoundError(name="model.nothing")) is None
