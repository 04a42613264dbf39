"""python -m microlens simulate | train | evaluate | classify | notebook | merge | export | doctor

Flags are made from the stage's configuration: `--n_flat` and `--n-flat` are the same, `--help` gives unit and range, and
`-f parameters.yaml` takes values from a file, the same that a notebook takes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import typing
from typing import Annotated

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices here are small; read when NumPy is imported

import tyro

from microlens import config as cfg


def parse(cls, args, extra=()):
    """A configuration (and values of `extra` fields) from the command line, by tyro.

    `-f FILE` takes values from a YAML file of parameters; flags have the last word.
    """
    hints, args, given = typing.get_type_hints(cls), list(args), {}
    while "-f" in args[:-1]:
        at = args.index("-f")
        given |= cfg.read_parameters(args[at + 1])
        del args[at : at + 2]
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise ValueError(f"-f: {cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(hints))}.")
    fields = list(extra)
    for f in dataclasses.fields(cls):
        words = [w for w in (f.metadata["unit"], cfg.describe_range(f)) if w]
        text = f.metadata["help"] + (f" [{'; '.join(words)}]" if words else "")
        default = dataclasses.field(default=given.get(f.name, f.default))
        fields.append((f.name, Annotated[hints[f.name], tyro.conf.arg(help=text)], default))
    flat = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
    flat.__doc__ = cls.__doc__
    parsed = tyro.cli(flat, args=args, prog=f"microlens {cls.__name__.removesuffix('Config').lower()}")
    values = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(flat)}
    others = [values.pop(name) for name, *_ in extra]
    return cls(**values), others


def simulate(args):
    config, _ = parse(cfg.SimulateConfig, args)
    from microlens.data.simulation import simulate

    print(simulate(config))


def train(args):
    config, _ = parse(cfg.TrainConfig, args)
    from microlens.network.training import train

    print(train(config, progress=sys.stderr.isatty()))  # a bar in a batch job's log is noise; it gets a line an epoch


def evaluate(args):
    config, _ = parse(cfg.EvaluateConfig, args)
    from microlens.evaluate import evaluate

    print(evaluate(config))


def classify(args):
    files = ("files", tyro.conf.Positional[tuple[str, ...]], dataclasses.field())
    config, (paths,) = parse(cfg.ClassifyConfig, args, [files])
    if not paths:
        raise ValueError("no file given: python -m microlens classify FILE...")
    from microlens.evaluate.light_curves import classify

    table, errors = classify(paths, config)
    if config.json:
        print(table.to_json(orient="records", indent=1))
    elif config.csv:
        print(table.to_csv(index=False), end="")
    elif len(table):
        print(table.to_string(index=False, float_format=lambda x: f"{x:.4f}"))
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    return 1 if errors else 0


def notebook(args):
    """notebook all | NAME [-p name value]... [-f parameters.yaml] [-o output.ipynb]"""
    import argparse

    import yaml

    from microlens.notebook import run_all, run_notebook

    parser = argparse.ArgumentParser(prog="microlens notebook", description="Execute notebooks; an undeclared parameter is an error.")
    parser.add_argument("name", help="'all', a path, or a unique part of a notebook's name")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("-f", action="append", default=[], metavar="FILE", help="YAML file of parameters")
    parser.add_argument("-o", default=None, metavar="FILE", help="where the executed notebook goes")
    given = parser.parse_args(args)
    if given.name == "all":
        if given.p or given.f:
            raise ValueError("parameters go to one notebook; 'all' runs each with its own.")
        run_all()
        return
    parameters = {}
    for file in given.f:
        parameters |= cfg.read_parameters(file)
    parameters |= {k: yaml.safe_load(v) for k, v in given.p}
    print(run_notebook(given.name, parameters, given.o))


def merge(args):
    """merge OUTPUT SHARD... [--virtual]"""
    import argparse

    from microlens.data.format import concatenate

    parser = argparse.ArgumentParser(prog="microlens merge", description="Join shards into one dataset.")
    parser.add_argument("output")
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--virtual", action="store_true", help="by reference (HDF5 virtual datasets) instead of copying")
    given = parser.parse_args(args)
    print(concatenate(given.shards, given.output, virtual=given.virtual))


def export(args):
    """export RUN FOLDER [--validation FILE]"""
    import argparse

    from microlens.evaluate import export

    parser = argparse.ArgumentParser(prog="microlens export", description="Copy a run's weights, configuration, log and validation "
                                     "rows into a folder, to be shared.")
    parser.add_argument("run", help="a unique part of the run's name")
    parser.add_argument("folder")
    parser.add_argument("--validation", metavar="FILE", help="dataset (of split val, say) on which thresholds are chosen, not on "
                        "the run's own validation rows")
    given = parser.parse_args(args)
    print(export(given.run, given.folder, given.validation))


def doctor(args):
    if args:
        raise ValueError("doctor takes no arguments.")
    from microlens.doctor import doctor

    return doctor()


STAGES = {f.__name__: f for f in (simulate, train, evaluate, classify, notebook, merge, export, doctor)}


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    if argv[0] not in STAGES:
        print(f"error: unknown command {argv[0]!r}; choose one of {', '.join(STAGES)}.", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return STAGES[argv[0]](argv[1:]) or 0
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
