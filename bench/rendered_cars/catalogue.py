"""The cars of a split: names, their generations and colours, and how alike two names are."""

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from bench.rendered_cars.archetypes import CHOICES, SHARES, SPREAD, archetype, options
from bench.rendered_cars.design import Design
from bench.rendered_cars.materials import COLOURS

# Invented names: none is a maker's or a model's.
# fmt: off
KOREAN = (
    "가온새", "누리안", "다온결", "라온휘", "마루솔", "바람결", "새벽별", "아라솔", "온새미", "자람터",
    "차오름", "타래온", "푸르내", "하늬온", "가람빛", "나래온", "다솜휘", "라윤재", "미리내온",
    "보라매솔", "산마루", "여울목", "오름새", "윤슬", "이든길", "잔물결", "초롱솔", "큰나래", "터울림",
    "한결솔", "해오름", "휘파람새", "고운누리", "노을빛", "달무리", "도담이", "두레온", "들메솔",
    "로하온", "모아솔", "물푸레", "반디솔", "별하늘", "빛가온", "사뿐이", "소담누리", "솔바람",
    "시나브로", "아람치", "안다미", "알찬솔", "어울림새", "연두빛", "예그리나", "올리솔", "우람이",
    "은가비", "이룸새", "잎새솔", "찬누리", "채움결", "초아솔", "키움새", "토리솔", "파란새", "포근솔",
    "하람결", "한울새", "해찬솔", "햇살누리", "혜윰", "흰여울", "가시버시", "그루솔", "꽃가람", "나린솔",
    "늘품이", "다흰새", "단미솔", "동살", "둥지새",
)
LATIN = (
    "Solenne", "Vareto", "Quillan", "Brivora", "Ostrane", "Melvique", "Tarsino", "Corvelle", "Dunaro", "Elvane",
    "Fiorsa", "Gravenne", "Halmora", "Istrelle", "Jovanne", "Kestrio", "Lumaro", "Morvane", "Nevisca",
    "Orlenne", "Pavona", "Quorra", "Rivello", "Sorvane", "Talmira", "Ulvaro", "Vintara", "Wexane", "Xylora",
    "Yavene", "Zentaro", "Altrine", "Belvaro", "Cindralle", "Dorvane", "Esquena", "Falvore", "Gildane",
    "Harvenne", "Ilvoro", "Jaspenne", "Kolvara", "Lestrane", "Marvolle", "Nolvane", "Opaline", "Prestane",
    "Qualore", "Rostova", "Silvane", "Tremora", "Umbrelle", "Velmora", "Wistane", "Ximora", "Yorvelle",
    "Zafrine", "Ardenique", "Bromelle", "Calvoro", "Deltorne", "Evarose", "Fennaro", "Gostrelle", "Helvora",
    "Indrane", "Jolvette", "Kaverne", "Lorvana", "Mistrelle", "Narvelo", "Oxenne", "Pelvora", "Quentelle",
    "Ravosta", "Savorne", "Tolvane", "Urbelle", "Vostrane", "Welmora", "Zorvelle",
)
# fmt: on

LIKENESS = 0.0
"""How alike two names are: 0 as far apart as designs go, 1 all the same."""

GENERATION_SHARE = 0.3  # a generation moves a measure by this share of its spread between names
GENERATION_REDRAW = {
    "wheel": 0.6, "head_inside": 0.5, "tail_inside": 0.5, "grille_kind": 0.3, "grille_frame": 0.2, "fog_kind": 0.4,
    "antenna": 0.2, "window_trim": 0.2, "intake_kind": 0.3, "exhaust": 0.2,
}  # fmt: skip
FIXED_BY_NAME = ("length", "width", "wheelbase")  # moved by a generation, but only this little:
FIXED_SHARE = 0.12
LABELS = (("I", "II", "III", "IV"), ("HD", "MD", "AD", "CN"), ("NF", "YF", "LF", "DN"), ("A", "B", "C", "D"),
          ("QL", "NQ", "SL", "KM"), ("Mk1", "Mk2", "Mk3", "Mk4"))  # fmt: skip
SPLITS = {"train": (84, 561, 2, 14), "test": (78, 116, 1, 3)}  # names, cars, fewest and most cars a name


@dataclass(frozen=True, slots=True)
class Car:
    """One car; its name is its class."""

    name: str
    generation: str
    colour: str
    design: Design


def cars(split: Literal["train", "test"], seed: int = 0, likeness: float = LIKENESS) -> list[Car]:
    """The cars of a split, in order of name; the same seed gives the same cars."""
    if not 0 <= likeness <= 1:
        raise ValueError(f"likeness must be between 0 and 1, not {likeness}")
    names, kinds = _names(split, seed)
    rng = np.random.default_rng([seed, 2, split == "test"])
    found = []
    for number, (name, kind, count) in enumerate(zip(names, kinds, _counts(split, rng), strict=True)):
        # One random stream per name: the likeness scales a name's draws and never changes which draws it gets.
        found += _cars_of_name(name, kind, count, likeness, np.random.default_rng([seed, 3, split == "test", number]))
    return found


def _names(split: str, seed: int) -> tuple[list[str], list[str]]:
    """Names of a split with their kinds of car; the splits take from one shuffled list."""
    rng = np.random.default_rng([seed, 1])
    pools = [[unicodedata.normalize("NFC", str(name)) for name in rng.permutation(pool)] for pool in (KOREAN, LATIN)]
    start, count = (0, SPLITS["train"][0]) if split == "train" else (SPLITS["train"][0], SPLITS["test"][0])
    mixed = [pool[i] for i in range(len(pools[0])) for pool in pools]
    total = sum(SHARES.values())
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * count / total + 0.5))]
    return mixed[start : start + count], [str(kind) for kind in rng.permutation(kinds)[:count]]


def _counts(split: str, rng: np.random.Generator) -> list[int]:
    """Uneven numbers of cars a name that sum to the split's."""
    names, total, fewest, most = SPLITS[split]
    weights = rng.gamma(2.0, size=names) + 0.2
    counts = np.full(names, fewest)
    while counts.sum() < total:
        open_to_more = np.where(counts < most, weights, 0.0)
        counts[rng.choice(names, p=open_to_more / open_to_more.sum())] += 1
    return [int(count) for count in counts]


def _cars_of_name(name: str, kind: str, count: int, likeness: float, rng: np.random.Generator) -> list[Car]:
    """Cars that differ in generation or colour, the frequent colours first drawn."""
    base = _design_of_name(kind, likeness, rng)
    labels = LABELS[rng.integers(len(LABELS))]
    generations = min(len(labels), 1 + int(rng.integers(max(1, (count + 2) // 3) + (count > 1))))
    designs = [_generation(base, kind, likeness, rng) if g else base for g in range(generations)]
    weights = np.array([weight for weight, _, _ in COLOURS.values()], dtype=float)
    pairs = [(g, colour) for g in range(generations) for colour in COLOURS]
    odds = np.tile(weights / weights.sum(), generations)
    drawn = sorted(rng.choice(len(pairs), size=count, replace=False, p=odds / odds.sum()).tolist())
    return [Car(name, labels[pairs[i][0]], pairs[i][1], designs[pairs[i][0]]) for i in drawn]


def _design_of_name(kind: str, likeness: float, rng: np.random.Generator) -> Design:
    """A name's design: at likeness 0 its kind plus its whole deviation, at 1 the mean car."""
    deviation = {name: float(np.clip(rng.normal(), -2, 2)) * spread for name, spread in SPREAD.items()}
    means = mean_car()
    measures = {
        name: means[name] + (1 - likeness) * (value - means[name] + deviation[name])
        for name, value in archetype(kind).items()
    }
    choices = {}
    for name, words in options(kind).items():
        own, level = words[rng.integers(len(words))], rng.random()
        choices[name] = own if level >= likeness else CHOICES[name].split()[0]
    return Design(**measures, **choices)  # type: ignore[arg-type]  # every field, by name


def _generation(base: Design, kind: str, likeness: float, rng: np.random.Generator) -> Design:
    """A generation of a name: its measures moved a little and some details drawn anew, whatever the likeness."""
    measures = {
        name: value + rng.normal() * SPREAD[name] * (FIXED_SHARE if name in FIXED_BY_NAME else GENERATION_SHARE)
        for name, value in base.measures().items()
    }
    choices = base.choices()
    for name, odds in GENERATION_REDRAW.items():
        own, level = options(kind)[name], rng.random(2)
        word = own[int(rng.integers(len(own)))]
        if level[0] < odds and level[1] >= likeness:
            choices[name] = word
    return Design(**measures, **choices)  # type: ignore[arg-type]  # every field, by name


@cache
def mean_car() -> dict[str, float]:
    """The mean over all kinds, as frequent as they are: what every name becomes at likeness 1."""
    total = sum(SHARES.values())
    kinds = {kind: archetype(kind) for kind in SHARES}
    return {name: sum(kinds[kind][name] * share for kind, share in SHARES.items()) / total for name in SPREAD}
