"""What training minimises, with numbers that can be checked by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from model.card import InputSpec
from model.network.embedding_net import EmbeddingNetwork
from model.training.losses import NormalisedHead, PseudoClassLoss, TeacherLoss, cluster_centres
from model.training.module import Classifier
from model.training.recipes import QUICK, RECIPES, Recipe

pytestmark = pytest.mark.torch


def test_logits_of_the_normalised_head_are_scaled_cosines() -> None:
    head = NormalisedHead(2, 2)
    head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    logits = head(torch.tensor([[10.0, 0.0], [3.0, 4.0]]))
    assert logits.flatten().tolist() == pytest.approx([16, 0, 16 * 0.6, 16 * 0.8], abs=1e-4)


def test_a_student_that_is_the_teacher_loses_nothing() -> None:
    teacher = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    loss = TeacherLoss(4, 4)
    loss.projection.weight.data, loss.projection.bias.data = torch.eye(4), torch.zeros(4)
    assert loss(3 * teacher, teacher).item() == pytest.approx(0, abs=1e-5)
    assert loss(3 * teacher.roll(1, 0), teacher).item() > 0.5


def test_pairs_alone_teach_the_space_that_is_searched() -> None:
    """Only the features move, the projection stands still: near pairs of the teacher become near pairs of theirs."""
    teacher = torch.tensor([[1.0, 0.0], [0.98, 0.199], [0.0, 1.0], [0.199, 0.98]])
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = TeacherLoss(8, 2)
    optimizer = torch.optim.Adam([features], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(loss(features, teacher))
        optimizer.step()
    rows = torch.nn.functional.normalize(features.detach(), dim=1)
    cosines = (rows @ rows.T).fill_diagonal_(-1)
    assert cosines.argmax(dim=1).tolist() == [1, 0, 3, 2]


def test_a_photo_without_a_label_belongs_to_the_clusters_that_the_teacher_finds_it_near() -> None:
    centres = torch.eye(2)
    loss = PseudoClassLoss(2, centres)
    loss.head.weight.data = torch.eye(2)
    near_first = torch.tensor([[1.0, 0.0]])
    between = torch.full((1, 2), 0.5**0.5)
    # The head's logits are 16 and 0; the teacher's, 20 and 0, leave e^-20 for the second cluster.
    assert loss(near_first, near_first).item() == pytest.approx(0, abs=1e-5)
    assert loss(torch.tensor([[0.0, 1.0]]), near_first).item() == pytest.approx(16, abs=1e-3)
    assert loss(between, between).item() == pytest.approx(math.log(2), abs=1e-5)


def test_a_batch_without_labels_or_without_a_teacher_is_one_too() -> None:
    network = EmbeddingNetwork("resnet18", InputSpec(resize=32, crop=32))
    teacher = np.eye(4, dtype=np.float32)
    recipe = dataclasses.replace(QUICK, head="normalised")
    classifier = Classifier(network, recipe, 3, teacher)
    features = torch.randn(4, 512)
    none, rows = torch.full((4,), -1), torch.arange(4)
    classes = torch.tensor([0, 1, 2, 0])
    agreement = classifier.agreement
    assert agreement is not None
    labelled, taught = classifier.loss(features, classes, none), classifier.loss(features, none, rows)
    assert labelled.item() > 0
    assert taught.item() == pytest.approx(agreement(features, torch.eye(4)).item())
    mixed = classifier.loss(features, torch.tensor([0, -1, -1, -1]), torch.tensor([-1, 0, 1, 2]))
    assert mixed.item() > 0
    assert classifier.loss(features, none, none).item() == 0


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_takes_a_step(recipe: Recipe) -> None:
    """One batch of noise through the real network, backwards, and through the optimiser that the recipe names."""
    chosen = dataclasses.replace(recipe, schedule="step", lr_step_epochs=1)  # the other asks a trainer for its steps
    network = EmbeddingNetwork(chosen.architecture, InputSpec(resize=64, crop=64))
    classifier = Classifier(network, chosen, 2)
    configured = classifier.configure_optimizers()
    assert isinstance(configured, dict)
    optimizer = configured["optimizer"]
    before = classifier.network.backbone.state_dict()
    first = next(name for name, value in before.items() if value.ndim == 4)
    kernel = before[first].clone()
    crops = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    features = network.features(network.normalise(crops))
    assert features.shape == (4, network.dim)
    torch.autograd.backward(classifier.loss(features, torch.tensor([0, 1, 0, 1]), torch.full((4,), -1)))
    optimizer.step()
    assert not torch.equal(classifier.network.backbone.state_dict()[first], kernel)


def test_clusters_are_groups_that_lie_apart_and_no_more_than_there_are_photos() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(6), 20, axis=0) + 0.05 * random.normal(size=(120, 6))
    rows = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    centres = cluster_centres(rows, 6, seed=1)
    assert centres.dtype == np.float32
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    nearest = (rows @ centres.T).argmax(axis=1).reshape(6, 20)
    assert all(len(set(group)) == 1 for group in nearest.tolist())
    assert len(set(nearest[:, 0].tolist())) == 6
    assert cluster_centres(rows[:3], 6, seed=1).shape == (3, 6)


def test_a_recipe_with_pseudo_classes_makes_clusters_of_the_teachers_embeddings() -> None:
    network = EmbeddingNetwork("resnet18", InputSpec(resize=32, crop=32))
    teacher = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    recipe = dataclasses.replace(QUICK, pseudo_classes=4)
    agreement = Classifier(network, recipe, 3, teacher).agreement
    assert isinstance(agreement, PseudoClassLoss)
    assert sorted(agreement.centres.argmax(dim=1).tolist()) == [0, 1, 2, 3]
