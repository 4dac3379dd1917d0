"""A small JPEG encoder for what Pillow does not write: any sampling factors, several scans, RGB and YCCK.

It is for tests only: quality of the picture is of no concern, legality of the file is.
"""

import numpy as np

ZIGZAG = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14,
    21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53,
    60, 61, 54, 47, 55, 62, 63,
]


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + bytes(content)


def dct_matrix():
    k, n = np.mgrid[0:8, 0:8]
    matrix = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


class Bits:
    def __init__(self):
        self.out, self.held, self.count = bytearray(), 0, 0

    def put(self, value, length):
        self.held = (self.held << length) | (value & ((1 << length) - 1))
        self.count += length
        while self.count >= 8:
            self.count -= 8
            byte = (self.held >> self.count) & 255
            self.out.append(byte)
            if byte == 255:
                self.out.append(0)
        self.held &= (1 << self.count) - 1

    def flush(self):
        if self.count:
            self.put((1 << (8 - self.count)) - 1, 8 - self.count)


# Flat codes: every symbol has the same length, 8 bits for AC and 5 for DC, which leaves the all-ones code free.
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [r << 4 | s for r in range(16) for s in range(1, 11)] + [r << 4 for r in range(16)]


def huffman_segments(long_codes):
    """Tables whose codes have 5 and 8 bits, or, to reach past any lookup, 12 and 15."""
    dc_length, ac_length = (12, 15) if long_codes else (5, 8)
    out = b""
    for klass, symbols, length in ((0, DC_SYMBOLS, dc_length), (1, AC_SYMBOLS, ac_length)):
        counts = [0] * 16
        counts[length - 1] = len(symbols)
        out += segment(0xC4, bytes([klass << 4]) + bytes(counts) + bytes(symbols))
    return out, dc_length, ac_length


def encode(planes, size, factors, *, quant=8, ids=None, scans=None, restart=0, adobe=None, jfif=False,
           progressive=False, long_codes=False, extended=False, wide_quant=False):
    """planes: float arrays of full size; factors: (h, v) of each; scans: lists of component numbers."""
    width, height = size
    ids = ids or list(range(1, len(planes) + 1))
    max_h, max_v = max(f[0] for f in factors), max(f[1] for f in factors)
    mcus = -(-width // (8 * max_h)), -(-height // (8 * max_v))
    matrix = dct_matrix()
    steps = np.clip(quant * (1 + np.add.outer(np.arange(8), np.arange(8)) / 4), 1, 255).astype(int)
    blocks = []
    for plane, (h, v) in zip(planes, factors):
        rows, columns = mcus[1] * v * 8, mcus[0] * h * 8
        y = np.minimum((np.arange(rows) * max_v) // v, height - 1)
        x = np.minimum((np.arange(columns) * max_h) // h, width - 1)
        grid = plane[np.ix_(y, x)].reshape(rows // 8, 8, columns // 8, 8).transpose(0, 2, 1, 3) - 128.0
        coefficients = np.rint(matrix @ grid @ matrix.T / steps).astype(int)
        blocks.append(coefficients.reshape(rows // 8, columns // 8, 64)[:, :, ZIGZAG])
    out = b"\xff\xd8"
    if jfif:
        out += segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if adobe is not None:
        out += segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    zigzag_steps = steps.reshape(64)[ZIGZAG]
    if wide_quant:
        out += segment(0xDB, b"\x10" + b"".join(int(s).to_bytes(2, "big") for s in zigzag_steps))
    else:
        out += segment(0xDB, b"\0" + bytes(int(s) for s in zigzag_steps))
    spec = b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in zip(ids, factors))
    sof = 0xC2 if progressive else 0xC1 if extended else 0xC0
    out += segment(sof, b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(ids)]) + spec)
    tables, dc_length, ac_length = huffman_segments(long_codes)
    out += tables
    if restart:
        out += segment(0xDD, restart.to_bytes(2, "big"))

    def order(components):
        """MCUs as lists of (component, row, column)."""
        if len(components) == 1:
            c = components[0]
            h, v = factors[c]
            wide, high = -(-width * h // (8 * max_h)), -(-height * v // (8 * max_v))
            return [[(c, y, x)] for y in range(high) for x in range(wide)]
        return [
            [(c, my * factors[c][1] + y, mx * factors[c][0] + x)
             for c in components for y in range(factors[c][1]) for x in range(factors[c][0])]
            for my in range(mcus[1]) for mx in range(mcus[0])
        ]

    def coded(value):
        length = int(abs(value)).bit_length()
        return length, value if value >= 0 else value + (1 << length) - 1

    def scan(components, first, last, low=0, high=0):
        nonlocal out
        spec = b"".join(bytes([ids[c], 0]) for c in components)
        out += segment(0xDA, bytes([len(components)]) + spec + bytes([first, last, high << 4 | low]))
        bits, before = Bits(), [0] * len(planes)
        for number, mcu in enumerate(order(components)):
            if restart and number and number % restart == 0:
                bits.flush()
                bits.out += bytes([0xFF, 0xD0 + (number // restart - 1) % 8])
                before = [0] * len(planes)
            for c, y, x in mcu:
                block = blocks[c][y, x]
                if first == 0 and high:
                    bits.put(int(block[0]) >> low, 1)
                elif first == 0:
                    value = int(block[0]) >> low
                    length, extra = coded(value - before[c])
                    before[c] = value
                    bits.put(DC_SYMBOLS.index(length), dc_length)
                    bits.put(extra, length)
                run = 0
                for k in range(max(first, 1), last + 1):
                    value = int(block[k])
                    if value == 0:
                        run += 1
                        continue
                    while run > 15:
                        bits.put(AC_SYMBOLS.index(0xF0), ac_length)
                        run -= 16
                    length, extra = coded(value)
                    bits.put(AC_SYMBOLS.index(run << 4 | length), ac_length)
                    bits.put(extra, length)
                    run = 0
                if last > 0 and run:
                    bits.put(AC_SYMBOLS.index(0), ac_length)
        bits.flush()
        out += bytes(bits.out)

    everything = list(range(len(planes)))
    if progressive:
        scan(everything, 0, 0, low=1)
        for c in everything:
            scan([c], 1, 5)
            scan([c], 6, 63)
        scan(everything, 0, 0, low=0, high=1)
    else:
        for components in scans or [everything]:
            scan(components, 0, 63)
    return out + b"\xff\xd9"
