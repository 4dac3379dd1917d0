"""Captions of Open Clip Art's drawings, from what the files say of themselves."""

import html
import re
from collections import Counter
from functools import cache
from pathlib import Path

from emoji_captions import UNCOUNTED, pick
from emoji_labels import head_of

SKIPPED_FOLDERS = ("shapes", "computer", "special/gradients")
# Names that mean something else here than as an emoji.
HOMONYMS = ("bug", "cigarette", "shirt", "white flower", "smiling face")
TEMPLATES = ("a drawing of {}", "a picture of {}", "clip art of {}")
TEMPLATES_KO = ("{} 그림",)

# Titles of whole collections: the file's name says more. Found by how often they occur, and these.
COLLECTIONS = {"various cliparts", "etiquette icons", "r16 sibmission", "homes clipart", "road signs", "svg road signs",
               "aiga symbol signs", "australian maps", "map symbols", "advertising", "card", "people"}
# Words that say nothing of what is drawn.
NOISE = {"clipart", "cliparts", "svg", "png", "icon", "icons", "image", "drawing", "vector", "vectorized", "bw", "b",
         "w", "contour", "outline", "aj", "mo", "md", "rollandin", "francesco", "architetto", "collant", "rpswb",
         "openclipart", "ganson", "ii", "generic", "simple", "color", "colour", "illustration", "large", "clip", "art",
         "style"}
# Keywords that name no thing: the package's bookkeeping, moods, misspellings, and words far from the picture.
NO_KEYWORD = {"activities", "activity", "airtravel", "appicon", "automne", "bin", "bordered", "breizh", "bright",
              "clean", "computer", "cut", "dead", "design", "destroy", "dirigeur", "edison", "experiences", "explode",
              "famous", "fast", "felini", "fen", "fenland", "festive", "froggies", "froggy", "fun", "hash", "hole",
              "hot", "icon", "icons", "idea", "ideas", "ikurrina", "intelligence", "italy", "led", "linux", "logo",
              "logos", "lumen", "mailbox symbol", "map symbol", "mapsym", "mascot", "menu", "miscellany", "model",
              "moon space", "musicstuff", "musicsym", "noze", "ooze", "openclipart", "ornamental", "paper symbol",
              "play", "political movement", "quagmire", "quick", "recreation", "religholiday", "roadtravel", "rubish",
              "sexy", "shape", "shot", "sign", "silhouet", "simple", "skewl", "slough", "smart", "special",
              "subnational", "sudden", "symbol", "symbols", "think", "thought", "tidal", "tux", "ukraine map",
              "unsorted", "usholiday", "vegitable", "weathersym", "white", "xmas"}
SPELT = {"bodypart": "body part", "handphone": "mobile phone", "icecream": "ice cream", "latinamerica": "latin america",
         "northamerica": "north america", "roadsign": "road sign", "signalflag": "signal flag", "stickmen": "stick men",
         "toothedwhale": "whale", "unitedstates": "united states", "wilflife": "wildlife"}
# First words, and last ones, that take no article.
NUMBERS = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "half"}
NO_ARTICLE = {"people", "dice", "bacon", "lasagna", "sauce", "cutlery", "patchwork", "o'clock", "salami", "garlic",
              "blood", "parchment", "toast", "gardening", "jewelry", "cattle", "equipment", "soup", "pasta",
              "pantyhose", "fries", "lightning", "earth", "lemonade", "milk", "coffee", "beer", "poison", "sky",
              "sugar"}
SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}
RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king", "2": "two", "3": "three", "4": "four", "5": "five",
         "6": "six", "7": "seven", "8": "eight", "9": "nine", "10": "ten"}


def said(data):
    """Title, keywords and licence of an SVG file, as written in its metadata."""
    block = re.search(rb"<(?:\w+:)?metadata.*?</(?:\w+:)?metadata>", data, re.S)
    text = block.group(0).decode("utf-8", "replace") if block else ""
    plain = lambda part: " ".join(html.unescape(html.unescape(part)).split())
    title = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", text, re.S)
    subject = re.search(r"<dc:subject[^>]*>(.*?)</dc:subject>", text, re.S)
    keywords = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", subject.group(1), re.S) if subject else []
    free = bool(re.search(r"icense[^>]*rdf:(?:resource|about)=\"[^\"]*public ?domain", text, re.I))
    return {"title": plain(title.group(1)) if title else "", "keywords": [plain(k) for k in keywords if k.strip()],
            "public_domain": free}


def spoken(text):
    """A title or a file's name in lower-case words, without numbers, brackets and what says nothing."""
    text = re.sub(r"^clipart by .*? - ", "", text, flags=re.I)
    text = re.sub(r"\([^)]*\)", " ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text.replace(".svg", " "))
    text = re.sub(r"[_/|\"!?#:;,.\\*+~=]+|(?<!\w)-+|-+(?!\w)", " ", text)
    text = re.sub(r"(?<=[A-Za-z])\d+\b|\b\d+\w?\b", " ", text)
    words = [word.strip("-'") for word in text.lower().replace("-", " ").split()]
    kept = [word for word in words if word and word not in NOISE]
    return " ".join(kept)


def fixed_name(path):
    """Names that the folder and the file's name spell by a rule, or an empty string."""
    folder, _, stem = path.rpartition("/")
    card = re.fullmatch(r"(?:bordered|ornamental|simple|white)_(\w+)_(\w+)", stem)
    if "games/cards" in folder and card:
        suit, rank = card.groups()
        if suit in SUITS and rank in RANKS:
            return f"{RANKS[rank]} of {SUITS[suit]} playing card"
        return "joker playing card"
    if folder.endswith("cardbacks"):
        return "back of a playing card"
    led = re.fullmatch(r"led_(circle|rectangular|rounded|square|triangular)_(?:[hv12]_)?(\w+)", stem)
    if led:
        shape = {"circle": "round", "rounded": "rounded rectangular"}.get(led.group(1), led.group(1))
        return f"{led.group(2)} {shape} LED light"
    if stem.startswith("aiga_"):
        return spoken(stem[5:]) + " sign"
    if stem.startswith("pattern-"):
        return spoken(stem[8:]) + " pattern"
    if stem.startswith("signalflag_"):
        return f"maritime signal flag {stem[11:].replace('_', ' ')}"
    if stem.startswith("semaphore_"):
        return f"semaphore signal {stem[10:]}"
    if folder.endswith("homes") and re.fullmatch(r"(pink)?home\d*(-simple)?", stem):
        return "pink house" if stem.startswith("pink") else "house"
    return ""


def collections(drawings):
    """Titles that many files of different names share, in lower case."""
    seen = {}
    for path, drawing in drawings.items():
        title = drawing["title"].lower()
        stem = spoken(path.rpartition("/")[2])[:8]
        words = spoken(drawing["title"])
        if not stem.startswith(words[:6]):
            seen.setdefault(title, set()).add(stem)
    return {title for title, stems in seen.items() if len(stems) >= 3} | COLLECTIONS


def by_hand():
    """clipart_names.tsv: the name as cleaned, or a picture's path, and what is drawn ("-": nothing to be said)."""
    table = Path(__file__).with_name("clipart_names.tsv")
    lines = table.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


# Words of a land's name that keep their small letter.
SMALL = {"of", "the", "and", "de", "la", "et", "val", "du", "d'azur", "pas"}


def flag_name(path, title):
    """The name of a drawing of the flags' folder."""
    folder, _, stem = path.rpartition("/")
    text = re.sub(r"^clipart by .*? - ", "", title, flags=re.I).replace("_", " ")
    text = text if len(text) > 2 else re.sub(r"_\d*$|\d", "", stem).replace("_", " ").strip()
    parts = [part for part in re.split(r"\s+-\s+|^usa | historic$", text) if part.strip()]
    land = re.sub(r"\([^)]*\)|\b\d[\d-]*\b|\b(official|national|flags?|city flag|historic|alternate)\b|[,.].*$", " ",
                  parts[-1], flags=re.I)
    land = re.sub(r"^\s*(the|of|\s)+\b", "", land).split()
    land = " ".join(word if not word.islower() or word in SMALL else word.capitalize() for word in land)
    if "/pirates" in folder:
        return f"pirate flag of {land.removeprefix('Pirate ')}"
    return f"{'historic ' if '/historic' in folder else ''}flag of {land}" if land else ""


def name_of(path, drawing, shared, hand):
    """What is drawn, or an empty string."""
    folder, _, stem = path.rpartition("/")
    if path in hand:
        name = hand[path]
    elif fixed_name(path):
        name = hand.get(fixed_name(path), fixed_name(path))
    elif apart(path, "") == "flags":
        name = flag_name(path, drawing["title"])
    else:
        title = drawing["title"].lower()
        name = spoken(drawing["title"])
        if not name or {title, title.replace("_", " ")} & shared or title.startswith("clipart by"):
            name = spoken(stem)
        name = hand.get(name, name)
        if len(re.sub(r"[^a-z]", "", name)) < 3:  # letters and numbers only: the folder's name, and "-" stays
            name = name if name == "-" else folder.rpartition("/")[2].replace("_", " ").rstrip("s")
    return "" if name == "-" else name


def as_words(keyword):
    return keyword.lower().replace("_", " ").strip()


def frequent(drawings):
    """Keywords of three drawings or more: rarer ones are mostly misspelt, foreign or private."""
    seen = Counter(word for drawing in drawings.values() for word in set(map(as_words, drawing["keywords"])))
    return {word for word, times in seen.items() if times >= 3}


def keywords_of(drawing, name, frequent):
    """The file's keywords that may name something in the picture, in the file's order."""
    kept = []
    for keyword in drawing["keywords"]:
        word = as_words(keyword)
        if word not in frequent or word in NO_KEYWORD or not re.fullmatch(r"[a-z]{3,}( [a-z]+)?", word):
            continue
        word = SPELT.get(word, word)
        if word not in name.lower() and word not in kept:
            kept.append(word)
    return kept


@cache
def in_tuxpaint():
    """clipart_in_tuxpaint.txt: drawings that Tux Paint's stamps hold too, found by comparing the pictures. Whoever
    measures on the stamps must not train on them."""
    return frozenset(Path(__file__).with_name("clipart_in_tuxpaint.txt").read_text(encoding="utf-8").split("\n"))


def apart(path, name):
    """The file that a drawing's row is kept in besides train.jsonl and unseen.jsonl, or None."""
    if path in in_tuxpaint():
        return "also_in_tuxpaint"
    # The flags' folder holds maps and more.
    strays = (r"golf_flag|ampel|us_capitol|inukshuk|route_|_map|map_"
              r"|(canarian_islands|catalunya|murcia|andalusia|asturias|galicia)_\d")
    if "/flags/" in path and not re.search(strays, path) or re.match(r"(historic )?flag of", name):
        return "flags"
    return None


def with_article(name):
    head = head_of(name).split()
    counted = head[0] in NUMBERS and "playing card" not in name
    if (not name[0].islower() or counted or head[-1] in UNCOUNTED | NO_ARTICLE
            or head[-1].endswith("s") and not head[-1].endswith(("ss", "us", "is"))):
        return name
    return f"{'an' if name[0] in 'aeiou' and not name.startswith(('eu', 'un', 'us')) else 'a'} {name}"


def captions(one, labels):
    """The name, the name in a template, and with keywords. Keywords never stand alone: they fit too many pictures."""
    name = one["name"]
    out = [name, *(template.format(with_article(name)) for template in pick(TEMPLATES, 1, one["drawing"]))]
    tags = [tag for tag in one["tags"]["en"] if labels.split([tag]) == "train" and tag != "flag"]
    if tags and one["apart"] != "flags":
        out.append(", ".join([name, *pick(tags, 2, one["drawing"])]))
    return out
