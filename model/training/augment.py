"""Random changes of training photos; all randomness comes from the generator that is passed in."""

import math

import numpy as np
from PIL import Image, ImageEnhance

from model.training.recipes import Recipe
from model.types import Pixels

CROP_ASPECT = (3 / 4, 4 / 3)
ERASED_AREA = (0.02, 0.2)


def random_crop(photo: Pixels, crop: int, random: np.random.Generator, min_area: float = 0.08) -> Pixels:
    """RandomResizedCrop and horizontal flip as torchvision defines them: uint8 (H, W, 3) -> uint8 (crop, crop, 3)."""
    left, top, width, height = _random_box(photo.shape[1], photo.shape[0], random, min_area)
    region = Image.fromarray(photo[top : top + height, left : left + width])
    resized = np.asarray(region.resize((crop, crop), Image.Resampling.BILINEAR))
    return (resized[:, ::-1] if random.random() < 0.5 else resized).copy()


def _random_box(
    width: int, height: int, random: np.random.Generator, min_area: float, max_area: float = 1
) -> tuple[int, int, int, int]:
    """(left, top, width, height): ten attempts, then the largest central box within the aspect limits."""
    for _ in range(10):
        area = width * height * random.uniform(min_area, max_area)
        aspect = math.exp(random.uniform(math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(random.integers(0, width - box_width + 1))
            return left, int(random.integers(0, height - box_height + 1)), box_width, box_height
    box_width = min(width, round(height * CROP_ASPECT[1]))
    box_height = min(height, round(width / CROP_ASPECT[0]))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


def change_colours(crop: Pixels, random: np.random.Generator, recipe: Recipe) -> Pixels:
    """Brightness, contrast, saturation and hue by the recipe's `jitter` and `hue`; a share `grey` loses its colour."""
    image = Image.fromarray(crop)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(1 - recipe.jitter, 1 + recipe.jitter))
    if recipe.hue:
        image = turn_hue(image, random.uniform(-recipe.hue, recipe.hue))
    if random.random() < recipe.grey:
        image = image.convert("L").convert("RGB")
    return np.asarray(image).copy()


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turns all hues by `turn` of the colour circle (-0.5 to 0.5), as torchvision's `adjust_hue` does for Pillow."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + int(turn * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def erase(crop: Pixels, random: np.random.Generator) -> Pixels:
    """Fills a rectangle with noise (Zhong et al., "Random erasing data augmentation", AAAI 2020)."""
    left, top, width, height = _random_box(crop.shape[1], crop.shape[0], random, *ERASED_AREA)
    erased = crop.copy()
    erased[top : top + height, left : left + width] = random.integers(0, 256, (height, width, 3), np.uint8)
    return erased
