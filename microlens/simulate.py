"""Events in parallel -> shards -> one dataset file.

    simulate(SimulateConfig(n_flat=100, n_pspl=100, n_binary=100, output="data/raw/test.h5"))

Every event has a random stream of its own, SeedSequence(seed, (split, class, index)), so a file depends on neither the number
of workers nor the order of work, and no event of one split can appear in another. Shards of `shard_size` events are written
atomically into `<output>.shards/`; an interrupted run continues with the shards that are missing, and the finished file is
made of them in one atomic step. A worker makes a whole shard and writes it: the flux goes through no pipe. Memory: a shard a worker
(shard_size x 6912 x 4 bytes, 14 MB by default, a few times over while it is written) beside what the worker itself takes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from microlens import magnification, survey
from microlens.config import CLASSES, SimulateConfig
from microlens.detectability import observability, observable_label
from microlens.population import PARAMETERS, Preset, draw, load_preset, thesis_singles
from microlens.store import DatasetError, atomic, concatenate, open_dataset, param_dtype, remove_leftovers, write_dataset

SPLITS = {"train": 0, "val": 1, "test": 2}
ORDER_STREAM = 99  # spawn key of the row order
# What changes neither the events nor the bytes of the file.
NOT_COMPARED = ("output", "num_workers", "part", "virtual", "shard_size", "oversample")
STATUS_ANALYTIC, STATUS_NODES, STATUS_EXACT, STATUS_REDRAWN = range(4)


class OversampleError(RuntimeError):
    """Fewer events accepted than asked for within the permitted draws."""


class Event(NamedTuple):
    """One simulated event. flux (T,) measured, 0.0 = missing; flux_true (T,); sigma (T,) true error; curve for render_event."""

    kind: str
    params: dict
    flux: np.ndarray
    flux_true: np.ndarray
    sigma: np.ndarray
    curve: magnification.Nodes | float | None
    status: int
    n_draws: int
    observability: tuple


def event_stream(config: SimulateConfig, kind: str, index: int) -> np.random.Generator:
    """The random stream of one event."""
    key = (SPLITS[config.split], CLASSES.index(kind), index)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def season_epochs(config: SimulateConfig) -> np.ndarray:
    """Epochs (T,) of the configured schedule, days."""
    preset = load_preset(config.binary_preset)
    return survey.epochs(config.schedule or preset.schedule, config.seed)


def season_length(timestamps) -> float:
    """Days of a season with these epochs (T,): t_0 is drawn as a share of it."""
    return 72.0 if len(timestamps) == 6912 else float(timestamps[-1] - timestamps[0])


def magnification_curve(config: SimulateConfig, kind: str, params: dict):
    """What render_event takes: the nodes of one event's curve, the u_0 of a point-source single lens, or None if it is flat.

    Raises MagnificationError if the lens library fails.
    """
    if kind == "flat":
        return None
    if kind == "pspl":
        if params["rho"] == 0:
            return params["u_0"]
        return magnification.single_nodes(params["u_0"], params["rho"], tolerance=config.tolerance,
                                          limb_darkening=config.limb_darkening)
    lens = [params[p] for p in ("u_0", "rho", "s", "q", "alpha")]
    return magnification.nodes(*lens, tolerance=config.tolerance, engine=config.engine, limb_darkening=config.limb_darkening)


def _exact(config, kind, params, timestamps):
    """Magnification (T,) of a finite source by the library at every epoch."""
    lens = [params[p] for p in ("t_0", "u_0", "t_E", "rho")]
    if kind == "pspl":
        return magnification.fspl(timestamps, *lens, config.limb_darkening)
    return magnification.binary(timestamps, *lens, *(params[p] for p in ("s", "q", "alpha")), "exact", engine=config.engine,
                                tolerance=config.tolerance, limb_darkening=config.limb_darkening)


def _true_curve(config, kind, params, timestamps):
    """Noise-free flux (T,), the curve as magnification_curve has it (None for an exact one), and status of one event."""
    if config.method == "exact" and params.get("rho", 0) > 0:
        return 1.0 + params["f_s"] * (_exact(config, kind, params, timestamps) - 1.0), None, STATUS_EXACT
    curve = magnification_curve(config, kind, params)
    flux_true = true_flux(curve, params.get("t_0"), params.get("t_E"), params.get("f_s"), timestamps)
    return flux_true, curve, STATUS_NODES if isinstance(curve, magnification.Nodes) else STATUS_ANALYTIC


def observing(config: SimulateConfig) -> dict:
    """What survey.observe and render_event take of a configuration, as keyword arguments."""
    return {name: getattr(config, name) for name in ("detector", "noise_scale", "missing_fraction", "correlated_noise",
                                                     "correlated_timescale", "outlier_fraction", "outlier_size", "systematics")}


def render_event(curve, t_0, t_E, f_s, m_base, timestamps, rng: np.random.Generator, **observing):
    """A fresh light curve of a known magnification curve: any t_0, t_E, blending, brightness, epochs, dropout and noise.

    curve : Nodes or a (tau, log_A) pair, as simulate keeps them; or the u_0 of a point-source single lens, a float; or None for
    a flat light curve, for which t_0, t_E and f_s do not count.   t_0, t_E : days.   f_s : lensed share of the baseline flux.
    m_base : mag.   timestamps : (T,) days.   observing : as in survey.observe, e.g. `**observing(config)`.
    Returns flux (T,) float32, 0.0 = no observation, and flux_true (T,) float64, both F/F_base.
    """
    flux_true = true_flux(curve, t_0, t_E, f_s, timestamps)
    return survey.observe(flux_true, m_base, timestamps, rng, **observing), flux_true


def true_flux(curve, t_0, t_E, f_s, timestamps):
    """Noise-free F/F_base (T,); the arguments are those of render_event."""
    if curve is None:
        return np.ones(len(timestamps))
    if isinstance(curve, (float, int)):
        A = magnification.pspl(timestamps, t_0, curve, t_E)
    else:
        A = magnification.render(*curve, (timestamps - t_0) / t_E)
    return 1.0 + f_s * (A - 1.0)


def event(config: SimulateConfig, preset: Preset, kind: str, rng: np.random.Generator, timestamps, max_draws: int) -> Event:
    """Draw one event of class `kind`; redrawn where the preset's condition fails or the lens library does.

    Raises OversampleError after max_draws draws.
    """
    season = season_length(timestamps)
    source = thesis_singles(preset) if kind != "binary" and config.single_prior == "thesis" else preset
    failed = 0
    for n_draws in range(1, max_draws + 1):  # noqa: B007  (read after the loop)
        params = draw(source, kind, rng, season, config.finite_source)
        observed = survey.dropout(rng, len(timestamps), config.missing_fraction)
        if kind == "binary" and preset.caustic_crossing:
            tau = (timestamps[observed] - params["t_0"]) / params["t_E"]
            if not magnification.crosses_caustic(tau, *(params[p] for p in ("u_0", "rho", "s", "q", "alpha"))):
                continue
        try:
            flux_true, curve, status = _true_curve(config, kind, params, timestamps)
        except magnification.MagnificationError:
            failed += 1
            continue
        break
    else:
        raise OversampleError(f"a {kind} event was not accepted within {max_draws} draws ({failed} failed magnifications) of "
                              f"preset {config.binary_preset}; widen the preset or raise --oversample.")
    flux = survey.observe(flux_true, params["m_base"], timestamps, rng, observed=observed, **observing(config))
    sigma = survey.sigma_flux(flux_true, params["m_base"], config.detector, config.noise_scale)
    seen = (0.0, 0.0, np.nan, np.nan)
    if kind != "flat":
        start = (params["t_0"], params["t_E"], max(params["u_0"], 1e-3))
        seen = observability(timestamps[observed], flux_true[observed], sigma[observed], kind == "binary", start,
                             threshold_flat=config.threshold_flat, threshold_pspl=config.threshold_pspl,
                             limb_darkening=config.limb_darkening)
    return Event(kind, params, flux, flux_true, sigma, curve, STATUS_REDRAWN if failed else status, n_draws, seen)


def stored_curve(data, row: int):
    """The magnification curve of one event of an open dataset, as render_event takes it.

    Raises DatasetError where the nodes of a finite source were not kept.
    """
    label, u_0, rho = data.params.loc[row, ["label", "u_0", "rho"]]
    if label == 0:
        return None
    if label == 1 and rho == 0:
        return float(u_0)
    tau, log_A = data.nodes(row) if data.has_nodes else ((), ())
    if len(tau) == 0:
        raise DatasetError(f"{data.path}: keeps no magnification curve of row {row}; simulate with --keep-nodes and --method fast.")
    return magnification.Nodes(tau, log_A)


def true_curve(data, row: int):
    """The noise-free curve of one event of an open dataset: (t, flux, sigma), valid epochs only, from its parameters and nodes.

    Raises DatasetError where the nodes of a finite source were not kept.
    """
    p, valid = data.params.loc[row], data.flux(int(row)) != 0
    t = data.timestamps[valid]
    flux = true_flux(stored_curve(data, row), p["t_0"], p["t_E"], p["f_s"], t)
    return t, flux, survey.sigma_flux(flux, p["m_base"], data.detector, data.config["noise_scale"])


# ---- many events ----------------------------------------------------------------------------------------------------------


def _count(config: SimulateConfig, kind: str) -> int:
    return getattr(config, f"n_{kind}")


def row_order(config: SimulateConfig) -> list[tuple[str, int]]:
    """(class, index) of every row, in random class order."""
    everything = [(kind, i) for kind in CLASSES for i in range(_count(config, kind))]
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(SPLITS[config.split], ORDER_STREAM)))
    return [everything[i] for i in rng.permutation(len(everything))]


def attributes(config: SimulateConfig) -> dict:
    """File attributes: the configuration without what does not change the events, seed, split and versions."""
    kept = {k: v for k, v in config.to_dict().items() if k not in NOT_COMPARED}
    return {"config": json.dumps(kept, sort_keys=True), "seed": config.seed, "split": config.split, "detector": config.detector,
            "engine": magnification.engine_version(config.engine), "package": f"microlens {metadata.version('microlens')}",
            "threshold_flat": config.threshold_flat, "threshold_pspl": config.threshold_pspl}


def _write_shard(config, path, timestamps, made: list[Event]):
    kinds = [e.kind for e in made]
    seen = np.array([e.observability for e in made], dtype=float)
    labels = np.array([CLASSES.index(k) for k in kinds], dtype=np.int8)
    rows = {"labels": labels, "status": [e.status for e in made], "n_draws": np.minimum([e.n_draws for e in made], 32767),
            "delta_chi2_flat": seen[:, 0], "delta_chi2_pspl": seen[:, 1], "t_observable_flat": seen[:, 2],
            "t_observable_pspl": seen[:, 3], "m_base": [e.params["m_base"] for e in made]}
    rows["labels_observable"] = observable_label(labels, seen[:, 0], seen[:, 1], config.threshold_flat, config.threshold_pspl)
    params = {}
    for kind in CLASSES:
        at = [i for i, k in enumerate(kinds) if k == kind]
        params[kind] = np.array([(*(made[i].params[p] for p in PARAMETERS[kind]), i) for i in at], dtype=param_dtype(kind))
    nodes = [e.curve if isinstance(e.curve, magnification.Nodes) else ((), ()) for e in made] if config.keep_nodes else None
    write_dataset(path, timestamps=timestamps, flux=np.stack([e.flux for e in made]), rows=rows, params=params, nodes=nodes,
                  attrs=attributes(config))


_worker: dict = {}


def _start_worker(config: SimulateConfig):
    _worker.update(config=config, preset=load_preset(config.binary_preset), timestamps=season_epochs(config))


def _make_shard(job: tuple[Path, list], advance=None) -> tuple[Path, int, dict]:
    """Make the events `tasks` of job = (path, tasks) and write them to path. Returns path, their number, the draws of each class."""
    path, tasks = job
    config, draws, made = _worker["config"], dict.fromkeys(CLASSES, 0), []
    for kind, index in tasks:
        limit = max(int(config.oversample * _count(config, kind)), 1)
        e = event(config, _worker["preset"], kind, event_stream(config, kind, index), _worker["timestamps"], limit)
        made.append(e._replace(flux_true=None, sigma=None))  # not written: a shard of them is a hundred megabytes
        draws[kind] += e.n_draws
        if advance:
            advance()
    _write_shard(config, path, _worker["timestamps"], made)
    return path, len(tasks), draws


def _check_same(path: Path, config: SimulateConfig, found: dict):
    kept = {k: v for k, v in found.items() if k not in NOT_COMPARED}
    differing = config.differences(kept, ignore=NOT_COMPARED)
    if differing:
        raise DatasetError(f"{path} was made with another configuration: {'; '.join(differing)}. "
                           "Give another --output, or delete it to make it anew.")


@contextlib.contextmanager
def _only_one(path: Path):
    """Hold a lock file; two runs that make the same thing at once are an error. Workers do not inherit this kind of lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DatasetError(f"{path}: another simulation is writing the same output; wait for it or give another "
                               "--output.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def simulate(config: SimulateConfig, progress: bool = True) -> Path:
    """Make the dataset `config.output` (or, with `part`, some of its shards) and return its path.

    A finished file of the same configuration is left as it is; one of another is an error that names the fields.
    Raises DatasetError, OversampleError, and what load_preset raises.
    """
    output = Path(config.output)
    load_preset(config.binary_preset)
    folder = output.with_name(output.name + ".shards")
    if output.exists():
        with open_dataset(output) as found:
            counts = dict(zip(("n_flat", "n_pspl", "n_binary"), np.bincount(found.labels, minlength=3).tolist(), strict=True))
            _check_same(output, config, {**found.config, **counts})
            virtual = found.is_virtual
        if folder.exists() and not virtual and config.part is None:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed between its last two steps
        return output
    tag = "" if config.part is None else "." + config.part.replace("/", "of")
    with _only_one(folder.with_name(f".{output.name}{tag}.lock")):
        folder.mkdir(parents=True, exist_ok=True)
        statement = folder / "config.json"
        if statement.exists():
            stated = json.loads(statement.read_text())
            _check_same(folder, config, {k: v for k, v in stated.items() if k != "shard_size"})
            if stated["shard_size"] != config.shard_size:
                raise DatasetError(f"{folder}: shard_size: here {config.shard_size}, there {stated['shard_size']}.")
        else:
            with atomic(statement) as temporary:
                temporary.write_text(config.to_json())
        tasks = row_order(config)
        size = min(config.shard_size, 8 * -(-len(tasks) // 128))  # at least sixteen of a small run: work for all
        shards = [tasks[i : i + size] for i in range(0, len(tasks), size)]
        paths = [folder / f"shard_{i:05d}.h5" for i in range(len(shards))]
        mine = range(len(shards))
        if config.part is not None:
            k, n = (int(x) for x in config.part.split("/"))
            mine = mine[k::n]
        with contextlib.closing(_made(config, [(paths[i], shards[i]) for i in mine], progress)) as made:
            if config.part is not None:
                for _ in made:
                    pass
                return folder
            remove_leftovers(output)
            concatenate(made, output, n_events=len(tasks), virtual=config.virtual,
                        attrs={**attributes(config), "format_version": 1, "classes": list(CLASSES)})
        if config.virtual:
            remove_leftovers(folder / "shard_*.h5")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return output


def _context():
    """How workers are started: as copies of this process where it has no other thread, which a copy could wait for in vain."""
    if Path("/proc/self/task").is_dir() and len(os.listdir("/proc/self/task")) == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["microlens.simulate"])  # imported once, not once a worker
    return context


def _made(config, jobs, progress):
    """The shards of jobs [(path, tasks)] in their order, each as soon as it is there; missing ones are made by all workers."""
    missing = {path: tasks for path, tasks in jobs if not path.exists()}
    draws = dict.fromkeys(CLASSES, 0)
    workers = min(config.num_workers or len(os.sched_getaffinity(0)), len(missing))
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(_context().Pool(workers, _start_worker, (config,))) if workers > 1 else None
        bar = stack.enter_context(tqdm(total=sum(map(len, missing.values())), unit="event", disable=not progress or not missing,
                                       desc=f"simulate {config.binary_preset} {config.split}"))
        if pool:
            made = pool.imap_unordered(_make_shard, list(missing.items()))
        else:
            _start_worker(config)
            made = (_make_shard(job, bar.update) for job in list(missing.items()))
        for path, _ in jobs:
            while path in missing:
                done, n, drawn = next(made)
                del missing[done]
                for kind in CLASSES:
                    draws[kind] += drawn[kind]
                if pool:
                    bar.update(n)
            yield path
    for kind in CLASSES:
        total = _count(config, kind)
        if draws[kind] > config.oversample * max(total, 1):
            raise OversampleError(f"{draws[kind]} draws for {total} {kind} events, more than --oversample {config.oversample:g} "
                                  "times; widen the preset or raise it.")
