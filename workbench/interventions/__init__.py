"""Interventions on any node, in logits and in generated text, with the unedited model beside.

outcome = intervene(anatomy, pairs, {"ablate": ablate("a1.h3"), "halve": scale("m2", 0.5)}, freeze=("attention",))
outcome.table()
generate(anatomy, prompts, ablate(features(dictionary, 17)), n_tokens=20)
steer(anatomy, pairs, difference_of_means(anatomy, positive, negative, layer=2)).table()
"""

from workbench.interventions.freeze import FREEZABLE
from workbench.interventions.generate import Generation, generate
from workbench.interventions.intervene import intervene
from workbench.interventions.intervention import (
    Intervention,
    ablate,
    add,
    patch,
    scale,
    set_to,
    steer_by,
)
from workbench.interventions.outcome import Outcome
from workbench.interventions.steer import Steering, steer, steer_layers
from workbench.interventions.steering import (
    SteeringVector,
    decoder_vector,
    difference_of_means,
    random_vector,
)
from workbench.interventions.target import Target, attention, features, head, mlp, neurons, stream, target

__all__ = [
    "FREEZABLE",
    "Generation",
    "Intervention",
    "Outcome",
    "Steering",
    "SteeringVector",
    "Target",
    "ablate",
    "add",
    "attention",
    "decoder_vector",
    "difference_of_means",
    "features",
    "generate",
    "head",
    "intervene",
    "mlp",
    "neurons",
    "patch",
    "random_vector",
    "scale",
    "set_to",
    "steer",
    "steer_by",
    "steer_layers",
    "stream",
    "target",
]
