"""The circuits of the eight tasks of the embedded model, each judged on pairs it was not chosen on.

    python tests/benchmarks/bench_task_circuits.py [--pairs 128] [--method two-stage] [--tasks ioi quotes]

Goal for each task: at most 5% of the edges, faithfulness at least 0.9, completeness at most 0.1, every node needed
beyond its interval, all under resampling from the paired prompt. The recipe is `find_circuit` with its defaults; one
recipe for all tasks. The same circuits under mean and position-mean ablation stand beside, without a goal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from workbench.anatomy import open_anatomy
from workbench.circuits.validation.curves import Faithful, judge_circuit
from workbench.circuits.validation.find import FoundCircuit, find_circuit
from workbench.circuits.validation.judge import open_judge
from workbench.circuits.validation.pairs import two_halves
from workbench.circuits.validation.protocol import MEAN, POSITION_MEAN, Protocol
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap import eap
from workbench.circuits.wiring.eap_ig import eap_ig_inputs
from workbench.circuits.wiring.two_stage import two_stage
from workbench.intervals import Estimate
from workbench.models import load_model, load_random_model
from workbench.tasks import TASKS, Batch, make_task

METHODS: dict[str, Callable] = {"two-stage": two_stage, "eap-ig": eap_ig_inputs, "eap": eap}


def under(protocol: Protocol, wiring: Wiring, batches: Sequence[Batch], found: FoundCircuit) -> Faithful:
    """The circuit on the pairs it was not chosen on, under another protocol; means are over all pairs."""
    _, second = two_halves(batches, seed=0)
    return judge_circuit(open_judge(wiring, protocol, second, reference=batches), found.mask)


def with_interval(found: Estimate) -> str:
    """Three numbers."""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def line(found: FoundCircuit, others: Sequence[Faithful], seconds: float) -> str:
    """One row of the table."""
    random = found.random.as_good_frac
    shares = " ".join(f"{other.faithfulness_frac.value:.2f}" for other in others)
    controls = " ".join(f"{c.name} {c.control.value:.2f}" for c in found.controls)
    return (
        f"{found.name:13s} reached {found.reached!s:5s} f {with_interval(found.judged.faithfulness_frac)} "
        f"completeness {found.judged.completeness_frac.value:.3f} edges {found.judged.n_kept} "
        f"({found.judged.kept_frac:.2%}) nodes {len(found.nodes)} all needed {found.minimality.all_positive} "
        f"random as good {random.value:.2f} (<= {random.high:.2f}) recovered {found.controls[0].circuit.value:.2f} "
        f"{controls} logits | f under mean, position mean {shares} | {seconds:.0f} s"
    )


def main() -> None:
    """Print one line a task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--method", choices=list(METHODS), default="two-stage")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    options = parser.parse_args()
    model = load_model(device="cpu")
    wiring = Wiring(open_anatomy(model))
    untrained = Wiring(open_anatomy(load_random_model(seed=0, device="cpu")))
    for name in options.tasks:
        start = time.perf_counter()
        batches = make_task(name, model.tokenizer, n_pairs=options.pairs, seed=0).batches()
        found = find_circuit(wiring, batches, METHODS[options.method], name=name, random_model=untrained)
        others = [under(protocol, wiring, batches, found) for protocol in (MEAN, POSITION_MEAN)]
        print(line(found, others, time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
