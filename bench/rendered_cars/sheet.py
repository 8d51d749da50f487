"""A contact sheet: many small photos in one picture, of several names, headings and times of day."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from bench.rendered_cars.plan import HEADINGS, TIMES, Shot, Split, Time

if TYPE_CHECKING:
    from bench.rendered_cars.catalogue import Car

COLUMNS, ROWS = 6, 5
THUMB = (256, 192)
MAX_BYTES = 400_000


def contact_sheet(cars: "Sequence[Car]", split: Split, seed: int, progress: Callable[[int, int], None]) -> bytes:
    """A JPEG of at most `MAX_BYTES` with `COLUMNS` x `ROWS` photos, each of another car."""
    from bench.rendered_cars.assembly import build
    from bench.rendered_cars.studio import Studio

    studio = Studio()
    sheet = Image.new("RGB", (COLUMNS * THUMB[0], ROWS * THUMB[1]))
    count = COLUMNS * ROWS
    for place in range(count):
        number = place * len(cars) // count
        # Seven is coprime to 24: neighbours differ in heading, and each row has all times of day.
        shot = Shot(split, number, HEADINGS[place * 7 % len(HEADINGS)], TIMES[place % len(TIMES)], "")
        studio.enter(build(cars[number], lamps_lit=shot.time is Time.NIGHT))
        photo = Image.open(io.BytesIO(studio.photo(shot.heading, shot.time, shot.entropy(seed))))
        row, column = divmod(place, COLUMNS)
        sheet.paste(photo.resize(THUMB, Image.Resampling.LANCZOS), (column * THUMB[0], row * THUMB[1]))
        progress(place + 1, count)
    for quality in range(90, 40, -5):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()
