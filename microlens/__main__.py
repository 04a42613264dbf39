"""microlens simulate | train | evaluate | classify | calibrate | stream | figures | notebook | export |
export-parquet | doctor

Flags are made from the stage's configuration: `--n_flat` and `--n-flat` are the same, `--help` gives unit and range,
and `-f parameters.yaml` takes values from a file, the same that a notebook takes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import typing
from importlib import metadata
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices here are small; read when NumPy is imported

import tyro

from microlens import config as cfg
from microlens.files import parse_yaml, read_parameters

REFERENCE = (0.01, 0.01, 0.8, 0.1, 0.01, 18.2833820123)
"""x, y, s, q, rho of a binary lens and its magnification, converged with two independent methods at tolerance 1e-7."""


def parse(cls, args, **positional):
    """A configuration from the command line, by tyro, and all that was given as attributes of an object.

    `-f FILE` takes values from a YAML file of parameters; flags have the last word.   positional : the types, by name,
    of what is given without a flag.
    """
    hints, args, given = typing.get_type_hints(cls), list(args), {}
    while "-f" in args[:-1]:
        at = args.index("-f")
        given |= read_parameters(args[at + 1])
        del args[at : at + 2]
    given = cls.checked(given)
    fields = [(name, tyro.conf.Positional[kind]) for name, kind in positional.items()]
    for f in dataclasses.fields(cls):
        words = [w for w in (f.metadata["unit"], cfg.describe_range(f)) if w]
        text = f.metadata["help"] + (f" [{'; '.join(words)}]" if words else "")
        default = dataclasses.field(default=given.get(f.name, f.default))
        fields.append((f.name, Annotated[hints[f.name], tyro.conf.arg(help=text)], default))
    flat = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
    flat.__doc__ = cls.__doc__
    parsed = tyro.cli(flat, args=args, prog=f"microlens {cls.__name__.removesuffix('Config').lower()}")
    return cls(**{f.name: getattr(parsed, f.name) for f in dataclasses.fields(cls)}), parsed


def simulate(args):
    config, _ = parse(cfg.SimulateConfig, args)
    from microlens.data import simulate

    print(simulate(config))


def train(args):
    config, _ = parse(cfg.TrainConfig, args)
    from microlens.network.training import train

    print(train(config, progress=sys.stderr.isatty()))  # a bar in a batch job's log is noise; it gets a line a pass


def evaluate(args):
    config, _ = parse(cfg.EvaluateConfig, args)
    from microlens.evaluate import evaluate
    from microlens.figures import draw_evaluation

    folder = evaluate(config)
    draw_evaluation(folder)
    print(folder)


def classify(args):
    config, given = parse(cfg.ClassifyConfig, args, files=tuple[str, ...])
    if not given.files:
        raise ValueError("no file given: microlens classify FILE...")
    from microlens.evaluate import classify

    table, errors = classify(given.files, config, progress=sys.stderr.isatty())
    if config.format == "json":
        print(table.to_json(orient="records", indent=1))
    elif config.format == "csv":
        print(table.to_csv(index=False), end="")
    elif len(table):
        print(table.to_string(index=False, float_format=lambda x: f"{x:.4f}"))
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    return 1 if errors else 0


def calibrate(args):
    config, given = parse(cfg.CalibrateConfig, args, folder=str)
    from microlens.evaluate import calibrate

    print(calibrate(given.folder, config, progress=sys.stderr.isatty()))


def stream(args):
    config, given = parse(cfg.StreamConfig, args, files=tuple[str, ...])
    if not given.files:
        raise ValueError("no file given: microlens stream --state STATE.h5 FILE...")
    from microlens.evaluate import stream_nights

    stream_nights(given.files, config, _print_alerts)


def _discard_output():
    """Let what is left to print go nowhere when Python ends, where nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_alerts(text: str):
    """Print the lines of alerts. Raises ValueError where nobody takes them, a closed pipe say."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        _discard_output()
        raise ValueError(f"the alerts could not be printed ({error.strerror}), so the state stays as it was; the same "
                         "command prints them again.") from error


def figures(args):
    parser = argparse.ArgumentParser(
        prog="microlens figures", description="Make the figures of the thesis, each with the table that it draws, or "
        "draw those of a folder again from their tables. Notebook 06_figures does the same with more choices.")
    parser.add_argument("--experiment-name", metavar="NAME", help="a shipped network or a unique part of a run's name")
    parser.add_argument("--evaluation", metavar="FOLDER", help="an evaluation to draw; unset makes a small one")
    parser.add_argument("--sky-table", metavar="FOLDER", help="the folder of the tables of `make sky`")
    parser.add_argument("--output", metavar="FOLDER", help="where the figures go; unset: figures/ in the runs folder")
    parser.add_argument("--redraw", metavar="FOLDER", help="draw the figures of this folder again from their tables")
    given = parser.parse_args(args)
    from microlens.figures import redraw, thesis_figures

    if given.redraw:
        made = redraw(given.redraw)
    else:
        made = thesis_figures(given.output, given.experiment_name, given.evaluation, sky_table=given.sky_table)
    print(*made, sep="\n")


def notebook(args):
    from microlens.notebook import run_all, run_notebook

    parser = argparse.ArgumentParser(
        prog="microlens notebook", description="Execute notebooks; an undeclared parameter is an error.")
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
        parameters |= read_parameters(file)
    parameters |= {k: parse_yaml(v) for k, v in given.p}
    print(run_notebook(given.name, parameters, given.o))


def export(args):
    from microlens.evaluate import export

    parser = argparse.ArgumentParser(
        prog="microlens export", description="Copy a run's network, configuration, log and validation features into a "
        "folder, to be shared.")
    parser.add_argument("run", help="a unique part of the run's name")
    parser.add_argument("folder")
    given = parser.parse_args(args)
    print(export(given.run, given.folder))


def export_parquet(args):
    from microlens.data.parquet import export_parquet

    parser = argparse.ArgumentParser(
        prog="microlens export-parquet", description="Write a dataset as Parquet tables under the column names of the "
        "Roman data challenge 2026, for other people's tools.")
    parser.add_argument("dataset")
    parser.add_argument("folder")
    given = parser.parse_args(args)
    print(*export_parquet(given.dataset, given.folder), sep="\n")


def doctor(args):
    """Check the installation: torch and its device, the lens engine, flash-attn; status 1 if the engine is wrong."""
    if args:
        raise ValueError("doctor takes no arguments.")
    import torch

    from microlens import lens
    from microlens.network.attention import flash_attention

    print(f"python {sys.version.split()[0]}, microlens {metadata.version('microlens')} in {Path(cfg.__file__).parent}")
    device = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu (torch finds no GPU)"
    print(f"ok   torch {torch.__version__}, device {device}")
    x, y, s, q, rho, truth = REFERENCE
    value = lens.binary_at(x, y, s, q, rho, tolerance=1e-6)
    wrong = abs(value / truth - 1) > 1e-5
    print(f"{'BAD ' if wrong else 'ok  '} {lens.engine_version()}: A = {value:.7f}, reference {truth:.7f}")
    function, reason = flash_attention()
    print(f"{'ok  ' if function else 'note'} flash-attn: {reason}" + ("" if function else "; it is not needed"))
    return int(wrong)


STAGES = {f.__name__.replace("_", "-"): f
          for f in (simulate, train, evaluate, classify, calibrate, stream, figures, notebook, export, export_parquet,
                    doctor)}


@contextlib.contextmanager
def interrupts_heard():
    """No Ctrl-C is lost within it: Python drops one that comes in a destructor or in the callback of a weak reference.

    Such a one is sent once more, by a timer, since this hook is a place where Python would drop it, too.
    """
    usual = sys.unraisablehook

    def again(dropped):
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            return usual(dropped)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = usual
        if signal.getsignal(signal.SIGALRM) is signal.default_int_handler:
            signal.setitimer(signal.ITIMER_REAL, 0)


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    if argv[0] not in STAGES:
        print(f"error: unknown command {argv[0]!r}; choose one of {', '.join(STAGES)}.", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s")
    logging.getLogger("microlens").setLevel(logging.INFO)
    try:
        with interrupts_heard():
            status = STAGES[argv[0]](argv[1:]) or 0
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        _discard_output()
        print("error: nobody reads the output any more (a closed pipe), so its rest was not printed.", file=sys.stderr)
        return 1
    except (ValueError, FloatingPointError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = "with --resume auto the same command" if argv[0] == "train" else "the same command"
        print(f"interrupted; {how} goes on where it stopped.", file=sys.stderr)
        return 130


def end(status: int):
    """End this process. A rank of torchrun ends without the interpreter's own clearing up: threads of gloo may outlive
    it, and then abort a rank whose work is done (pytorch/pytorch, pull request 179291).
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end(main())
