"""Statistics with the same numbers of rows of each source and rate as the published ones of Open-AgentRL-30K."""

import json
import random
from pathlib import Path

# Rows that were solved 0, 1, ... 8 times out of 8.
PUBLISHED: dict[str, tuple[int, ...]] = {
    "math_dapo": (3256, 1119, 926, 1008, 1151, 1425, 1897, 2704, 4431),
    "mega-science": (1714, 159, 104, 98, 98, 114, 115, 178, 420),
    "train-math-numinamath1.5_olympiads": (838, 249, 203, 192, 133, 124, 111, 109, 120),
    "train-math-deepscaler": (812, 216, 194, 161, 143, 106, 72, 72, 57),
    "train-code-taco-easy": (1154, 79, 65, 80, 71, 70, 94, 78, 68),
    "train-code-taco-medium_hard": (227, 61, 41, 38, 37, 43, 39, 37, 22),
    "train-math-numinamath1.5_aops_forum": (183, 66, 40, 33, 41, 34, 24, 22, 23),
    "train-code-leetcode-Medium": (52, 57, 69, 54, 54, 63, 59, 33, 12),
    "train-code-taco-medium": (146, 35, 33, 40, 28, 27, 27, 24, 18),
    "train-code-taco-unknown_difficulty": (83, 43, 34, 31, 38, 32, 25, 39, 26),
    "train-code-taco-hard": (112, 28, 27, 24, 20, 19, 32, 25, 11),
    "train-math-numinamath1.5_cn_contest": (76, 38, 25, 20, 16, 20, 13, 7, 5),
    "train-code-leetcode-Hard": (50, 31, 31, 34, 28, 19, 9, 6, 2),
    "train-math-still3": (58, 23, 19, 12, 8, 16, 12, 6, 7),
    "train-code-taco-very_hard": (33, 11, 14, 9, 13, 13, 12, 7, 12),
    "train-code-leetcode-Easy": (9, 4, 6, 7, 11, 17, 16, 10, 7),
    "train-math-aime19832023": (35, 9, 7, 6, 4, 9, 3, 3, 1),
    "test-code-leetcode-Medium": (18, 8, 7, 10, 13, 4, 8, 4, 0),
    "train-math-numinamath1.5_amc_aime": (7, 3, 3, 1, 0, 2, 2, 1, 5),
    "train-math-numinamath1.5_inequalities": (9, 3, 2, 1, 1, 1, 4, 0, 0),
    "test-code-leetcode-Hard": (3, 3, 4, 2, 3, 1, 1, 2, 1),
    "test-code-leetcode-Easy": (2, 1, 1, 2, 2, 3, 0, 1, 1),
    "train-math-numinamath1.5_olympiads_ref": (5, 3, 0, 0, 1, 1, 0, 1, 1),
    "train-math-numinamath1.5_number_theory": (4, 0, 0, 0, 0, 0, 0, 1, 0),
    "train-math-omnimath": (0, 0, 1, 1, 0, 0, 0, 0, 1),
}
TOTAL = 30128


def write_statistics(path: Path) -> Path:
    """A file of 30,128 lines in the published form, its rows in a seeded random order, uids from 0."""
    rows = [(source, k) for source, counts in PUBLISHED.items() for k in range(9) for _ in range(counts[k])]
    random.Random(0).shuffle(rows)
    with path.open("w", encoding="utf-8") as file:
        for uid, (source, successes) in enumerate(rows):
            rate = successes / 8
            line = {
                "uid": str(uid),
                "data_source": source,
                "successes": successes,
                "attempts": 8,
                "success_rate": rate,
                "avg_score": rate,
                "keep": successes < 8,
            }
            file.write(json.dumps(line) + "\n")
    return path
