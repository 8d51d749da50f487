"""A code means one thing, and every error that is raised has one."""

import inspect
from collections import Counter

import model.errors
from model.errors import (
    CarsearchError,
    EmptyFile,
    MissingDependency,
    ModelInvalid,
    StoreUnavailable,
    UnsupportedImageFormat,
    missing_dependency,
)

CLASSES = {
    name: member
    for name, member in inspect.getmembers(model.errors, inspect.isclass)
    if issubclass(member, CarsearchError) and member.__module__ == "model.errors"
}


def has_its_own_code(kind: type[CarsearchError]) -> bool:
    return kind is not CarsearchError and kind.code != kind.__bases__[0].code  # type: ignore[attr-defined]


def test_codes_are_unique() -> None:
    codes = Counter(member.code for member in CLASSES.values() if has_its_own_code(member))
    assert [code for code, count in codes.items() if count > 1] == []


def test_a_class_without_subclasses_has_a_code_of_its_own() -> None:
    # Which part behind the server has failed is nothing that a client can do anything about.
    leaves = [member for member in CLASSES.values() if not member.__subclasses__() and member is not StoreUnavailable]
    assert [leaf.__name__ for leaf in leaves if not has_its_own_code(leaf)] == []


def test_a_class_has_the_status_of_its_parent_where_it_has_none_of_its_own() -> None:
    assert (EmptyFile.status, UnsupportedImageFormat.status, ModelInvalid.status) == (422, 415, None)


def test_a_missing_optional_package_names_its_extra() -> None:
    found = missing_dependency(ModuleNotFoundError(name="openvino.preprocess"))
    assert isinstance(found, MissingDependency)
    assert str(found) == 'openvino is not installed; install it with: pip install "carsearch[cpu]"'


def test_a_missing_module_of_our_own_is_a_bug_and_not_a_missing_package() -> None:
    assert missing_dependency(ModuleNotFoundError(name="model.nothing")) is None
