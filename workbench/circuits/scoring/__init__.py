"""Scores of circuits: edges against known truth, faithfulness over sizes, agreement under resampling.

detection_over_beds(scores, truths)           # exact AUROC and AUPRC with intervals, beside random scores
cpr(metric, full=..., empty=..., axis=...)    # areas over circuit sizes; the axis is part of the result
top_k_stability(scores, k)                    # Jaccard of the top edges over resamples or rephrasings
"""

from workbench.circuits.scoring.areas import MIB_SIZES, SizeArea, SizeAxis, area, cmd, cpr
from workbench.circuits.scoring.curves import Curves, auprc, auroc, curves
from workbench.circuits.scoring.detection import (
    Detection,
    detection_over_beds,
    detection_over_prompts,
    random_scores,
)
from workbench.circuits.scoring.stability import (
    Stability,
    jaccard,
    random_jaccard,
    set_stability,
    top_k_set,
    top_k_stability,
)

__all__ = [
    "MIB_SIZES",
    "Curves",
    "Detection",
    "SizeArea",
    "SizeAxis",
    "Stability",
    "area",
    "auprc",
    "auroc",
    "cmd",
    "cpr",
    "curves",
    "detection_over_beds",
    "detection_over_prompts",
    "jaccard",
    "random_jaccard",
    "random_scores",
    "set_stability",
    "top_k_set",
    "top_k_stability",
]
