"""Steering by groups is run again for whatever determines it, and for nothing else."""

from dataclasses import replace

import torch

from assets.hierarchy.group_reuse import steering_fingerprint
from assets.hierarchy.group_steering import Intervention, MeasuredToken

CORE = Intervention("days", "core", "days", 0, None, torch.tensor([0.6, 0.8]), 2)
NULL = replace(CORE, intervention="null_core", draw=1, seed=5, direction=torch.tensor([0.8, 0.6]))
MONDAY = MeasuredToken("Monday", 7, " Mon")
RED = MeasuredToken("red", 9, " red")
PROMPTS = [[1, 2, 3], [4, 5]]
MADE_WITH = (0.5, "code", "revision", "L26.mlp_hidden")


def test_each_part_counts_and_so_does_their_order() -> None:
    made_with = [
        steering_fingerprint([CORE, NULL], [MONDAY, RED], PROMPTS, MADE_WITH),
        steering_fingerprint([NULL, CORE], [MONDAY, RED], PROMPTS, MADE_WITH),
        steering_fingerprint([CORE], [MONDAY, RED], PROMPTS, MADE_WITH),
        steering_fingerprint(
            [replace(CORE, direction=torch.tensor([0.6, -0.8])), NULL],
            [MONDAY, RED],
            PROMPTS,
            MADE_WITH,
        ),
        steering_fingerprint([CORE, NULL], [MONDAY], PROMPTS, MADE_WITH),
        steering_fingerprint(
            [CORE, NULL], [MONDAY, replace(RED, shared_with=("read",))], PROMPTS, MADE_WITH
        ),
        steering_fingerprint([CORE, NULL], [MONDAY, RED], [[1, 2], [3, 4, 5]], MADE_WITH),
        steering_fingerprint([CORE, NULL], [MONDAY, RED], PROMPTS, (0.25, *MADE_WITH[1:])),
    ]
    assert len(set(made_with)) == len(made_with)


def test_the_same_parts_give_the_same_fingerprint() -> None:
    again = replace(CORE, direction=CORE.direction.double().clone().float())
    assert steering_fingerprint([again], [MONDAY], PROMPTS, MADE_WITH) == steering_fingerprint(
        [CORE], [replace(MONDAY)], [tuple(ids) for ids in PROMPTS], list(MADE_WITH)
    )
