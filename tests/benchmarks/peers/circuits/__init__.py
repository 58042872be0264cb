"""The workbench's circuits beside other circuit tools, each in an environment of its own.

    python -m tests.benchmarks.peers.circuits                    (`make bench-peers-circuits`) every measurement
    python -m tests.benchmarks.peers.circuits --only graph,sweep    those whose names contain a part
    python -m tests.benchmarks.peers.circuits --inputs FOLDER    the models, prompts and dictionaries kept there
    python -m tests.benchmarks.peers.circuits --results FOLDER   the tools' own results, as safetensors
    python -m tests.benchmarks.peers.circuits install            only the environments

Two of the tools are installed from GitHub at one commit. Where GitHub cannot be reached, git itself can be told of a
clone (`git config --global url.<clone>.insteadOf https://github.com/<owner>/<name>`).

Every tool works on the same files (`inputs.py`): GPT-2 models with random weights, prompt pairs, circuits, random
transcoders. A measurement (`work.py`) is one process that loads these once and then repeats the work when told to;
`Measurement.run` gives seconds, CPU seconds and the peak of resident memory, `save` the tool's result with what it
means in the harness that wrote it (`harness/graph_circuit_tracer.py`, `edges_eap_ig.py`,
`patching_transformer_lens.py`).
"""
