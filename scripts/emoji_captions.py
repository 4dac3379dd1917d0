"""Emoji as concepts with captions in Korean and English: what fetch_data.py writes beside the pictures."""

import hashlib
from collections import Counter, defaultdict

CATALOGUE_FILES = ("en/data.json", "ko/data.json", "meta/groups.json")  # of emojibase-data

TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
HAIR = {"1F9B0", "1F9B1", "1F9B2", "1F9B3"}
SIGNS = {"2640", "2642", "27A1"}  # female, male, facing right
PEOPLE = {"1F466", "1F467", "1F468", "1F469", "1F9D1", "1F9D2"}
SAME = {  # one concept under several single code points
    "1F468": "1F9D1", "1F469": "1F9D1", "1F471": "1F9D1",
    "1F466": "1F9D2", "1F467": "1F9D2", "1F474": "1F9D3", "1F475": "1F9D3",
    "1F934": "1FAC5", "1F478": "1FAC5", "1F57A": "1F483",
    "1F936": "1F385", "1F9D1-1F384": "1F385", "1F930": "1FAC4", "1FAC3": "1FAC4",
    "1F46B": "1F9D1-1F91D", "1F46C": "1F9D1-1F91D", "1F46D": "1F9D1-1F91D",
}
# Flags that are drawn as another's (and Sark, which the Noto package draws as Saudi Arabia's).
DROPPED_FLAGS = {"BV", "CP", "CQ", "DG", "EA", "HM", "MF", "SJ", "UM"}
# Of several flags with one picture, these stay.
PARENT_FLAGS = ["FR", "NO", "US", "AU", "ES", "GB", "NL"]


def code(text):
    """A code point sequence as all packages can be joined by: upper case, no FE0F, four digits or more."""
    points = [point.lstrip("0").rjust(4, "0") for point in text.upper().split("-")]
    return "-".join(point for point in points if point != "FE0F")


def concept_of(sequence):
    """The concept: the emoji without skin tone, hair, gender and direction."""
    points = sequence.split("-")
    joined = "200D" in points
    points = [p for p in points if p not in TONES and p not in HAIR and p != "200D"]
    if joined:
        points = [p for p in points if p not in SIGNS] or points
    if joined and points[0] in PEOPLE:
        if "1F48B" in points:
            return "1F48F"
        if "2764" in points:
            return "1F491"
        people = sum(p in PEOPLE for p in points)
        if people > 1 and "1F91D" not in points and len(points) == people:
            return "1F46A"
        points = [SAME.get(p, p) if p in PEOPLE else p for p in points]
        if "1F91D" in points:
            return "1F9D1-1F91D"
        if "1F430" in points:  # people with bunny ears, written with a person
            return "1F46F"
    whole = "-".join(points)
    return SAME.get(whole, whole)


def is_unseen(concept):
    """One concept in ten, by a hash of the concept alone: every set and version splits alike."""
    digest = hashlib.sha256(f"dari concept {concept}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def letters(flag):
    """The two letters of a country's flag, or an empty string."""
    points = flag.split("-")
    if len(points) != 2 or any(not 0x1F1E6 <= int(p, 16) <= 0x1F1FF for p in points):
        return ""
    return "".join(chr(int(p, 16) - 0x1F1E6 + 65) for p in points)


class Emoji:
    """One emoji: its labels and tags in both languages, its concept and its place in the catalogue."""

    def __init__(self, english, korean, groups, subgroups):
        self.code = code(english["hexcode"])
        self.text = english["emoji"]
        self.concept = concept_of(self.code)
        self.order = english["order"]
        self.group = groups[str(english["group"])]
        self.subgroup = subgroups[str(english["subgroup"])]
        self.flag = self.subgroup in ("country-flag", "subdivision-flag")
        self.person = self.subgroup == "family" or self.subgroup.startswith("person")
        self.label = {"en": english["label"].strip(), "ko": korean["label"].strip()}
        self.tags = {"en": english.get("tags", []), "ko": korean.get("tags", [])}
        # (sequence, {language: label}) of each skin tone
        other = {skin["hexcode"]: skin["label"] for skin in korean.get("skins", [])}
        self.tones = [(code(s["hexcode"]), {"en": s["label"], "ko": other.get(s["hexcode"], self.label["ko"])})
                      for s in english.get("skins", [])]
        self.variant = False


def catalogue(parts):
    """Every emoji that is a picture of something, in Unicode's order. `parts` are the parsed files
    CATALOGUE_FILES of emojibase-data, by their names."""
    groups, subgroups = parts["meta/groups.json"]["groups"], parts["meta/groups.json"]["subgroups"]
    korean = {row["hexcode"]: row for row in parts["ko/data.json"]}
    found = []
    for row in parts["en/data.json"]:
        # Without a group: the letters flags are spelt with. Group 2: tone and hair swatches.
        if row.get("group") in (None, 2) or row["hexcode"] not in korean:
            continue
        emoji = Emoji(row, korean[row["hexcode"]], groups, subgroups)
        # Families are silhouettes in every set: their members cannot be told, one row is enough.
        if emoji.concept == "1F46A" and emoji.code != "1F46A":
            continue
        if emoji.flag and letters(emoji.code) in DROPPED_FLAGS:
            continue
        found.append(emoji)
    found.sort(key=lambda emoji: emoji.order)
    bases = {emoji.code for emoji in found}
    first = {}
    for emoji in found:
        first.setdefault(emoji.concept, emoji.concept if emoji.concept in bases else emoji.code)
        emoji.variant = emoji.code not in (emoji.concept, first[emoji.concept])
    return found


# ---------------------------------------------------------------- captions

# Words that catalogues attach to either gender, and words that say only "this is a flag".
VAGUE = {"en": {"man", "men", "woman", "women", "boy", "girl", "lady", "guy", "bro", "bae", "babe", "flag", "keycap"},
         "ko": {"남자", "여자", "남성", "여성", "남자친구", "여자친구", "아저씨", "깃발", "키 캡", "성별 없음", "헤어컷"}}
# English labels of these groups name things, so that their last word alone can stand for them.
THINGS = {"animals-nature", "food-drink", "travel-places", "activities", "objects"}
UNCOUNTED = {"rice", "bread", "milk", "butter", "cheese", "honey", "salt", "ice", "snow", "fog", "fire", "hair",
             "meat", "bacon", "garlic", "ginger", "mail", "money", "tea", "wood", "art", "water", "spaghetti", "tofu"}
TEMPLATES = {"en": ["a picture of {}", "an emoji of {}", "a drawing of {}", "a photo of {}"],
             "ko": ["{} 그림", "{} 이모지", "{} 사진", "{} 아이콘"]}


def natural(label, language, flag):
    """A catalogue's "head: detail" label in the order it is spoken."""
    head, colon, detail = label.partition(": ")
    if not colon:
        return label
    if language == "en":
        if head == "flag":
            return f"flag of {detail}"
        if head == "keycap":
            return f"keycap {detail}"
        if detail == "bald":
            return f"bald {head}"
        if detail == "beard":
            return f"{head} with a beard"
        if detail.endswith("hair"):
            return f"{head} with {detail}"
        return f"{head}, {detail}" if head in ("kiss", "couple with heart") else f"{head} {detail}"
    if head == "깃발":
        return f"{detail} {'국기' if flag else '깃발'}"
    if head == "키 캡":
        return f"키캡 {detail}"
    return f"{head}, {detail}" if head in ("키스", "연인") else f"{detail} {head}"


def head_word(label, language, group):
    """The word a thing's label turns on ("red apple": apple), or an empty string. An animal's face
    counts as the animal."""
    if group not in THINGS:
        return ""
    if language == "en":
        for joint in (" with ", " of ", " in ", " on ", " and ", " at ", " showing "):
            label = label.partition(joint)[0]
    words = label.split()
    if group == "animals-nature" and len(words) > 1 and words[-1] in ("face", "얼굴"):
        words.pop()
    return words[-1] if words else ""


def with_article(label, group):
    """An English label as it stands after "a picture of"."""
    head = head_word(label, "en", group)
    if not head or not label[0].islower() or head.endswith("s") or head in UNCOUNTED:
        return label
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"


def pick(things, count, *key):
    """`count` of the things in a fixed order that the key decides."""
    rank = lambda thing: hashlib.sha256("\0".join((*key, thing)).encode()).digest()
    return sorted(things, key=rank)[:count]


def captions(emoji, language, spread, key, label=None):
    """Label first, then the label in templates and with tags, then the label's head word where it
    names few concepts. Every caption but the last holds the label: bare tags ("food") fit too many
    pictures of a contrastive batch."""
    country = emoji.flag and bool(letters(emoji.code))
    name = natural(label or emoji.label[language], language, country)
    out = [name]
    if label:  # a skin tone: the picture without its tone named, too
        out.append(natural(emoji.label[language], language, country))
    if emoji.flag:
        bare = emoji.label[language].partition(": ")[2]
        if bare:
            out += [f"{bare} flag" if language == "en" else f"{bare} 깃발"]
    spoken = with_article(name, emoji.group) if language == "en" else name
    out += [template.format(spoken) for template in pick(TEMPLATES[language], 2, key, "template")]
    low = name.lower()
    tags = [tag for tag in emoji.tags[language]
            if len(tag) > 1 - (language == "ko") and tag not in VAGUE[language] and not emoji.flag
            and any(letter.isalpha() for letter in tag)]
    new = [tag for tag in tags if tag.lower() not in low]
    kinds = sorted((t for t in new if spread[language][t] >= 8), key=lambda t: (-spread[language][t], t))[:4]
    finer = [t for t in new if 2 <= spread[language][t] < 8]
    kind = pick(kinds, 2, key, "kind")
    if kind:
        out.append(", ".join([name, *kind]))
    fine = pick(finer, 2, key, "finer")
    if fine:
        out.append(", ".join([name, *kind[:1], *fine]))
    head = head_word(name, language, emoji.group)
    if head and head.lower() in (tag.lower() for tag in tags) and spread[language][head] <= 6:
        out.append(head)
    return list(dict.fromkeys(out))


def tag_spread(emojis):
    """In how many concepts each tag occurs."""
    seen = {language: defaultdict(set) for language in ("en", "ko")}
    for emoji in emojis:
        for language, tags in emoji.tags.items():
            for tag in tags:
                seen[language][tag].add(emoji.concept)
    return {language: Counter({tag: len(c) for tag, c in tags.items()}) for language, tags in seen.items()}


def row(emoji, set_name, sequence, spread, label=None):
    key = f"{set_name} {sequence}"
    return {
        "picture": f"{set_name}/{sequence.lower()}.png",
        "picture_rgba": f"{set_name}_rgba/{sequence.lower()}.png",
        "concept": emoji.concept, "emoji": sequence, "set": set_name,
        "group": emoji.group, "subgroup": emoji.subgroup,
        "flag": emoji.flag, "person": emoji.person, "variant": emoji.variant or bool(label), "tone": bool(label),
        "caption": {language: captions(emoji, language, spread, key, (label or {}).get(language))
                    for language in ("en", "ko")},
        "label": label or emoji.label, "tags": emoji.tags,
        "split": "unseen" if is_unseen(emoji.concept) else "train",
    }
