#!/usr/bin/env python3
"""Writes crates/dari-data/tests/fixtures/modern: small HEIC and AVIF files, and what Pillow decodes of them.

    pip install pillow pillow-heif numpy
    python scripts/modern_fixtures.py
"""
from pathlib import Path

import numpy
import pillow_heif
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "crates/dari-data/tests/fixtures/modern"


def main():
    pillow_heif.register_heif_opener()
    FOLDER.mkdir(parents=True, exist_ok=True)
    flower = Image.open(ROOT / "samples/red-flower.png").convert("RGB").resize((62, 46))
    car = Image.open(ROOT / "samples/blue-car.png").convert("RGB").resize((51, 70))
    flower.save(FOLDER / "full.heic", quality=90, chroma=444)
    turned = Image.Exif()
    turned[0x0112] = 6
    flower.save(FOLDER / "flower.heic", quality=90)
    car.save(FOLDER / "turned.heic", quality=90, exif=turned)
    flower.save(FOLDER / "flower.avif", quality=90, subsampling="4:2:0")
    car.save(FOLDER / "full.avif", quality=90, subsampling="4:4:4", range="full")
    car.save(FOLDER / "limited.avif", quality=90, subsampling="4:2:2", range="limited")
    car.convert("L").save(FOLDER / "grey.avif", quality=90)
    for path in sorted(FOLDER.glob("*.[ha][ev]i[cf]")):
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        picture.save(path.with_suffix(path.suffix + ".png"), optimize=True)
        print(path.name, picture.size, path.stat().st_size, numpy.asarray(picture).mean().round(2))


if __name__ == "__main__":
    main()
