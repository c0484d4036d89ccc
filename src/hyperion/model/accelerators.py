"""The names of accelerators: which are known, what a misspelt one meant, how a driver says them."""

import re
from collections.abc import Mapping

#: Every known type and its memory in GiB as the makers state it. ``A100`` is the 40 GB part and
#: ``V100`` the 16 GB part, as in the clouds' and SkyPilot's lists; form factors are not told apart.
ACCELERATORS: Mapping[str, int] = {
    "K80": 12,
    "M60": 8,
    "P4": 8,
    "P40": 24,
    "P100": 16,
    "T4": 16,
    "V100": 16,
    "V100-32GB": 32,
    "A2": 16,
    "A10": 24,
    "A10G": 24,
    "A16": 16,
    "A30": 24,
    "A40": 48,
    "A100": 40,
    "A100-80GB": 80,
    "L4": 24,
    "L40": 48,
    "L40S": 48,
    "H100": 80,
    "H200": 141,
    "GH200": 96,
    "B100": 192,
    "B200": 192,
    "B300": 288,
    "GB200": 192,
    "GB300": 288,
    "RTX2080Ti": 11,
    "RTX3060": 12,
    "RTX3070": 8,
    "RTX3080": 10,
    "RTX3090": 24,
    "RTX4070": 12,
    "RTX4080": 16,
    "RTX4090": 24,
    "RTX5080": 16,
    "RTX5090": 32,
    "RTX6000": 24,
    "RTX6000-Ada": 48,
    "RTXA4000": 16,
    "RTXA5000": 24,
    "RTXA6000": 48,
    "RTXPRO6000": 96,
    "MI100": 32,
    "MI210": 64,
    "MI250": 128,
    "MI250X": 128,
    "MI300X": 192,
    "MI325X": 256,
    "MI350X": 288,
    "MI355X": 288,
    "Gaudi2": 96,
    "Gaudi3": 128,
}


def canonical(name: str) -> str | None:
    """The known type that ``name`` spells when case and separators are ignored, else None."""
    return _BY_LETTERS.get(_letters(name))


def nearest(name: str) -> str | None:
    """The known type a misspelt ``name`` most likely meant, or None when nothing is close."""
    known = canonical(name)
    if known:
        return known
    import difflib  # 2 ms that only a typo pays for

    spelled = _letters(name)[:_LONGEST_NAME]
    for attempt in (spelled, spelled.replace("O", "0").replace("I", "1")):
        close = difflib.get_close_matches(attempt, _BY_LETTERS, n=1, cutoff=0.6)
        if close:
            return _BY_LETTERS[close[0]]
    return None


def from_device_name(device: str) -> str:
    """The type behind a driver's name: ``NVIDIA A100-SXM4-40GB`` is ``A100``.

    A slice of a device (MIG) gets its profile appended, since it is not the whole device. What is
    not known keeps the maker's words joined by hyphens, so that it can still be asked for.
    """
    text = device.strip()[:_LONGEST_NAME].upper()
    name = _known_type(text) or "-".join(_words(device))
    profile = re.search(r"\bMIG[ -](\d+[GC]\.\d+GB)", text)
    return f"{name}-MIG-{profile[1].lower()}" if profile else name


def _known_type(text: str) -> str | None:
    words = _words(text)
    spelled = "".join(words)
    for start in ("RTX", "TITAN"):  # graphics cards: two words make the model, so join them
        if spelled.startswith(start):
            return _graphics_card(spelled)
    for word in words:
        known = _BY_LETTERS.get(word)
        if known is None:
            continue
        larger = f"{known}-{_memory_gb(text)}GB"
        return larger if larger in ACCELERATORS else known
    return None


def _graphics_card(spelled: str) -> str | None:
    """A Ti, a Super or a laptop part is another card, so nothing but an edition may follow."""
    for letters, known in _BY_LETTERS.items():
        rest = spelled.removeprefix(letters)
        if rest == "" or (rest != spelled and rest.startswith(_EDITIONS)):
            return known
    return None


def _memory_gb(text: str) -> int:
    sizes = re.findall(r"\b(\d+) ?GB", text)
    return int(sizes[0]) if sizes else 0


def _words(device: str) -> list[str]:
    return [w for w in re.split(r"[^A-Za-z0-9.]+", device) if w and w.upper() not in _MAKERS]


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


_LONGEST_NAME = 100
_EDITIONS = ("BLACKWELL", "SERVEREDITION", "WORKSTATIONEDITION")
_MAKERS = frozenset(
    {"NVIDIA", "TESLA", "QUADRO", "GEFORCE", "GRAPHICS", "AMD", "INSTINCT", "INTEL"}
)
_BY_LETTERS = {_letters(known): known for known in ACCELERATORS} | {
    "RTX6000ADAGENERATION": "RTX6000-Ada",
    "A10080G": "A100-80GB",
    "A10040GB": "A100",
    "V10016GB": "V100",
    "H10080GB": "H100",
}
