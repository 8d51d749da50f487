"""Random changes of training photos, by torchvision; all randomness comes from torch's global generator."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from model.training.recipes import Recipe
from model.types import Pixels

ASPECT = (3 / 4, 4 / 3)
ERASED_AREA = (0.02, 0.2)


def augment(photo: Pixels, side: int, recipe: Recipe) -> Pixels:
    """Crops, mirrors, changes colours and erases as the recipe says: uint8 (H, W, 3) -> uint8 (side, side, 3)."""
    changes = [
        v2.RandomResizedCrop(side, (recipe.crop_area, 1), ASPECT),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter, recipe.hue),
        v2.RandomGrayscale(recipe.grey),
    ]
    crop = np.array(v2.Compose(changes)(Image.fromarray(photo)))
    if torch.rand(()) < recipe.erase:
        top, left, height, width = v2.RandomResizedCrop.get_params(Image.fromarray(crop), ERASED_AREA, ASPECT)
        # With noise, as Zhong et al., "Random erasing data augmentation" (AAAI 2020), found best.
        crop[top : top + height, left : left + width] = torch.randint(0, 256, (height, width, 3))
    return crop
