"""Makes crates/dari-data/tests/fixtures/jpeg: small JPEGs and, in expected.txt, what Pillow decodes them to.

Run with a Python that has Pillow (13 with libjpeg-turbo 3.2 made the files at hand) and numpy:
    python scripts/jpeg_fixtures.py
Each line of expected.txt: file, width, height, components, then the CRC-32 of the RGB bytes at 1/8, 1/4, 1/2
and 1/1.
"""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from jpeg_encoder import encode

# Else Pillow fails to write progressive files that outgrow its guess.
ImageFile.MAXBLOCK = 1 << 24

FIXTURES = Path(__file__).parent.parent / "crates/dari-data/tests/fixtures/jpeg"


def scaled(data, denominator):
    """What Pillow decodes at a scale: as `Image.draft` sets it, whose own rule never goes below the size
    asked for, so that it could not be had for pictures smaller than a block."""
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    [tile] = image.tile
    size = -(-width // denominator), -(-height // denominator)
    image._size = size
    image.tile = [ImageFile._Tile(tile.codec_name, (0, 0, *size), tile.offset, tile.args)]
    image.decoderconfig = (denominator, 0)
    return image.convert("RGB")


def noise(rng, width, height, exponent):
    """Noise whose spectrum falls as 1 / f^exponent, like a photograph's at 1, over 0 to 255, three channels."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    weight = 1 / np.maximum(np.hypot(fy, fx), 1 / max(width, height)) ** exponent
    out = []
    base = rng.standard_normal((height, width))
    for _ in range(3):
        plane = np.fft.irfft2(np.fft.rfft2(base * 0.7 + rng.standard_normal((height, width)) * 0.5) * weight,
                              s=(height, width))
        plane = plane - plane.mean()
        out.append(128 + plane / (plane.std() + 1e-9) * 60)
    return np.clip(np.stack(out, -1), 0, 255).astype(np.uint8)


def gradient(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 7 % 256], -1).astype(np.uint8)


def edges(rng, width, height):
    """Hard-edged boxes of saturated colours, whose ringing leaves the range of samples."""
    out = np.zeros((height, width, 3), np.uint8)
    for _ in range(30):
        x, y = rng.integers(0, width), rng.integers(0, height)
        out[y:y + rng.integers(1, 40), x:x + rng.integers(1, 40)] = rng.choice([0, 255], 3)
    return out


def jpeg(pixels, mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def without_tables(data):
    """The file less its Huffman tables, as Motion JPEG has it."""
    out, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2:at + 4], "big")
        out += data[at:end] if data[at + 1] != 0xC4 else b""
        at = end
    return out + data[at:]


def fixtures():
    rng = np.random.default_rng(7)
    photo = {size: noise(rng, *size, 1.0) for size in [(1, 1), (7, 9), (16, 16), (97, 130), (400, 300), (33, 5)]}
    white = rng.integers(0, 256, (48, 61, 3), dtype=np.uint8)
    boxes = edges(rng, 97, 130)
    yield "photo-420", jpeg(photo[400, 300], quality=30, optimize=True)
    yield "photo-420-progressive", jpeg(photo[400, 300], quality=40, progressive=True)
    for subsampling in ["4:4:4", "4:2:2", "4:2:0"]:
        name = subsampling.replace(":", "")
        for (width, height), pixels in photo.items():
            if width < 400:
                yield f"{width}x{height}-{name}", jpeg(pixels, quality=75, subsampling=subsampling, optimize=True)
        yield f"edges-{name}", jpeg(boxes, quality=95, subsampling=subsampling, optimize=True)
        yield f"progressive-{name}", jpeg(photo[97, 130], quality=80, subsampling=subsampling, progressive=True)
        yield f"white-{name}", jpeg(white, quality=98, subsampling=subsampling, optimize=True)
    yield "coarse", jpeg(photo[97, 130], quality=30, optimize=True)
    yield "gradient", jpeg(gradient(97, 130), quality=90, optimize=True)
    yield "restart-blocks", jpeg(photo[97, 130], quality=70, restart_marker_blocks=3)
    yield "restart-rows", jpeg(photo[97, 130], quality=40, restart_marker_rows=1, subsampling="4:4:4")
    yield "restart-progressive", jpeg(photo[97, 130], quality=70, restart_marker_blocks=5, progressive=True)
    yield "restart-small", jpeg(photo[33, 5], quality=60, restart_marker_blocks=1, optimize=True)
    yield "progressive-small", jpeg(photo[33, 5], quality=70, progressive=True)
    yield "grey", jpeg(photo[97, 130], "L", quality=80)
    yield "grey-progressive", jpeg(photo[97, 130], "L", quality=80, progressive=True)
    yield "grey-1x1", jpeg(photo[1, 1], "L", quality=80, optimize=True)
    yield "cmyk", jpeg(photo[97, 130], "CMYK", quality=40, optimize=True)
    yield "cmyk-progressive", jpeg(photo[33, 5], "CMYK", quality=80, progressive=True)
    yield "no-tables", without_tables(jpeg(photo[97, 130], quality=60))
    yield "keep-rgb", jpeg(photo[33, 5], quality=85, keep_rgb=True)

    size = 43, 29
    planes = [noise(rng, *size, 0.8)[:, :, 0].astype(float) for _ in range(4)]
    three, one = planes[:3], (1, 1)
    for name, factors in {
        "411": [(4, 1), one, one],
        "440": [(1, 2), one, one],
        "410": [(4, 2), one, one],
        "441": [(1, 4), one, one],
        "421": [(2, 2), (1, 2), (2, 1)],
        "244": [(2, 1), (2, 1), (2, 1)],
        "cb-finer": [one, (2, 2), one],
        "odd-3": [(3, 1), one, one],
    }.items():
        yield f"own-{name}", encode(three, size, factors)
        yield f"own-{name}-progressive", encode(three, size, factors, progressive=True)
    twice = [(2, 2), one, one]
    yield "own-three-scans", encode(three, size, twice, scans=[[0], [1], [2]], restart=2)
    yield "own-two-scans", encode(three, size, twice, scans=[[1, 2], [0]])
    tiny = 13, 11
    yield "tiny-411-progressive", encode(three, tiny, [(4, 1), one, one], quant=40, progressive=True)
    yield "tiny-three-scans", encode(three, tiny, twice, quant=40, scans=[[0], [1], [2]], restart=2)
    yield "own-adobe-rgb", encode(three, size, [one] * 3, adobe=0)
    yield "own-ids-rgb", encode(three, size, [one] * 3, ids=list(b"RGB"))
    yield "own-jfif-ids-rgb", encode(three, size, [one] * 3, ids=list(b"RGB"), jfif=True)
    yield "own-adobe-ycc", encode(three, size, twice, adobe=1)
    yield "own-ycck", encode(planes, size, [(2, 2), one, one, (2, 2)], adobe=2)
    yield "own-cmyk-plain", encode(planes, size, [one] * 4)
    yield "own-long-codes", encode(three, size, twice, long_codes=True, extended=True, wide_quant=True)
    yield "own-grey-2x2", encode(planes[:1], size, [(2, 2)], restart=7)


def main():
    FIXTURES.mkdir(exist_ok=True)
    for old in FIXTURES.glob("*.jpg"):
        old.unlink()
    lines = []
    for name, data in fixtures():
        (FIXTURES / f"{name}.jpg").write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            components = image.layers
        crcs = [f"{zlib.crc32(scaled(data, d).tobytes()):08x}" for d in (8, 4, 2, 1)]
        lines.append(" ".join([name, str(width), str(height), str(components), *crcs]))
    (FIXTURES / "expected.txt").write_text("\n".join(lines) + "\n")
    total = sum(path.stat().st_size for path in FIXTURES.iterdir())
    print(len(lines), "files,", total, "bytes")


if __name__ == "__main__":
    main()
