"""Is a circuit right? Every measurement of one, under a protocol that is data, with intervals and controls.

Protocol, Reference                  how everything outside a circuit is removed, and in one sentence
open_judge(wiring, protocol, pairs)  runs circuits: masks to m (mask, prompt), nodes or edges
judge_circuit, faithfulness_curve    faithfulness and completeness, of one circuit or over sizes with CPR and CMD
minimality, prune_to_minimal         what each node or edge adds; the circuit without those that add nothing
random_circuits, compare             the same measurement where there is nothing to find
resampling_stability, rephrasing_stability    would other prompts have given the same circuit
check_solved, find_circuit           can the model do the task; the smallest circuit, judged on other pairs
"""

from workbench.circuits.validation.cost import forward_equivalents
from workbench.circuits.validation.curves import Curve, Faithful, faithfulness_curve, judge_circuit
from workbench.circuits.validation.find import FoundCircuit, Goal, find_circuit
from workbench.circuits.validation.judge import Judge, open_judge
from workbench.circuits.validation.minimality import Minimality, Pruned, minimality, prune_to_minimal
from workbench.circuits.validation.nulls import (
    Control,
    RandomCircuits,
    compare,
    random_circuits,
    recovered_logits,
)
from workbench.circuits.validation.pairs import shuffled_answers, two_halves
from workbench.circuits.validation.phrasings import phrasings
from workbench.circuits.validation.protocol import (
    DENOISE,
    MEAN,
    OPTIMAL,
    POSITION_MEAN,
    RESAMPLE,
    ZERO,
    Protocol,
    Reference,
)
from workbench.circuits.validation.ranking import Ranking
from workbench.circuits.validation.replacements import replacement, replacements
from workbench.circuits.validation.solved import Solved, check_solved
from workbench.circuits.validation.stability import Stability, rephrasing_stability, resampling_stability

__all__ = [
    "DENOISE",
    "MEAN",
    "OPTIMAL",
    "POSITION_MEAN",
    "RESAMPLE",
    "ZERO",
    "Control",
    "Curve",
    "Faithful",
    "FoundCircuit",
    "Goal",
    "Judge",
    "Minimality",
    "Protocol",
    "Pruned",
    "RandomCircuits",
    "Ranking",
    "Reference",
    "Solved",
    "Stability",
    "check_solved",
    "compare",
    "faithfulness_curve",
    "find_circuit",
    "forward_equivalents",
    "judge_circuit",
    "minimality",
    "open_judge",
    "phrasings",
    "prune_to_minimal",
    "random_circuits",
    "recovered_logits",
    "rephrasing_stability",
    "replacement",
    "replacements",
    "resampling_stability",
    "shuffled_answers",
    "two_halves",
]
