"""Everybody who can be measured, by part and key."""

from tests.benchmarks.attention import ATTENTION
from tests.benchmarks.case import Contestant, Part
from tests.benchmarks.training import TRAINING

CONTESTANTS: dict[Part, dict[str, Contestant]] = {
    "attention": {contestant.key: contestant for contestant in ATTENTION},
    "training": {contestant.key: contestant for contestant in TRAINING},
}
