"""The design of a car: its measures and its choices of layout, and the distance between two designs."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, slots=True)
class Design:
    """Measures in metres unless named a fraction; choices are short words."""

    # Proportions.
    length: float
    width: float
    height: float
    wheelbase: float
    front_overhang: float
    ground: float  # clearance under the sill
    wheel_radius: float
    # The line of hood, screen, roof, rear window and deck, as seen from the side.
    hood_z: float  # leading edge of the hood
    cowl_z: float  # foot of the windscreen
    dash: float  # the cowl lies this far behind the front axle
    screen_run: float  # horizontal length of the windscreen
    roof_drop: float  # the roof's rear end lies this much lower than its peak
    back_run: float  # horizontal length of the rear window
    deck: float  # length of the deck behind the rear window
    deck_z: float
    tail_z: float
    hood_sag: float  # how much the hood bulges above a straight line
    back_sag: float
    # Flanks and plan view.
    belt_front: float
    belt_rear: float
    tumblehome: float  # how much each side leans in from belt to roof
    shelf: float  # step from shoulder to window
    bulge: float  # roundness of the flank
    crease_z: float  # fraction of the flank's height
    crease: float
    flare: float  # how far arches stand out
    nose_plan: float  # how far the nose curves back at its sides
    tail_plan: float
    nose_taper: float
    tail_taper: float
    screen_curve: float
    nose_round: float  # depth of the nose's rounded edge
    tail_round: float
    nose_rake: float
    tail_rake: float
    hood_crown: float
    roof_square: float  # exponent of the section: 2 is an ellipse
    # Windows.
    rail: float  # thickness of pillars and of the roof's side above the windows
    b_pillar: float  # fraction of the cabin at which the doors meet
    kink: float  # lean of the rearmost window's end
    quarter: float  # length of the quarter glass
    # Face.
    head_in: float  # inner end of the lamp, a fraction of the half-width
    head_z: float  # fraction of the nose's height
    head_height: float
    head_flick: float  # rise from the inner end to the outer
    head_wrap: float  # how far the lamp reaches around the corner
    head_taper: float  # the inner end's height, a fraction of the outer's
    grille_width: float  # a fraction of the half-width
    grille_z: float
    grille_height: float
    grille_taper: float  # lower edge over upper edge
    intake_width: float
    intake_height: float
    fog_size: float
    # Tail.
    tail_in: float
    tail_lamp_z: float
    tail_height: float
    tail_flick: float
    tail_wrap: float
    tail_lamp_taper: float
    rear_plate_z: float
    cladding_height: float
    mirror_size: float
    # Choices.
    side_windows: str
    head_kind: str
    head_inside: str
    grille_kind: str
    grille_frame: str
    intake_kind: str
    fog_kind: str
    tail_kind: str
    tail_inside: str
    tail_link: str
    window_trim: str
    pillars: str
    cladding: str
    rails: str
    spoiler: str
    antenna: str
    mirror: str
    exhaust: str
    moulding: str
    handles: str
    roof: str
    wheel: str
    bed: str

    def measures(self) -> dict[str, float]:
        """The measures by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type is float or f.type == "float"}

    def choices(self) -> dict[str, str]:
        """The choices by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type is str or f.type == "str"}


def distance(a: Design, b: Design, spread: dict[str, float]) -> float:
    """Mean difference: of measures in units of their spread, of choices as one where they differ."""
    measures_a, measures_b = a.measures(), b.measures()
    choices_a, choices_b = a.choices(), b.choices()
    apart = [abs(measures_a[name] - measures_b[name]) / spread[name] for name in measures_a]
    apart += [float(choices_a[name] != choices_b[name]) for name in choices_a]
    return float(np.mean(apart))
