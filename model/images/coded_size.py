"""The size in pixels that the codec inside an AVIF or HEIC is told, for which its decoder allocates memory.

The container declares a size too, and no decoder compares the two before it has decoded. Each of the functions gives
one size for each unit that it reads, NO_SIZE for one that declares none, so that its caller can count them and stop.
"""

import re
from collections.abc import Iterator

ESCAPE = re.compile(rb"\x00\x00\x03")
HEVC_SEQUENCE = 33
"""The type of a unit of HEVC that holds the sizes, a "sequence parameter set"."""
SEQUENCE_BYTES = 256
"""The sizes lie well within so many bytes of such a unit."""
AV1_SEQUENCE, AV1_FRAME_HEADERS = 1, (3, 6, 7)
SELECT = 2

Size = tuple[int, int]
NO_SIZE: Size = (0, 0)


class Bits:
    """A reader of bits, the highest of a byte first; raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """An unsigned number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the photo's codec has a header that is cut off")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned number in Exp-Golomb code, which both codecs use."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("the photo's codec has a broken header")
        return (1 << zeros) - 1 + self.read(zeros)


def config_sizes(config: bytes) -> Iterator[Size]:
    """The sizes that an HEVC picture declares in its `hvcC` property."""
    if len(config) < 23 or config[21] & 3 != 3:
        raise ValueError("the HEIC has no lengths of four bytes")
    position = 23
    for _ in range(config[22]):
        count = int.from_bytes(config[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            length = int.from_bytes(config[position : position + 2], "big")
            yield _hevc_unit(config[position + 2 : position + 2 + min(length, SEQUENCE_BYTES)])
            position += 2 + length
            if position > len(config):
                raise ValueError("the HEIC has a codec's header that is cut off")


def hevc_sizes(payload: bytes) -> Iterator[Size]:
    """The sizes that an HEVC picture declares among the units of its data."""
    position = 0
    while position < len(payload):
        length = int.from_bytes(payload[position : position + 4], "big")
        position += 4
        yield _hevc_unit(payload[position : position + min(length, SEQUENCE_BYTES)])
        position += length


def _hevc_unit(unit: bytes) -> Size:
    """The size that a unit declares, where it is one that does: ITU-T H.265, 7.3.2.2."""
    if len(unit) < 2 or unit[0] >> 1 & 0x3F != HEVC_SEQUENCE:
        return NO_SIZE
    if (unit[0] & 1) << 5 | unit[1] >> 3:
        raise ValueError("the HEIC has layers")
    bits = Bits(ESCAPE.sub(b"\0\0", unit[2:]))
    bits.read(4)
    sub_layers = bits.read(3)
    bits.read(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(sub_layers)]
    bits.read(2 * (8 - sub_layers) if sub_layers else 0)
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:  # the kind of chroma: 4:4:4
        bits.read(1)
    return bits.golomb(), bits.golomb()


def av1_sizes(payload: bytes) -> Iterator[Size]:
    """The sizes that an AV1 picture may have by its headers: the specification of AV1, 5.5 and 5.9."""
    sequence, position = None, 0
    while position < len(payload):
        kind, extended, sized = payload[position] >> 3 & 15, payload[position] & 4, payload[position] & 2
        position += 2 if extended else 1
        length, taken = _leb128(payload[position : position + 8]) if sized else (len(payload) - position, 0)
        position += taken
        body, size = payload[position : position + min(length, SEQUENCE_BYTES)], NO_SIZE
        if kind == AV1_SEQUENCE:
            sequence = _Av1Sequence(Bits(body))
            size = sequence.size
        elif kind in AV1_FRAME_HEADERS:
            if sequence is None:
                raise ValueError("the AVIF has no header of its codec")
            if sequence.has_own_size(Bits(body)):
                size = sequence.largest
        yield size
        position += length
    if sequence is None:
        raise ValueError("the AVIF has no header of its codec")


def _leb128(data: bytes) -> Size:
    """A number in AV1's code of seven bits a byte, and the bytes that it takes."""
    value = 0
    for place, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, place + 1
    raise ValueError("the AVIF has a part without a length")


class _Av1Sequence:
    """What a sequence header says about the sizes of frames, and where a frame header says otherwise."""

    def __init__(self, bits: Bits) -> None:
        bits.read(3 + 1)
        self._still = bits.read(1)
        self._times_bits = 0
        """Bits of the time in each frame header."""
        if self._still:
            bits.read(5)
        else:
            self._read_operating_points(bits)
        width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
        self.size = bits.read(width_bits) + 1, bits.read(height_bits) + 1
        self.largest = 1 << width_bits, 1 << height_bits
        self._number_bits = 0
        self._screen = self._whole_steps = SELECT
        if not self._still:
            if bits.read(1):
                self._number_bits = bits.read(4) + 2 + bits.read(3) + 1
            self._read_tools(bits)

    def _read_operating_points(self, bits: Bits) -> None:
        delay_bits = 0
        if bits.read(1):  # times
            bits.read(64)
            equal = bits.read(1)
            if equal:
                bits.golomb()
            if bits.read(1):  # a model of the decoder
                delay_bits = bits.read(5) + 1
                bits.read(32 + 5)
                self._times_bits = 0 if equal else bits.read(5) + 1
                bits.read(5 if equal else 0)
        delays = bits.read(1)
        for _ in range(bits.read(5) + 1):
            bits.read(12)
            if bits.read(5) > 7:
                bits.read(1)
            if delay_bits and bits.read(1):
                bits.read(2 * delay_bits + 1)
            if delays and bits.read(1):
                bits.read(4)

    def _read_tools(self, bits: Bits) -> None:
        bits.read(3 + 4)
        if bits.read(1):
            bits.read(2)
        if not bits.read(1):
            self._screen = bits.read(1)
        if self._screen and not bits.read(1):
            self._whole_steps = bits.read(1)

    def has_own_size(self, bits: Bits) -> bool:
        """True when the frame header replaces the size of the sequence header."""
        if self._still or bits.read(1):  # it shows a frame again
            return False
        kind, shown = bits.read(2), bits.read(1)
        if shown:
            bits.read(self._times_bits)
        else:
            bits.read(1)
        if kind == 3:
            return True
        if not (kind == 0 and shown):
            bits.read(1)
        bits.read(1)
        screen = bits.read(1) if self._screen == SELECT else self._screen
        if screen and self._whole_steps == SELECT:
            bits.read(1)
        bits.read(self._number_bits)
        return bool(bits.read(1))
