"""The tools that are compared: what is installed, what runs, and the learning rate each is given.

Every run has the same number of tokens, linear warm-up over the first 5% of the steps and linear decay over the
last 30% where the tool has such a schedule; sparsify's default optimiser has none, and its Adam decays from the
end of the warm-up on. The peak rates are the best of a short list, since the tools' own defaults are meant for runs
a thousand times as long and would make them look worse than they are. Measured on a quarter of the latents and half
of the batch (80 steps; FVU of the first 4,096 held-out rows):

    peak rate             4e-3    8e-3   1.6e-2
    ours                0.4859  0.4117  0.4443
    dense torch            -    0.4117  0.4443
    sae-lens            0.4093  0.4220  0.5120
    dictionary-learning 0.4917  0.4191  0.4496
    sparsify, Adam         -    0.4476  0.4371
    sparsify            0.5418 (3.5e-3), 0.5051 (7e-3)

`python -m tests.benchmarks.peers rates` measures them at full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TORCH = "torch==2.13.0"
D_SAE = 8192
SCALE = (
    2**14 / D_SAE
) ** 0.5  # the tools' common rule: default rates fall with the root of the latents' number


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: Its folder.
        package: What pip installs, with its version.
        without: Required packages that are taken out again after installing.
        also: Requirements installed with it, to choose releases that it leaves open.
        replaced: (module, old, new): text replaced in the installed files of a module.
    """

    name: str
    package: str
    without: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str, str], ...] = ()


SAELENS = Environment("sae-lens", "sae-lens==6.54.12")
# EleutherAI's; the package named plain "sparsify" is another
SPARSIFY = Environment("sparsify", "eai-sparsify==1.3.3")
# torchvision comes as a build for another torch than the CPU's, which then does not import; it is not used
DICTIONARY_LEARNING = Environment("dictionary-learning", "dictionary-learning==0.1.0", ("torchvision",))


@dataclass(frozen=True)
class Tool:
    """One trainer.

    Attributes:
        name: Its row of the table.
        environment: Where it runs; None for the workbench's own environment.
        script: File in `harness/`.
        lr: Peak learning rate of the comparison.
        rates: Rates that `rates` tries; the first is the tool's own default.
        goal: How many times its tokens/s ours are meant to reach where the CPU has bf16 instructions.
        options: What the script is told beside the task.
    """

    name: str
    environment: Environment | None
    script: str
    lr: float
    rates: tuple[float, ...]
    goal: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)


OURS = Tool("ours", None, "train_ours.py", 8e-3, (3e-3 * SCALE, 8e-3, 1.6e-2))
TOOLS = (
    OURS,
    Tool("dense torch", None, "train_dense.py", 8e-3, (4e-3, 8e-3, 1.6e-2)),
    Tool("sae-lens", SAELENS, "train_saelens.py", 4e-3, (3e-4, 2e-3, 4e-3, 8e-3), goal=10),
    Tool(
        "dictionary-learning",
        DICTIONARY_LEARNING,
        "train_dictionary_learning.py",
        8e-3,
        (2e-4 * SCALE, 4e-3, 8e-3, 1.6e-2),
        goal=8,
    ),
    Tool(
        "sparsify",
        SPARSIFY,
        "train_sparsify.py",
        5e-3 * SCALE,
        (5e-3 * SCALE, 2.5e-3 * SCALE, 1e-2 * SCALE),
        goal=3,
        options={"optimiser": "signum"},
    ),
    Tool(
        "sparsify, Adam",
        SPARSIFY,
        "train_sparsify.py",
        1.6e-2,
        (2e-4 * SCALE, 8e-3, 1.6e-2),
        options={"optimiser": "adam"},
    ),
)
