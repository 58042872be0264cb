"""Hand-compiled transformers: weights written by hand, so that the circuit is known edge by edge.

bed = make_testbed("compiled.induction", sharpness=50.0, leak=0.05, seed=1)

`plan.py` says what a circuit is, `build.py` turns it into weights among distractors and noise; the beds are
in `copying.py`, `matching.py` and `gates.py`.
"""

from workbench.testbeds.compiled import copying, gates, matching
from workbench.testbeds.compiled.recipe import builder

RECIPES = {**matching.RECIPES, **copying.RECIPES, **gates.RECIPES}
BEDS = {name: builder(name, recipe) for name, recipe in RECIPES.items()}

__all__ = ["BEDS", "RECIPES"]
