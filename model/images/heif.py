"""AVIF and HEIC: the boxes of the container (ISO/IEC 23008-12), read before libavif or libheif sees them.

The photo is the primary item: one coded picture, or a grid of them. What its decoding touches (the picture or its
tiles, and their transparency) may be no larger than the file declares, in the container and in the codec's own headers.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from model.images.coded_size import NO_SIZE, Size, av1_sizes, config_sizes, hevc_sizes

BRANDS = frozenset(
    (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
OF_AVIF, OF_HEIC = frozenset((b"avif", b"avis")), frozenset(brand for brand in BRANDS if brand.startswith(b"he"))
FORMATS = {b"av01": "AVIF", b"hvc1": "HEIC"}
"""Kind of a coded item -> format."""
SEQUENCES = frozenset((b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"))
"""Brands of files that must hold a film."""

MAX_BOXES = 10_000
MAX_PARTS = 20_000
"""Entries of a file's tables, all together."""
MAX_UNITS = 5000
"""Units of the codec in a file, all together."""
MAX_ITEMS = 1000
"""As in libheif."""
MAX_BRANDS_BYTES = MAX_GRID_BYTES = 256
"""The largest `ftyp` box, and the largest description of a grid. Real files need a tenth of that."""
PADDING = 64
"""A codec may cut this many pixels from a side: its largest block."""

Span = tuple[int, int]


class Box(NamedTuple):
    """A box of a file: its kind, and where it, its content and what follows begin."""

    kind: bytes
    start: int
    body: int
    end: int


class Item(NamedTuple):
    """A picture of a file: its kind, its properties in order, the size they declare, and where its data lie."""

    kind: bytes
    properties: list[Box]
    size: Size
    spans: tuple[Span, ...]


def brands_of(data: bytes) -> set[bytes]:
    """The brands of a file that begins with a box `ftyp`, else none."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), MAX_BRANDS_BYTES)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def is_heic(data: bytes) -> bool:
    """Whether a file's brands say that it is a HEIC; one that does not say it may still hold one."""
    brands = brands_of(data)
    return not brands.isdisjoint(OF_HEIC) and brands.isdisjoint(OF_AVIF)


def read_still(data: bytes) -> tuple[str, int, int, int]:
    """Format, width, height and orientation of a photo: the size is before turning, the orientation a number of EXIF's.

    Raises ValueError for a file that is cut or broken, or whose parts declare other sizes than the whole.
    """
    try:
        return _Container(data).still()
    except (struct.error, IndexError, KeyError) as problem:
        raise ValueError("the AVIF or HEIC has a header that is cut off") from problem


def only_still(data: bytes, format_: str) -> bytes:
    """The file for its decoder: without films, trailing data and other boxes that `read_still` did not look at."""
    brand = b"avif" if format_ == "AVIF" else b"heic"
    boxes, end = _top_boxes(data)
    unseen = [box for box in boxes if box.kind not in (b"ftyp", b"meta", b"mdat", b"free")]
    if not unseen and end == len(data) and data[8:12] == brand:
        return data
    still = bytearray(data[:end])
    still[8:12] = brand
    for at in range(16, boxes[0].end - 3, 4):
        if bytes(still[at : at + 4]) in SEQUENCES:
            still[at : at + 4] = brand
    for box in unseen:
        still[box.start + 4 : box.start + 8] = b"free"
    return bytes(still)


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places; raises ValueError at one that does not fit."""
    count = 0
    while start < end:
        size, kind, body = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        elif size == 0:
            size = end - start
        count += 1
        if start + size > end or body > start + size or count > MAX_BOXES:
            raise ValueError("the AVIF or HEIC has a part that is broken or cut off")
        yield Box(kind, start, body, start + size)
        start += size


def _top_boxes(data: bytes) -> tuple[list[Box], int]:
    """The boxes of a file up to data that are none, and where these begin: phones append notes of their own."""
    found: list[Box] = []
    boxes = _boxes(data, 0, len(data))
    while True:
        try:
            found.append(next(boxes))
        except StopIteration:
            return found, len(data)
        except ValueError:
            end = found[-1].end if found else 0
            if data[end + 4 : end + 8] in (b"ftyp", b"meta", b"mdat") or len(found) >= MAX_BOXES:
                raise
            return found, end


class _Container:
    """The box `meta` of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parts_left, self._units_left = MAX_PARTS, MAX_UNITS
        self._items: dict[int, Item] = {}
        self._largest: dict[Box | tuple[bytes, tuple[Span, ...]], Size] = {}
        """What is coded in places of the file, which pictures may share."""
        top, self._end = _top_boxes(data)
        if _only(top, b"ftyp") is not top[0] or top[0].body != 8 or top[0].end > MAX_BRANDS_BYTES:
            raise ValueError("the AVIF or HEIC does not begin with its kind")
        meta = _only(top, b"meta")
        self._boxes = list(_boxes(data, meta.body + 4, meta.end))
        properties = _only(self._boxes, b"iprp")
        inner = list(_boxes(data, properties.body, properties.end))
        container = _only(inner, b"ipco")
        self._properties = list(_boxes(data, container.body, container.end))
        self._associated = self._read_associations(_only(inner, b"ipma"))
        self._kinds = self._read_kinds(_only(self._boxes, b"iinf"))
        self._spans = self._read_places(_only(self._boxes, b"iloc"))
        self._references = self._read_references()

    def still(self) -> tuple[str, int, int, int]:
        pitm = _only(self._boxes, b"pitm")
        primary = self._number(pitm.body + 4, 4 if self._data[pitm.body] else 2)
        item, tiles = self._item(primary), self._tiles_of(primary)
        kinds = {self._kinds[tile] for tile in tiles} or {item.kind}
        kind = kinds.pop()
        if kinds or kind not in FORMATS:
            raise ValueError("the AVIF or HEIC holds pictures of another codec")
        looked_at = {primary, *tiles}
        looked_at |= {
            source
            for (how, source), targets in self._references.items()
            if how == b"auxl" and not looked_at.isdisjoint(targets)
        }
        looked_at |= {tile for one in looked_at for tile in self._tiles_of(one)}
        self._check_spans({self._item(identity).spans for identity in looked_at})
        for identity in sorted(looked_at):
            self._check(identity, *item.size)
        return FORMATS[kind], *item.size, self._orientation(item)

    def _item(self, identity: int) -> Item:
        if identity not in self._items:
            properties = [self._properties[place - 1] for place in self._associated.get(identity, []) if place]
            sizes = {self._data[box.body + 4 : box.body + 12] for box in properties if box.kind == b"ispe"}
            if len(sizes) != 1:
                raise ValueError("the AVIF or HEIC declares no size, or several")
            width, height = struct.unpack(">II", sizes.pop())
            spans = self._spans.get(identity, ())
            self._items[identity] = Item(self._kinds[identity], properties, (width, height), spans)
        return self._items[identity]

    def _tiles_of(self, identity: int) -> list[int]:
        return self._references.get((b"dimg", identity), []) if self._kinds[identity] == b"grid" else []

    def _check_spans(self, places: set[tuple[Span, ...]]) -> None:
        """Raises ValueError when the data of two pictures overlap and are not the same: each byte is read once."""
        for (_, end), (start, _) in pairwise(sorted(span for spans in places for span in spans)):
            if start < end:
                raise ValueError("the AVIF or HEIC has pictures whose data overlap")

    def _check(self, identity: int, width: int, height: int) -> None:
        """Raises ValueError when a picture is larger, by any header, than what is declared for the whole."""
        item = self._item(identity)
        own_width, own_height = item.size
        if item.kind == b"grid":
            self._check_grid(item, self._tiles_of(identity))
        elif item.kind not in FORMATS:
            raise ValueError("the AVIF or HEIC holds a picture of another codec")
        if own_width > width + PADDING or own_height > height + PADDING:
            raise ValueError("the AVIF or HEIC holds a picture that is larger than the whole")
        if item.kind == b"grid":
            return
        wide, high = self._coded_size(item)
        if wide > own_width + PADDING or high > own_height + PADDING:
            raise ValueError("the AVIF or HEIC holds a picture that is larger than declared")

    def _coded_size(self, item: Item) -> Size:
        """The largest width and height that the codec is told for a picture."""
        if (item.kind, item.spans) not in self._largest:
            sizes_of = av1_sizes if item.kind == b"av01" else hevc_sizes
            self._largest[item.kind, item.spans] = self._largest_of(sizes_of(self._payload(item)))
        sizes = [self._largest[item.kind, item.spans]]
        for box in item.properties if item.kind == b"hvc1" else ():
            if box.kind == b"hvcC":
                if box not in self._largest:
                    self._largest[box] = self._largest_of(config_sizes(self._data[box.body : box.end]))
                sizes.append(self._largest[box])
        if max(sizes) == NO_SIZE:
            raise ValueError("the HEIC has no header of its codec")
        return max(wide for wide, _ in sizes), max(high for _, high in sizes)

    def _largest_of(self, sizes: Iterator[Size]) -> Size:
        width, height = NO_SIZE
        for wide, high in sizes:
            self._units_left -= 1
            if self._units_left < 0:
                raise ValueError("the AVIF or HEIC has too many units of its codec")
            width, height = max(width, wide), max(height, high)
        return width, height

    def _check_grid(self, item: Item, tiles: list[int]) -> None:
        if sum(end - start for start, end in item.spans) > MAX_GRID_BYTES:
            raise ValueError("the AVIF or HEIC has a broken grid")
        spec = self._payload(item)
        rows, columns = spec[2] + 1, spec[3] + 1
        size = struct.unpack_from(">II" if spec[1] & 1 else ">HH", spec, 4)
        sizes = {self._item(tile).size for tile in {*tiles}}
        if size != item.size or len(tiles) != rows * columns or len(tiles) > MAX_ITEMS or len(sizes) != 1:
            raise ValueError("the AVIF or HEIC has a broken grid")
        ((wide, high),) = sizes
        if not (wide * (columns - 1) < size[0] <= wide * columns and high * (rows - 1) < size[1] <= high * rows):
            raise ValueError("the AVIF or HEIC has a broken grid")

    def _payload(self, item: Item) -> bytes:
        if not item.spans or sum(end - start for start, end in item.spans) > len(self._data):
            raise ValueError("the AVIF or HEIC has a picture without data")
        if any(end > self._end or end <= start for start, end in item.spans):
            raise ValueError("the AVIF or HEIC is cut off")
        if len(item.spans) == 1:
            return self._data[slice(*item.spans[0])]
        return b"".join(self._data[start:end] for start, end in item.spans)

    def _orientation(self, item: Item) -> int:
        """Rotations (anticlockwise) and mirrorings in their order, as the number that EXIF has for them together."""
        mirrored, quarters = 0, 0
        for box in item.properties:
            value = self._data[box.body] if box.kind in (b"irot", b"imir") else 0
            if box.kind == b"irot":
                quarters += value & 3
            elif box.kind == b"imir":  # left and right change places; where top and bottom do it is turned besides
                mirrored, quarters = 1 - mirrored, -quarters + (0 if value & 1 else 2)
        return ((1, 8, 3, 6), (2, 5, 4, 7))[mirrored][quarters % 4]

    def _number(self, at: int, size: int) -> int:
        if at + size > len(self._data):
            raise ValueError("the AVIF or HEIC has a header that is cut off")
        return int.from_bytes(self._data[at : at + size], "big")

    def _read_associations(self, box: Box) -> dict[int, list[int]]:
        """Item -> its properties' numbers, from 1."""
        wide, long = self._data[box.body + 3] & 1, self._data[box.body]
        at, found = box.body + 8, dict[int, list[int]]()
        for _ in range(self._counted(self._number(box.body + 4, 4))):
            identity = self._number(at, 4 if long else 2)
            at += 4 if long else 2
            count, size = self._counted(self._data[at]), 2 if wide else 1
            mask = 0x7FFF if wide else 0x7F
            if identity in found:
                raise ValueError("the AVIF or HEIC gives an item its properties twice")
            found[identity] = [self._number(at + 1 + size * place, size) & mask for place in range(count)]
            at += 1 + size * count
        return found

    def _read_kinds(self, box: Box) -> dict[int, bytes]:
        """Item -> its kind."""
        first = box.body + (8 if self._data[box.body] else 6)
        found: dict[int, bytes] = {}
        for entry in _boxes(self._data, first, box.end):
            version = self._data[entry.body]
            if entry.kind == b"infe" and version >= 2:
                size = 2 if version == 2 else 4
                identity, at = self._number(entry.body + 4, size), entry.body + 4 + size + 2
                if identity in found or len(found) >= MAX_ITEMS:
                    raise ValueError("the AVIF or HEIC has an item twice, or too many items")
                found[identity] = self._data[at : at + 4]
        return found

    def _read_places(self, box: Box) -> dict[int, tuple[Span, ...]]:
        """Item -> where its data lie in the file; those that lie elsewhere are left out."""
        version, sizes = self._data[box.body], self._number(box.body + 4, 2)
        offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_size = sizes & 15 if version else 0
        if not {offset_size, length_size, base_size, index_size} <= {0, 4, 8}:
            raise ValueError("the AVIF or HEIC has a broken table of its data")
        inside = [one for one in self._boxes if one.kind == b"idat"]
        wide = 4 if version == 2 else 2
        at, found = box.body + 6 + wide, dict[int, tuple[Span, ...]]()
        for _ in range(self._counted(self._number(box.body + 6, wide))):
            identity = self._number(at, wide)
            at += wide
            method = self._number(at, 2) & 15 if version else 0
            at += 2 if version else 0
            elsewhere, base = self._number(at, 2), self._number(at + 2, base_size)
            at += 2 + base_size
            extents = self._counted(self._number(at, 2))
            at += 2
            spans: list[Span] = []
            for _ in range(extents):
                at += index_size
                start = base + self._number(at, offset_size)
                length = self._number(at + offset_size, length_size)
                at += offset_size + length_size
                start += inside[0].body if method == 1 and len(inside) == 1 else 0
                spans.append((start, start + length))
            if identity in found:
                raise ValueError("the AVIF or HEIC has an item's data twice")
            found[identity] = tuple(spans) if not elsewhere and method in (0, 1) else ()
        return found

    def _read_references(self) -> dict[tuple[bytes, int], list[int]]:
        """How an item refers to others: kind and item -> the others."""
        found: dict[tuple[bytes, int], list[int]] = {}
        for box in self._boxes:
            if box.kind != b"iref":
                continue
            size = 4 if self._data[box.body] else 2
            for one in _boxes(self._data, box.body + 4, box.end):
                count = self._counted(1 + self._number(one.body + size, 2)) - 1
                at = one.body + size + 2
                others = found.setdefault((one.kind, self._number(one.body, size)), [])
                others += [self._number(at + size * place, size) for place in range(count)]
        return found

    def _counted(self, parts: int) -> int:
        """So many parts, counted; raises ValueError when the file has too many."""
        self._parts_left -= parts
        if self._parts_left < 0:
            raise ValueError("the AVIF or HEIC has too many parts")
        return parts


def _only(boxes: list[Box], kind: bytes) -> Box:
    """The one box of a kind; raises ValueError where there is none, or another."""
    found = [box for box in boxes if box.kind == kind]
    if len(found) != 1:
        raise ValueError(f"the AVIF or HEIC has {len(found)} parts {kind.decode()!r} for one")
    return found[0]
