"""Every architecture on every layout, trained alike on the embedded model, as one Markdown table.

    python tests/benchmarks/bench_architectures.py [--layouts all] [--tokens 1500000] [--only topk gated]

Sizes are the demo's: d_sae 4096, k 32 (for all layers together where there are several), batches of 2048 tokens.
Penalised architectures steer to an L0 of k. Figures are on held-out text with the evaluation of the demo; beside
each the random dictionary's of the same size and L0. The activations are captured once into the folder of
`--run` and kept; each row trains in a scratch folder. A row that fails prints its error and the table goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.capture import capture, load_captured_model, open_store
from workbench.dictionaries import ARCHITECTURES
from workbench.evaluation import evaluate
from workbench.evaluation.frontier import markdown
from workbench.training import train

READS = [f"blocks.{layer}.ln2.hook_normalized" for layer in (1, 2)]
WRITES = [f"blocks.{layer}.hook_mlp_out" for layer in (1, 2)]
STREAM = [f"blocks.{layer}.hook_resid_post" for layer in (1, 2)]
LAYOUTS: dict[str, dict[str, Any]] = {
    "autoencoder": {"hook": STREAM[1]},
    "transcoder": {"layout": "transcoder", "hook": READS[1], "hook_out": WRITES[1]},
    "skip_transcoder": {"layout": "skip_transcoder", "hook": READS[1], "hook_out": WRITES[1]},
    "crosscoder": {"layout": "crosscoder", "hook": STREAM},
    "cross_layer_transcoder": {"layout": "cross_layer_transcoder", "hook": READS, "hook_out": WRITES},
    "end_to_end": {"hook": STREAM[1], "end_to_end": {}},
}
COLUMNS = {
    "architecture": "", "layout": "", "L0": ".1f", "FVU": ".3f", "FVU random": ".3f", "CE recovered": ".1%",
    "CE random": ".1%", "KL recovered": ".1%", "dead": ".1%", "dense": ".1%", "gamma": ".3f", "tokens/s": ",.0f",
    "seconds": ".0f",
}  # fmt: skip
SIZES = {"d_sae": 4096, "k": 32, "batch_size": 2048}


def row(
    run: Path, architecture: str, layout: str, n_tokens: int, model: Any, n_blocks: int
) -> dict[str, Any]:
    """Train and evaluate one; the figures by the names of `COLUMNS`."""
    with tempfile.TemporaryDirectory(prefix=".row-", dir=run) as name:
        scratch = Path(name)
        (scratch / "activations").symlink_to((run / "activations").resolve(), target_is_directory=True)
        start = time.perf_counter()
        train(scratch, architecture=architecture, n_tokens=n_tokens, **SIZES, **LAYOUTS[layout])
        seconds = time.perf_counter() - start
        log = pd.read_parquet(scratch / "dictionary" / "metrics.parquet")
        found = evaluate(scratch, model=model, n_blocks=n_blocks)
    own, control = found["trained"], found["random"]
    return {
        "architecture": architecture, "layout": layout, "L0": own["l0"], "FVU": own["fvu"],
        "FVU random": control["fvu"], "CE recovered": own["ce_recovered_frac"],
        "CE random": control["ce_recovered_frac"], "KL recovered": own["kl_recovered_frac"],
        "dead": own["dead_frac"], "dense": own["dense_frac"], "gamma": own["gamma"],
        "tokens/s": float(log["tokens_per_s"].median()), "seconds": seconds,
    }  # fmt: skip


def measured(run: Path, arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that were made, and what went wrong with the others."""
    model = load_captured_model(open_store(run, STREAM[1]))
    rows, failed = [], []
    for layout in LAYOUTS if arguments.layouts == ["all"] else arguments.layouts:
        for architecture in arguments.only or ARCHITECTURES:
            try:
                rows.append(row(run, architecture, layout, arguments.tokens, model, arguments.blocks))
                print(markdown(pd.DataFrame(rows[-1:]), COLUMNS).splitlines()[-1], flush=True)
            except Exception as error:  # the other rows are still worth having
                failed.append(f"{architecture}, {layout}: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)
                if arguments.traceback:
                    traceback.print_exc()
    return rows, failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=250_000, help="training tokens of each row")
    parser.add_argument("--only", nargs="*", choices=sorted(ARCHITECTURES), help="architectures; default all")
    parser.add_argument("--layouts", nargs="*", choices=["all", *LAYOUTS], default=["autoencoder"])
    parser.add_argument(
        "--captured", type=int, default=255_000, help="rows of activations that are trained on"
    )
    parser.add_argument("--blocks", type=int, default=96, help="blocks of held-out text of the evaluation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", type=Path, default=Path("runs/bench_architectures"))
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--traceback", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hooks = sorted({*READS, *WRITES, *STREAM}) if arguments.layouts != ["autoencoder"] else STREAM[1:]
    capture(arguments.run, hooks=hooks, n_tokens=arguments.captured)
    rows, failed = measured(arguments.run, arguments)
    print(f"\n{arguments.tokens:,} training tokens each, {arguments.threads} threads\n")
    print(markdown(pd.DataFrame(rows), COLUMNS) if rows else "no row was made")
    print("".join(f"\nfailed: {line}" for line in failed))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
