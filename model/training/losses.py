"""The losses: a normalised classification head, and distillation from a teacher."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.types import Embeddings

SCALE = 16.0
SIMILARITY_TEMPERATURE = 0.1
CLUSTER_TEMPERATURE = 0.05


class NormalisedHead(nn.Module):
    """Logits as scaled cosines to one proxy a class (Zhai & Wu, "Classification is a Strong Baseline for Deep Metric
    Learning", BMVC 2019), so that training optimises what the search compares.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim) / dim**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, classes)."""
        return SCALE * F.linear(F.normalize(features.float(), dim=1), F.normalize(self.weight, dim=1))


class TeacherLoss(nn.Module):
    """The distance of a student from a teacher with known embeddings: by photo, and by pairs of photos.

    The first part is 1 - cosine, after a linear map into the teacher's space. The second is the divergence between the
    rows of the two cosine matrices of a batch (softmax, temperature 0.1, without the diagonal), as in Tejankar et al.,
    "ISD", ICCV 2021: the student's own space, which is searched, learns the teacher's neighbourhoods.
    """

    def __init__(self, dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, teacher_dim)

    def forward(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Features (B, D) and teacher embeddings (B, T), unit rows -> the mean loss; fewer than three have no pairs."""
        cosines = F.cosine_similarity(self.projection(features).float(), teacher)
        if len(features) < 3:
            return (1 - cosines).mean()
        student = F.normalize(features.float(), dim=1)
        wanted = _neighbours(teacher @ teacher.T)
        found = _neighbours(student @ student.T)
        pairs = F.kl_div(found.log_softmax(dim=1), wanted.softmax(dim=1), reduction="batchmean")
        return (1 - cosines).mean() + pairs


class PseudoClassLoss(nn.Module):
    """Cross-entropy with clusters of a teacher's embeddings as classes (Caron et al., "Deep Clustering", ECCV 2018).

    A photo belongs to each cluster as a softmax over the teacher's cosines to the centres says, temperature 0.05.
    """

    centres: Tensor

    def __init__(self, dim: int, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)  # a resumed run keeps its clusters
        self.head = NormalisedHead(dim, len(centres))

    def forward(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Features (B, D) and teacher embeddings (B, T), unit rows -> the mean loss."""
        wanted = (teacher @ self.centres.T / CLUSTER_TEMPERATURE).softmax(dim=1)
        return F.cross_entropy(self.head(features), wanted)


def cluster_centres(rows: Embeddings, count: int, seed: int) -> Embeddings:
    """Centres of k-means: float32 (n, D), unit rows -> float32 (count, D), unit rows; no more than there are rows."""
    from sklearn.cluster import KMeans  # only runs with pseudo-classes need it

    centres = KMeans(min(count, len(rows)), random_state=seed).fit(rows).cluster_centers_
    unit: Embeddings = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    return unit


def _neighbours(cosines: Tensor) -> Tensor:
    """(B, B) -> (B, B - 1): each row without its own photo, divided by the temperature."""
    count = len(cosines)
    others = ~torch.eye(count, dtype=torch.bool, device=cosines.device)
    return cosines[others].view(count, count - 1) / SIMILARITY_TEMPERATURE
