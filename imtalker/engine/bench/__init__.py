"""How fast the networks are: `measure_networks` of `imtalker.engine.bench.networks`, or ``python -m`` this package."""
