"""The models a training run learns from, to start at and as teacher, and which classes those have seen."""

from model.card import load_card, verify_artifact
from model.embedder import find_model
from model.errors import DataInvalid, ModelInvalid
from model.network.embedding_net import EmbeddingNetwork, load_imagenet, load_network

NO_MODEL = ("", "random", "imagenet")


def initialise(network: EmbeddingNetwork, init: str) -> None:
    """Starts a network's backbone from `init`: "random" leaves it, "imagenet" as load_imagenet, else from a model.

    Raises ModelNotFound; ModelInvalid, also when the model is of another architecture.
    """
    if init == "imagenet":
        load_imagenet(network)
    if init in NO_MODEL:
        return
    directory = find_model(init)
    card = verify_artifact(directory)
    if card.architecture != network.architecture:
        raise ModelInvalid(
            f"{init} is a {card.architecture}; the recipe's {network.architecture} cannot start from it."
        )
    network.backbone.load_state_dict(load_network(directory, card).backbone.state_dict())


def seen_classes(models: tuple[str, ...]) -> set[str]:
    """Labels that models, by name or directory, were trained on, or were themselves started from or taught with."""
    seen: set[str] = set()
    for model in models:
        if model not in NO_MODEL:
            labels = load_card(find_model(model)).training.get("labels", {})
            seen.update(labels.get("train", ()), labels.get("earlier", ()))
    return seen


def check_unseen(labels: set[str], models: tuple[str, ...]) -> None:
    """Raises DataInvalid when a model that a run learns from has been trained on a class of validation."""
    shared = labels & seen_classes(models)
    if shared:
        raise DataInvalid(
            f'The class "{min(shared)}" of validation is one that a model to start or learn from was trained on; '
            "validation needs classes that no weight has seen."
        )
