"""What somebody who knows a concept's question and the names of its reads would look at: plain-code imitations.

Written from the questions and the primitives' names alone, before any output of a node was looked at. A line names
readings that speak for the concept, `-` those that speak against it; all count alike. A reading is a primitive
(`vision.bank.CHANNELS`) or one of the `GROUPS` of edges: everywhere in the picture, `*` in its middle, `^` where it is
strongest (`vision.plain.WHERE`). An edge's number is the direction of the gradient: 0 is an upright line, 90 a level
one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vision.bank import CHANNELS
from vision.plain import reading

GROUPS: dict[str, tuple[str, ...]] = {
    "fine": tuple(c for c in CHANNELS if c.startswith("edge_fine_")),
    "middle": tuple(c for c in CHANNELS if c.startswith("edge_middle_")),
    "coarse": tuple(c for c in CHANNELS if c.startswith("edge_coarse_")),
    "upright": ("edge_middle_0", "edge_coarse_0"),
    "level": ("edge_middle_90", "edge_coarse_90"),
    "slanted": ("edge_middle_30", "edge_middle_60", "edge_middle_120", "edge_middle_150"),
    "colours": ("red_green_spread", "blue_yellow_spread"),
}
_PLACES = {"*": "middle", "^": "strongest"}
WORDS: dict[str, str] = {
    "orange": "orange^ red_green^", "yellow": "yellow^ -blue^", "red": "red^ red_green^", "green": "green^",
    "blue": "blue^ cyan^", "tan": "brown^ orange^ -green -blue", "reddish_brown": "brown^ red^",
    "dark_brown": "brown^ black^ -white", "white": "white* white^", "grey": "grey* grey^",
    "black": "black* black^", "gold_or_brass": "yellow^ orange^ brown^", "warm_glow": "yellow^ orange^ lightness^",
    "yellow_or_orange_on_black": "yellow^ orange^ black^", "black_beside_white": "black^ white^ lightness_spread^",
    "many_colours": "red^ yellow^ blue^ green^ colours^",
    "fur": "fine* brown* -white", "shaggy_fur": "fine* middle* lightness_spread*",
    "short_fur": "brown* grey* -fine^", "mottled": "lightness_spread* dark_spot* light_spot*",
    "stripes": "middle* coarse* lightness_spread*", "small_spots": "light_spot^ light_spot",
    "segments": "middle* dark_spot*", "hard_shell": "light_spot* dark_blob* brown*",
    "bumps_or_spines": "fine* light_spot* dark_spot*", "fine_network": "fine fine^ lightness_spread",
    "glossy": "light_spot^ white^ -fine", "shiny_metal": "grey* light_spot^ white^",
    "dark_glass": "black* grey* -fine*", "transparent": "grey* lightness* -colours",
    "wood": "brown* orange* upright", "masonry": "brown level grey fine", "coarse_fibres": "fine* fine^ yellow*",
    "cloth_folds": "coarse* slanted* -fine", "printed_cloth": "colours* fine* red*",
    "bare_skin": "orange* pink* red_green*", "lumpy": "light_blob* dark_blob* -fine^", "green_pieces": "green^ green",
    "crowded_detail": "fine middle lightness_spread colours", "lattice": "slanted upright level lightness_spread",
    "grid": "upright level lightness_spread*", "lettering": "fine^ lightness_spread^ white^",
    "round_shape": "light_blob* dark_blob* slanted*", "ring": "slanted^ dark_spot* coarse*",
    "oval_shape": "light_blob* dark_blob*", "long_body": "coarse* slanted* dark_blob*",
    "rounded_back": "slanted* dark_blob*", "long_curve": "slanted^ coarse^", "loops": "slanted^ middle^ dark_spot^",
    "box": "upright^ level^ -slanted", "cylinder": "upright* level*", "flared_shape": "slanted* coarse*",
    "upright_pole": "upright^ edge_coarse_0*", "tower": "upright^ blue upright*", "thin_rod": "fine^ middle^ -fine",
    "long_horizontal_bar": "level^ edge_coarse_90*", "parallel_bars": "upright upright^ lightness_spread",
    "thin_lines": "fine^ blue lightness", "radial_pattern": "slanted slanted^ upright level",
    "pointed_tip": "slanted^ fine^", "repeated_items": "middle lightness_spread fine",
    "small_round_items": "light_spot light_spot^ dark_spot", "dark_against_sky": "blue white black^ coarse^",
    "animal_face": "dark_spot* brown* fine*", "muzzle": "dark_spot* light_blob*", "dark_face": "black* dark_blob*",
    "upright_ears": "slanted^ brown^ dark_spot^", "round_eyes": "dark_spot^ black^ light_spot^",
    "four_legs": "upright* brown* dark_spot", "long_thin_legs": "upright^ middle^ -lightness_spread",
    "jointed_legs": "fine^ slanted^ black^", "antennae": "fine^ slanted^ green", "wings": "fine* slanted* green",
    "fin_or_flipper": "blue cyan slanted*", "wheel": "black^ dark_blob^ dark_spot^",
    "windscreen": "black* grey* level*", "seat": "level* upright* brown*", "handle": "coarse^ slanted^",
    "dish": "white* light_blob* slanted", "dial": "white* light_spot* slanted*",
    "screen": "black* blue* upright* level*", "keys_or_buttons": "light_spot* dark_spot* fine*",
    "control_panel": "grey* light_spot* upright* level*", "prepared_food": "orange* brown* yellow* red*",
    "fruit": "red* orange* yellow* green*", "person": "pink* orange* upright*", "several_people": "pink orange upright",
    "human_face": "orange^ pink^ dark_spot*", "human_hand": "orange^ pink^ slanted^",
    "human_legs": "orange^ pink^ upright^",
    "sky": "blue cyan lightness -fine", "horizon": "edge_coarse_90^ edge_coarse_90 blue", "grass": "green fine -blue",
    "green_leaves": "green green^ middle", "trees": "green fine black", "blurred_background": "-fine -lightness_spread",
    "plain_background": "white lightness -fine -colours", "dark_background": "black -lightness",
    "water_surface": "blue cyan level -upright", "under_water": "blue cyan -red -yellow",
    "sand_or_gravel": "brown orange fine -green -blue", "rocks": "grey brown middle -green",
    "forest_floor": "brown fine green", "street": "grey -green -colours", "buildings": "upright level grey",
    "indoor_room": "brown orange -green -blue", "table_surface": "brown level -green",
    "insect_body": "black* slanted* green", "worn_clothing": "colours* coarse* pink^",
    "head_and_chest": "orange^ pink^ coarse*", "heaped_food": "orange* yellow* brown* white",
    "machine_front": "grey* upright* level* light_spot*", "wide_landscape": "blue level^ green -upright",
    "tall_structure": "upright upright^ blue", "tool_on_a_stick": "slanted^ middle^ -lightness_spread",
    "low_body": "level* dark_blob* brown", "head_of_dog_or_cat": "brown* dark_spot* fine*",
    "wooden_furniture": "brown* orange* upright* level*", "round_vessel": "slanted* light_blob* grey*",
    "sea_floor": "blue cyan fine -level",
    # The part world, whose parts have any colour.
    "box_body": "upright^ level^ -slanted", "round_body": "slanted* light_blob* dark_blob*",
    "wheels": "black^ dark_blob^ dark_spot^", "windows": "light_spot* white* upright*", "chimney": "upright^ coarse^",
    "dots": "dark_spot* dark_spot^ lightness_spread*", "legs": "upright^ middle^", "ears": "slanted^ coarse^",
    "whiskers": "fine^ slanted^", "petals": "slanted slanted^ light_spot",
}  # fmt: skip
"""Concept -> what to look at. `handle`, `stripes`, `wings` and `antennae` serve both worlds."""
SLOPE = 1.5
"""Log odds per standard deviation of what an imitation sees: "rather yes" at one, "surely" at two. Never fitted."""


def terms(name: str) -> list[tuple[int, tuple[str, ...], str]]:
    """(sign, primitives that are averaged, where) of each word of a concept's line.

    Raises:
        KeyError: nobody wrote a line for that concept.
    """
    found = []
    for word in WORDS[name].split():
        sign = -1 if word.startswith("-") else 1
        word = word.removeprefix("-")
        where = _PLACES.get(word[-1], "everywhere")
        channel = word.rstrip("*^")
        found.append((sign, GROUPS.get(channel, (channel,)), where))
    return found


class Imitator:
    """Imitations of concepts, from primitives alone.

    Args:
        primitives: uint8[n, channels, 16, 16] of photographs that say how much of a reading is usual: what the model's
            rules were fitted on. What any node says of them is not looked at.
    """

    def __init__(self, primitives: npt.NDArray[np.uint8]) -> None:
        usual = readings_of(primitives)
        self.usual = {name: (float(v.mean()), max(float(v.std()), 1e-4)) for name, v in usual.items()}

    def evidence(
        self, name: str, primitives: npt.NDArray[np.uint8] | dict[str, npt.NDArray[np.float64]], reads: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """What the imitation of a concept says of pictures, float64[n], about 1 wide; only primitives among `reads`
        (of the node that it stands for) are looked at, and none gives 0."""
        values = primitives if isinstance(primitives, dict) else readings_of(primitives)
        allowed = {CHANNELS[i] for i in reads}
        total, count = np.zeros(len(next(iter(values.values())))), 0
        for sign, channels, where in terms(name):
            rows = []
            for channel in channels:
                if channel in allowed:
                    mean, spread = self.usual[f"{channel}_{where}"]
                    rows.append((values[f"{channel}_{where}"] - mean) / spread)
            if rows:
                total += sign * np.mean(rows, axis=0)
                count += 1
        return total / max(count, 1) ** 0.5


def readings_of(primitives: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """All readings of pictures, float64[n] each, by name."""
    return {
        f"{channel}_{where}": reading(primitives, f"{channel}_{where}")
        for channel in CHANNELS
        for where in ("everywhere", "middle", "strongest")
    }
