"""The kinds of car, as mean measures and likely layouts, and the spread of designs around them."""

# Columns of TABLE; what a row does not give comes from COMMON.
COLUMNS = (
    "length", "width", "height", "wheelbase", "front_overhang", "ground", "wheel_radius", "hood_z", "cowl_z",
    "dash", "screen_run", "roof_drop", "back_run", "deck", "deck_z", "tail_z", "belt_front", "belt_rear",
    "tumblehome", "roof_square",
)  # fmt: skip

TABLE = {
    "city": "3.60 1.60 1.49 2.37 .68 .18 .285 .76 .94 .25 .74 .08 .22 .06 .97 .90 .88 .96 .15 3.4",
    "hatch": "4.25 1.79 1.46 2.62 .86 .17 .315 .71 .94 .38 .90 .10 .42 .08 .97 .90 .87 .96 .19 3.4",
    "sedan": "4.55 1.78 1.45 2.68 .87 .17 .315 .69 .93 .44 .94 .10 .74 .48 1.00 .97 .86 .94 .19 3.2",
    "saloon": "4.95 1.87 1.48 2.88 .91 .17 .335 .73 .95 .54 .92 .08 .74 .62 1.02 .99 .89 .95 .19 3.3",
    "fastback": "4.70 1.85 1.42 2.78 .89 .16 .330 .69 .92 .46 1.0 .10 1.15 .24 .98 .97 .86 .95 .20 3.1",
    "coupe": "4.42 1.85 1.32 2.62 .90 .14 .335 .64 .88 .60 .86 .08 .86 .34 .92 .90 .82 .91 .21 3.0",
    "wagon": "4.72 1.80 1.47 2.72 .90 .17 .320 .70 .94 .44 .90 .06 .34 .06 .97 .90 .87 .93 .18 3.5",
    "crossover": "4.28 1.82 1.60 2.62 .85 .22 .345 .88 1.05 .38 .78 .09 .34 .08 1.08 1.0 .98 1.08 .18 3.3",
    "suv": "4.80 1.92 1.74 2.82 .89 .23 .375 .97 1.13 .46 .76 .05 .32 .06 1.14 1.05 1.05 1.13 .18 3.7",
    "offroad": "4.30 1.85 1.86 2.60 .72 .26 .390 1.04 1.16 .52 .34 .02 .10 .05 1.12 1.03 1.09 1.12 .10 5.0",
    "minivan": "5.10 1.98 1.76 3.05 .95 .18 .350 .86 1.10 .16 1.18 .04 .30 .06 1.08 1.0 1.01 1.07 .20 3.8",
    "boxvan": "4.75 1.82 1.95 3.05 .74 .20 .330 .98 1.20 -.20 .66 .03 .13 .05 1.12 1.0 1.08 1.10 .13 4.6",
    "cube": "3.60 1.60 1.70 2.46 .60 .18 .290 .86 1.05 .05 .62 .03 .12 .05 1.02 .92 .97 1.0 .11 4.6",
    "pickup": "5.15 1.90 1.80 3.15 .92 .26 .385 1.0 1.14 .48 .74 .04 .14 1.50 1.08 1.07 1.07 1.11 .15 3.7",
}

COMMON = {
    "hood_sag": 0.045, "back_sag": 0.035, "shelf": 0.018, "bulge": 0.05, "crease_z": 0.72, "crease": 0.012,
    "flare": 0.014, "nose_plan": 0.25, "tail_plan": 0.16, "nose_taper": 0.94, "tail_taper": 0.93,
    "screen_curve": 0.13, "nose_round": 0.12, "tail_round": 0.09, "nose_rake": 0.06, "tail_rake": 0.05,
    "hood_crown": 0.085, "rail": 0.085, "b_pillar": 0.50, "kink": 0.25, "quarter": 0.30,
    "head_in": 0.56, "head_z": 0.87, "head_height": 0.185, "head_flick": 0.06, "head_wrap": 0.16, "head_taper": 0.65,
    "grille_width": 0.48, "grille_z": 0.76, "grille_height": 0.16, "grille_taper": 0.85,
    "intake_width": 0.62, "intake_height": 0.10, "fog_size": 0.09,
    "tail_in": 0.58, "tail_lamp_z": 0.83, "tail_height": 0.19, "tail_flick": 0.04, "tail_wrap": 0.20,
    "tail_lamp_taper": 0.75, "rear_plate_z": 0.62, "cladding_height": 0.13, "mirror_size": 1.0,
}  # fmt: skip

CORRECTIONS: dict[str, dict[str, float]] = {
    "city": {"bulge": 0.06, "nose_plan": 0.28, "head_height": 0.21, "head_in": 0.60, "tail_height": 0.30},
    "hatch": {"tail_height": 0.22, "quarter": 0.22},
    "saloon": {"nose_plan": 0.20, "grille_width": 0.45, "grille_height": 0.22, "quarter": 0.35},
    "fastback": {"head_height": 0.145, "quarter": 0.42, "back_sag": 0.05},
    "coupe": {"head_height": 0.145, "flare": 0.028, "b_pillar": 0.62, "nose_plan": 0.30, "quarter": 0.48},
    "wagon": {"quarter": 0.55, "tail_height": 0.26, "kink": 0.35},
    "crossover": {"flare": 0.022, "cladding_height": 0.18, "tail_height": 0.22, "rail": 0.095},
    "suv": {"nose_plan": 0.17, "hood_crown": 0.07, "grille_height": 0.22, "cladding_height": 0.20, "quarter": 0.55,
            "tail_height": 0.32, "nose_rake": 0.02, "rail": 0.10},
    "offroad": {"nose_plan": 0.07, "tail_plan": 0.04, "hood_crown": 0.05, "bulge": 0.02, "nose_rake": 0.0,
                "tail_rake": 0.0, "screen_curve": 0.05, "nose_round": 0.06, "tail_round": 0.05, "hood_sag": 0.015,
                "flare": 0.035, "head_in": 0.62, "head_wrap": -0.06, "head_taper": 1.0, "head_flick": 0.0,
                "grille_width": 0.52, "grille_height": 0.20, "quarter": 0.55, "kink": 0.0, "tail_wrap": -0.04,
                "tail_height": 0.24, "tail_in": 0.80, "cladding_height": 0.20, "tail_lamp_z": 0.72},
    "minivan": {"quarter": 0.95, "kink": 0.05, "tail_height": 0.34, "tail_in": 0.70, "b_pillar": 0.42, "bulge": 0.035},
    "boxvan": {"nose_plan": 0.22, "tail_plan": 0.07, "quarter": 1.1, "kink": 0.0, "tail_height": 0.42,
               "tail_in": 0.82, "b_pillar": 0.36, "bulge": 0.03, "tail_round": 0.06, "tail_taper": 0.97,
               "tail_rake": 0.01, "head_height": 0.20, "tail_lamp_z": 0.80},
    "cube": {"nose_plan": 0.18, "tail_plan": 0.07, "kink": 0.0, "tail_height": 0.30, "tail_in": 0.76, "bulge": 0.03,
             "tail_rake": 0.01, "head_height": 0.20, "head_in": 0.62, "quarter": 0.20},
    "pickup": {"nose_plan": 0.16, "tail_plan": 0.05, "grille_height": 0.24, "grille_width": 0.52, "quarter": 0.05,
               "tail_height": 0.32, "tail_in": 0.80, "tail_wrap": 0.0, "tail_round": 0.05, "tail_taper": 0.98,
               "tail_rake": 0.0, "flare": 0.03, "kink": 0.0, "tail_lamp_z": 0.76, "b_pillar": 0.52, "nose_rake": 0.02},
}  # fmt: skip

# Standard deviation of a measure between the names of one archetype, at likeness 0.
SPREAD = {
    "length": 0.11, "width": 0.03, "height": 0.03, "wheelbase": 0.05, "front_overhang": 0.035, "ground": 0.012,
    "wheel_radius": 0.012, "hood_z": 0.025, "cowl_z": 0.02, "dash": 0.05, "screen_run": 0.06, "roof_drop": 0.02,
    "back_run": 0.06, "deck": 0.03, "deck_z": 0.02, "tail_z": 0.015, "hood_sag": 0.012, "back_sag": 0.012,
    "belt_front": 0.015, "belt_rear": 0.025, "tumblehome": 0.02, "shelf": 0.005, "bulge": 0.012, "crease_z": 0.09,
    "crease": 0.005, "flare": 0.007, "nose_plan": 0.045, "tail_plan": 0.035, "nose_taper": 0.015,
    "tail_taper": 0.015, "screen_curve": 0.025, "nose_round": 0.02, "tail_round": 0.015, "nose_rake": 0.025,
    "tail_rake": 0.025, "hood_crown": 0.014, "roof_square": 0.3, "rail": 0.012, "b_pillar": 0.025, "kink": 0.13,
    "quarter": 0.09, "head_in": 0.07, "head_z": 0.03, "head_height": 0.035, "head_flick": 0.04, "head_wrap": 0.09,
    "head_taper": 0.20, "grille_width": 0.10, "grille_z": 0.035, "grille_height": 0.05, "grille_taper": 0.12,
    "intake_width": 0.13, "intake_height": 0.03, "fog_size": 0.02, "tail_in": 0.08, "tail_lamp_z": 0.04,
    "tail_height": 0.045, "tail_flick": 0.035, "tail_wrap": 0.09, "tail_lamp_taper": 0.2, "rear_plate_z": 0.10,
    "cladding_height": 0.03, "mirror_size": 0.08,
}  # fmt: skip

# Layouts a name draws from; words repeated are likelier. The first is what names share as likeness grows.
CHOICES = {
    "side_windows": "three two three two",
    "head_kind": "slant block slant round bar split leaf",
    "head_inside": "projector twin reflector drl_low drl_top cubes",
    "grille_kind": "bars bars mesh fins single none slats vee",
    "grille_frame": "chrome none black paint chrome",
    "intake_kind": "wide wide split smile none",
    "fog_kind": "round none slot pocket round",
    "tail_kind": "block block leaf ell tower round stripes",
    "tail_inside": "inner dark banded amber led corner led",
    "tail_link": "none none none chrome red black",
    "window_trim": "none none chrome sill",
    "pillars": "black black black paint",
    "cladding": "none none low full",
    "rails": "none none none black silver",
    "spoiler": "none none lip roof roof",
    "antenna": "fin fin rod none",
    "mirror": "paint paint paint black two_tone",
    "exhaust": "none none single dual",
    "moulding": "none none none paint black chrome",
    "handles": "paint paint paint chrome black",
    "roof": "paint paint paint paint paint black panorama",
    "wheel": "five five ten twin multi turbine mesh cover dark_five petal dark_twin",
    "bed": "none",
}

# Where a kind of car does not draw freely.
CHOICE_CORRECTIONS: dict[str, dict[str, str]] = {
    "city": {"side_windows": "two", "exhaust": "none none single", "grille_kind": "single bars none mesh vee"},
    "sedan": {"rails": "none", "spoiler": "none none lip", "cladding": "none none none low"},
    "saloon": {"rails": "none", "spoiler": "none", "cladding": "none", "window_trim": "chrome chrome sill none"},
    "fastback": {"rails": "none", "spoiler": "none lip lip", "side_windows": "three", "cladding": "none none none low"},
    "coupe": {"rails": "none", "spoiler": "none lip lip", "side_windows": "coupe", "cladding": "none none low"},
    "wagon": {"rails": "black silver silver none", "side_windows": "three", "spoiler": "roof roof none"},
    "crossover": {"cladding": "full full low", "rails": "black silver silver none", "spoiler": "roof roof none"},
    "suv": {"cladding": "full full low none", "rails": "black silver silver none", "spoiler": "roof roof none",
            "side_windows": "three"},
    "offroad": {"cladding": "full full low", "rails": "none black", "side_windows": "three three two",
                "spoiler": "none", "head_kind": "round round block", "tail_kind": "tower block round",
                "tail_link": "none",
                "grille_kind": "fins fins bars slats"},
    "minivan": {"side_windows": "three", "spoiler": "roof none", "tail_kind": "tower block ell leaf"},
    "boxvan": {"side_windows": "three", "spoiler": "none", "tail_kind": "tower", "exhaust": "none",
               "tail_link": "none none chrome", "roof": "paint"},
    "cube": {"side_windows": "two", "tail_kind": "tower block tower", "exhaust": "none", "spoiler": "none roof"},
    "pickup": {"side_windows": "two", "bed": "open", "spoiler": "none", "tail_kind": "tower", "rails": "none black",
               "cladding": "full low none", "tail_link": "none", "roof": "paint"},
}  # fmt: skip

# How many names of a split are of a kind, out of their sum: streets are full of sedans and SUVs.
SHARES = {
    "city": 6, "hatch": 7, "sedan": 13, "saloon": 10, "fastback": 7, "coupe": 5, "wagon": 5, "crossover": 9, "suv": 9,
    "offroad": 3, "minivan": 4, "boxvan": 3, "cube": 3, "pickup": 3,
}  # fmt: skip


def archetype(kind: str) -> dict[str, float]:
    """The measures of a kind of car."""
    row = dict(zip(COLUMNS, map(float, TABLE[kind].split()), strict=True))
    return {**row, **COMMON, **CORRECTIONS.get(kind, {})}


def options(kind: str) -> dict[str, list[str]]:
    """The layouts that a kind of car draws from."""
    return {name: words.split() for name, words in {**CHOICES, **CHOICE_CORRECTIONS.get(kind, {})}.items()}
