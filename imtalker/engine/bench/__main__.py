"""How fast the networks are, as ratios in one process: the published order of work, the plain batched path, the engine.

Needs only torch, transformers and safetensors. Weights are seeded stand-ins of the chosen preset's sizes, inputs are
made here, so that nothing has to be fetched. `imtalker bench` measures the rest of the pipeline too.
"""

from __future__ import annotations

import argparse
import json
import sys

from imtalker.engine.bench.networks import NETWORK_PARTS, measure_networks
from imtalker.engine.bench.options import DTYPES, NetworkOptions, default_device
from imtalker.engine.bench.render import BaselineError
from imtalker.engine.bench.report import document, environment, table
from imtalker.presets import PRESETS


def main() -> None:
    usual = NetworkOptions()
    parser = argparse.ArgumentParser("imtalker.engine.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORK_PARTS, default=list(NETWORK_PARTS))
    parser.add_argument("--model", choices=PRESETS, default=usual.model)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=usual.precisions)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", type=int, default=usual.batch_size)
    parser.add_argument("--frames", type=int, default=usual.frames)
    parser.add_argument("--audio-seconds", type=float, default=usual.audio_seconds)
    parser.add_argument("--in-flight", type=int, default=usual.in_flight)
    parser.add_argument("--rounds", type=int, default=usual.rounds)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--matrix-size", type=int)
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args())
    only, as_json = given.pop("only"), given.pop("json")
    options = NetworkOptions(precisions=tuple(given.pop("precision")), **given)
    facts = environment(options)
    try:
        rows = measure_networks(options, only)
    except BaselineError as exc:
        sys.exit(f"error: {exc}")
    sys.stdout.write(json.dumps(document(facts, rows), indent=1) if as_json else table(facts, rows))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
