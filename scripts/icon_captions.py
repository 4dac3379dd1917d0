"""Names and captions of icons: what the packages call them, in the words one would say."""

import re
from collections import defaultdict

from emoji_captions import pick

# Words of an icon's name that say how it is drawn, not what it shows.
STYLES = {"outline", "outlined", "filled", "fill", "solid", "variant", "alt", "lg", "earmark"}
# Names that mean something else as an icon than as an emoji.
HOMONYMS = ("mouse", "seal", "cricket", "pick", "joker", "radio", "arrow back", "arrow top", "rosette", "bug",
            "cigarette", "artist", "yarn", "mechanic", "label", "wheel", "fairy", "cook", "construction", "divide",
            "bubbles", "ninja", "note", "plug", "shuffle", "soccer", "rugby", "shirt", "sparkle", "person",
            "teacher", "seat")
# Bootstrap's icons of firms and their wares. The other packages mark their own.
BOOTSTRAP_BRANDS = set("""
alexa alipay amazon amd android android2 anthropic apple apple-music behance bing bluesky bluetooth bootstrap
bootstrap-reboot browser-chrome browser-edge browser-firefox browser-safari claude css discord disqus dribbble
dropbox facebook fedora git github gitlab google google-play instagram javascript leetcode line linkedin
mastodon medium messenger meta microsoft microsoft-teams nintendo-switch nvidia openai opencollective paypal
perplexity pinterest playstation qq quora reddit signal sina-weibo skype slack snapchat sourceforge spotify
stack-overflow steam strava stripe substack telegram tencent-qq threads tiktok trello tux twitch twitter
twitter-x typescript ubuntu unity vimeo wechat whatsapp wikipedia windows wordpress xbox yelp youtube
""".split())
# Icons that only write a letter, a number or a word.
GLYPH = re.compile(r"^(alpha|alphabet|alphabetical|numeric|number|letter|roman|abjad|abugida|syllabary|filetype|type)\b"
                   r"|\b(letter|number|numeric|numeral)-|^(?!x-|t-shirt|u-turn|s-turn|e-)[a-z]-|-[a-wyz]$"
                   r"|^\d+-(circle|square)|^(cc|123)\b|^format-header-\d|^heading-\d|^h-\d|^box-multiple-\d"
                   r"|^badge-[a-z0-9]{2}\b|^file-type-|^math-|^\d+k\b|^video-\d|^fraction-|^language-"
                   r"|^arrow-(up|down)-(a-z|z-a|0-1|1-0)|^sort-(alpha|numeric)")
TEMPLATES = ("{} icon", "an icon of {}", "{} symbol")
TEMPLATES_KO = ("{} 아이콘",)


def numbered(names):
    """Stems whose last number counts something (dice-1 to dice-6); elsewhere it only tells variants apart."""
    seen = defaultdict(set)
    for name in names:
        stem = re.fullmatch(r"(.+?)-(\d+)(-[a-z]+)*", name)
        if stem:
            seen[stem.group(1)].add(stem.group(2))
    return {stem for stem, numbers in seen.items() if len(numbers) >= 3}


def spoken(name, counted=frozenset()):
    """An icon's name in words; `counted` are the stems whose number is kept."""
    words = []
    parts = [part for part in name.split("-") if part]
    for place, part in enumerate(parts):
        if part in STYLES or part in ("rtl", "ltr") and place == len(parts) - 1:
            continue
        if part.isdigit() and 0 < place and "-".join(parts[:place]) not in counted and int(part) < 10:
            continue
        words.append(re.sub(r"(?<=[a-z]{3})[2-9]$", "", part))
    text = " ".join(words or parts)
    for old, new in (("alpha ", "letter "), ("numeric ", "number "), ("filetype ", "file type "), ("account", "user"),
                     ("tshirt", "t-shirt"), ("qrcode", "qr code"), ("cctv", "security camera")):
        text = re.sub(rf"\b{old}", new, text)
    return text


def names_of(names, counted):
    """What an icon is: its own name and a plainer word for it where there is one; then the package's other names."""
    own = spoken(names[0], counted)
    mood = re.fullmatch(r"(?:mood|emoticon|emoji) (.+?)(?<! off)", own)
    sign = re.fullmatch(r"zodiac (.+)", own)
    plainer = [f"{mood.group(1)} face"] if mood else [sign.group(1)] if sign else []
    first = [own, *plainer]
    return first, [name for name in dict.fromkeys(spoken(name, counted) for name in names[1:]) if name not in first]


def filled(name):
    return bool({"filled", "fill", "solid"} & set(name.split("-")))


def tidy(tags, name, most=8):
    """Tags as words, without those that the name holds or that are no words."""
    kept = []
    for tag in tags:
        tag = " ".join(re.sub(r"[^\w' ]+", " ", tag.lower()).split())
        if 2 < len(tag) <= 24 and re.fullmatch(r"[a-z][a-z' ]+", tag) and tag not in name and tag not in kept:
            kept.append(tag)
    return kept[:most]


# ---------------------------------------------------------------- packages: {icon: facts} of their own catalogues


def lucide(parts):
    tags = parts["tags.json"]
    return {name: {"names": [name], "tags": tags[name], "group": ""} for name in tags}


def tabler(parts):
    facts = {}
    for name, icon in parts["icons.json"].items():
        if icon["category"] == "Brand" or name.startswith("brand-"):
            continue
        facts[name] = {"names": [name], "tags": [str(tag) for tag in icon["tags"]], "group": icon["category"],
                       "glyph": icon["category"] in ("Letters", "Numbers", "Extensions")}
    return facts


def material(parts):
    facts = {}
    for icon in parts["meta.json"]:
        if icon["deprecated"] or "Brand / Logo" in icon["tags"]:
            continue
        facts[icon["name"]] = {"names": [icon["name"], *icon["aliases"]], "tags": [],
                               "group": (icon["tags"] or [""])[0],
                               "glyph": "Alpha / Numeric" in icon["tags"]}
    return facts


def bootstrap(parts):
    names = parts["font/bootstrap-icons.json"]
    base = lambda name: name.removesuffix("-fill")
    return {name: {"names": [name], "tags": [], "group": ""} for name in names if base(name) not in BOOTSTRAP_BRANDS}


def captions(one, names, others, labels):
    """The icon's name, the name in a template, two of its other names, and the name with tags."""
    key = f"{one['set']} {one['icon']}"
    name = names[0]
    out = [name, pick(TEMPLATES, 1, key)[0].format(name), *names[1:], *pick(others, 2, key)]
    tags = [tag for tag in one["tags"]["en"] if tag not in (*names, *others) and labels.split([tag], False) == "train"]
    if tags:
        out.append(", ".join([name, *pick(tags, 2, key)]))
    if one["filled"]:
        out[1] = f"filled {name} icon"
    return out
