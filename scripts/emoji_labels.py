"""Which emoji concept an English name means: a dictionary that lends other sets Korean words, and keeps
what must stay unseen out of their training rows."""

import re
import unicodedata

from emoji_captions import is_unseen, letters, natural

# Other names of what one emoji shows, by its label. Picked by hand: most of the catalogue's tags are too wide.
SYNONYMS = {
    "admission tickets": "tickets", "articulated lorry": "lorry, semi truck", "axe": "ax",
    "badminton": "shuttlecock", "baguette bread": "baguette", "bicycle": "bike",
    "carpentry saw": "saw, hand saw, handsaw", "cherries": "cherry", "chicken": "hen", "clown face": "clown",
    "crossed swords": "swords", "doughnut": "donut", "dove": "pigeon", "eagle": "bald eagle",
    "eject button": "eject", "electric plug": "plug", "evergreen tree": "evergreen", "fast reverse button": "rewind",
    "fast-forward button": "fast forward", "fax machine": "fax", "floppy disk": "floppy, floppy disc",
    "flying saucer": "ufo", "french fries": "fries", "game die": "dice, die", "gear": "cog, cogwheel",
    "gem stone": "gem, gemstone, jewel", "glasses": "eyeglasses, spectacles", "grapes": "grape",
    "hamburger": "burger, cheeseburger", "headphone": "headphones", "headstone": "tombstone, gravestone, grave",
    "honeybee": "bee, honey bee", "hut": "yurt", "inbox tray": "inbox", "label": "tag",
    "lady beetle": "ladybug, ladybird", "light bulb": "bulb, lightbulb", "locked": "lock, padlock",
    "luggage": "suitcase", "magic wand": "wand", "metro": "subway",
    "mobile phone": "smartphone, cell phone, cellphone", "money bag": "moneybag", "mountain": "mountains",
    "musical keyboard": "piano, piano keyboard", "musical note": "music note", "musical notes": "music notes",
    "no entry": "do not enter", "owl": "barn owl", "pancakes": "pancake", "paw prints": "paw, paw print",
    "peanuts": "peanut", "pill": "pills", "poultry leg": "drumstick", "pushpin": "thumbtack, push pin, drawing pin",
    "puzzle piece": "puzzle, jigsaw, jigsaw piece", "rabbit": "bunny", "recycling symbol": "recycle, recycle symbol",
    "ringed planet": "saturn", "rugby football": "rugby, rugby ball", "shopping cart": "cart, shopping trolley",
    "shuffle tracks button": "shuffle", "sled": "sleigh", "soccer ball": "soccer", "SOS button": "sos",
    "spider web": "cobweb", "T-Rex": "tyrannosaurus", "t-shirt": "shirt", "television": "tv", "top hat": "tophat",
    "turtle": "tortoise", "unlocked": "lock open, open lock, unlock, padlock open", "video camera": "camcorder",
    "videocassette": "vhs, video cassette",
    "wastebasket": "trash, trash can, rubbish bin, waste basket, garbage can",
    "wrapped gift": "gift, present, gift box",
}

# Words that show an unseen concept without being its name: no Korean is taken through them.
NEAR_UNSEEN = {
    "brown mushroom": "mushroom", "butterfly": "butterflies", "couch and lamp": "couch, sofa", "curry rice": "curry",
    "ewe": "sheep, lamb", "front-facing baby chick": "chick", "gloves": "glove", "house": "home, houses",
    "meat on bone": "ham bone", "merperson": "mermaid, merman", "monkey": "chimp, chimpanzee, baboon",
    "oncoming automobile": "car front", "person climbing": "climber", "pig": "piglet",
}

JOINTS = (" with ", " of ", " in ", " on ", " and ", " at ", " for ", " from ", " under ", " near ")


def plain(text):
    """A name as two catalogues can be compared by."""
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'").replace("&", " and "))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return re.sub(r"\bst\b", "saint", " ".join(re.sub(r"[^\w' ]+", " ", text).split()))


def singular(name):
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if name.endswith(ending):
            return name[:-len(ending)] + instead
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith(("ss", "us", "is")) else name


def korean(emoji):
    """The emoji's Korean label as it is said of other pictures of the thing: of lions, not of their faces only."""
    label = natural(emoji.label["ko"], "ko", emoji.flag and bool(letters(emoji.code)))
    return label if "face" in emoji.label["en"] else label.removesuffix(" 얼굴")


class Labels:
    """English labels of the emoji catalogue. `homonyms` are names that mean something else in the set at hand."""

    def __init__(self, emojis, homonyms=()):
        self.known, self.shuffled, self.hidden = {}, {}, set()
        homonyms = {plain(name) for name in homonyms}
        for emoji in emojis:
            label = emoji.label["en"]
            country = emoji.flag and bool(letters(emoji.code))
            names = [plain(natural(label, "en", country)), plain(label)]
            names += [plain(name) for name in SYNONYMS.get(label, "").split(",") if name]
            if is_unseen(emoji.concept):
                self.hidden.update(names)
                self.hidden.update(plain(name) for name in NEAR_UNSEEN.get(label, "").split(",") if name)
            for name in () if emoji.variant else names:
                if name not in homonyms:
                    self.known.setdefault(name, emoji)
                    if " " in name:
                        self.shuffled.setdefault(frozenset(name.split()), emoji)

    def of(self, name):
        """The emoji of that very name, or of the same words in another order ("arrow up"), or None."""
        name = plain(name)
        return self.known.get(name) or self.shuffled.get(frozenset(name.split()))

    def split(self, names, heads=True):
        """"unseen" where a name is an unseen concept's or, with `heads`, turns on the word for it ("angry monkey"),
        "near" where one only holds such a word ("pencil case"), else "train"."""
        near = False
        for name in names:
            emoji = self.of(name)
            if emoji and is_unseen(emoji.concept):
                return "unseen"
            name = plain(name)
            if self._hides([name]):
                return "unseen"
            for part in {name, head_of(name)} if heads else ():
                words = part.split()
                if self._hides(" ".join(words[start:]) for start in range(len(words))):
                    return "unseen"
            words = name.split()
            near = near or self._hides(" ".join(words[start:end]) for start in range(len(words))
                                       for end in range(start + 1, len(words) + 1))
        return "near" if near else "train"

    def _hides(self, names):
        return any(name in self.hidden or singular(name) in self.hidden for name in names)


def head_of(name):
    """The part of a name before its first joint: "owl on branch" is an owl."""
    for joint in JOINTS:
        name = name.partition(joint)[0]
    return name
