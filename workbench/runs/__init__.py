"""A run: one folder, six stages, and the record that makes it again.

`workbench run --params run.yaml` checks the parameters (`parameters`, against `options` and the notebooks),
gives every stage a key (`plan`, with `fingerprints`), and lets Snakemake make what is missing or out of date
(`chain`). Each stage is a notebook executed by papermill (`execute`, `lines`); when it ends it leaves its
stamp and the run record is renewed (`record`). What goes wrong becomes one sentence (`failures`).
"""

from __future__ import annotations

from workbench.runs.chain import Outcome, run_chain, summary
from workbench.runs.options import Option, options
from workbench.runs.stages import STAGES, Stage

__all__ = ["STAGES", "Option", "Outcome", "Stage", "options", "run_chain", "summary"]
