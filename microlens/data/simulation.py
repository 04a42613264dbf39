"""Events in parallel -> shards -> one dataset file.

    simulate(SimulateConfig(n_flat=100, n_pspl=100, n_binary=100, output="data/raw/test.h5"))

Every event has a random stream of its own, SeedSequence(seed, (split, class, index)), so a file depends on neither the number
of workers nor the order of work, and no event of one split can appear in another. Shards of SHARD_SIZE events are written
atomically into `<output>.shards/`; an interrupted run continues with the shards that are missing, and the finished file is
made of them in one atomic step. A worker makes a whole shard and writes it: the flux goes through no pipe. Memory: a shard a worker
(256 x 6912 x 4 bytes, 7 MB, a few times over while it is written) beside what the worker itself takes.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np
from tqdm.auto import tqdm

from microlens import lens, sky
from microlens.config import CLASS_PARAMETERS, CLASSES, ORDER_STREAM, SPLITS, SimulateConfig
from microlens.data.events import Event, OversampleError, magnification_curve, make_event
from microlens.data.format import DatasetError, join_shards, open_dataset, param_dtype, write_dataset
from microlens.files import atomic, data_dir, lock
from microlens.fit import observable_label

# What changes neither the events nor the bytes of the file.
NOT_COMPARED = ("output", "num_workers", "part", "oversample")
SHARD_SIZE = 256  # events: the unit of work and of resuming
LEAST_SHARDS = 16  # of a small run: work for all


def event_stream(config: SimulateConfig, kind: str, index: int) -> np.random.Generator:
    """The random stream of one event."""
    key = (SPLITS[config.split], CLASSES.index(kind), index)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def season_epochs(config: SimulateConfig) -> np.ndarray:
    """Epochs (T,) of the configured schedule, days."""
    preset = sky.load_preset(config.binary_preset)
    return sky.epochs(config.schedule or preset.schedule, config.seed)


def simulate_event(config: SimulateConfig, preset: sky.Preset, kind: str, rng: np.random.Generator, timestamps,
                   max_draws: int) -> Event:
    """One event of class `kind` with parameters drawn from the preset. Raises OversampleError after max_draws draws."""
    season = sky.season_length(timestamps)
    return make_event(kind, lambda rng: sky.draw(preset, kind, rng, season),
                      lambda params: magnification_curve(kind, params, config.limb_darkening), config, preset.caustic_crossing,
                      rng, timestamps, max_draws)


# ---- many events ----------------------------------------------------------------------------------------------------


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
    preset = sky.load_preset(config.binary_preset)
    return {"config": json.dumps(kept, sort_keys=True), "preset": json.dumps(preset.to_dict(), sort_keys=True), "seed": config.seed, "split": config.split, "detector": config.detector,
            "engine": lens.engine_version(), "package": f"microlens {metadata.version('microlens')}"}


def stored_preset(data) -> sky.Preset:
    """The preset that an open dataset was drawn from, as it was then."""
    return sky.Preset.from_dict(json.loads(data.attrs["preset"]))


def _write_shard(config, path, timestamps, made: list[Event]):
    kinds = [e.kind for e in made]
    labels = np.array([CLASSES.index(k) for k in kinds], dtype=np.int8)
    seen = {name: np.array([getattr(e.observability, name) for e in made]) for name in made[0].observability._fields}
    rows = {"labels": labels, "status": [e.status for e in made], "n_draws": np.minimum([e.n_draws for e in made], 32767),
            "m_base": [e.params["m_base"] for e in made], **seen,
            "labels_observable": observable_label(labels, seen["delta_chi2_flat"], seen["delta_chi2_pspl"])}
    params = {}
    for kind in CLASSES:
        at = [i for i, k in enumerate(kinds) if k == kind]
        values = [(*(made[i].params[p] for p in CLASS_PARAMETERS[kind]), i) for i in at]
        params[kind] = np.array(values, dtype=param_dtype(kind))
    nodes = [e.curve if isinstance(e.curve, tuple) else ((), ()) for e in made]
    write_dataset(path, timestamps=timestamps, flux=np.stack([e.flux for e in made]), rows=rows, params=params, nodes=nodes,
                  attrs=attributes(config))


_worker: dict = {}


def _start_worker(config: SimulateConfig):
    _worker.update(config=config, preset=sky.load_preset(config.binary_preset), timestamps=season_epochs(config))


def _make_shard(job: tuple[Path, list], advance=None) -> tuple[Path, int, dict]:
    """Make the events `tasks` of job = (path, tasks) and write them to path. Returns path, their number, the draws of each class."""
    path, tasks = job
    config, draws, made = _worker["config"], dict.fromkeys(CLASSES, 0), []
    for kind, index in tasks:
        limit = max(int(config.oversample * _count(config, kind)), 1)
        e = simulate_event(config, _worker["preset"], kind, event_stream(config, kind, index), _worker["timestamps"], limit)
        made.append(e)
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


def simulate(config: SimulateConfig, progress: bool = True, wait: bool = False) -> Path:
    """Make the dataset `config.output` (or, with `part`, some of its shards) and return its path.

    A finished file of the same configuration is left as it is; one of another is an error that names the fields.
    wait : wait for another process that makes the same file, which is else an error.
    Raises DatasetError, OversampleError, and what load_preset raises.
    """
    output = Path(config.output)
    if output.is_dir():
        raise DatasetError(f"--output {config.output}: is a folder; give the name of a file in it, for example "
                           f"{output / 'events.h5'}.")
    sky.load_preset(config.binary_preset)
    try:
        with _locked(output, config.part, wait):
            return _simulate(config, output, progress)
    except filelock.Timeout:
        raise DatasetError(f"{output}: another simulation is writing the same output; wait for it or give another "
                           "--output.") from None


@contextlib.contextmanager
def _locked(output: Path, part: str | None, wait: bool):
    """Hold what keeps others from making the same file: parts may run side by side, the run that joins them runs alone."""
    whole = output.with_name(f".{output.name}.lock")
    with contextlib.ExitStack() as held:
        if part is None:
            held.enter_context(lock(whole, wait))
            for other in output.parent.glob(f".{output.name}.part*.lock"):
                held.enter_context(lock(other, wait))
        else:
            held.enter_context(lock(output.with_name(f".{output.name}.part{part.replace('/', 'of')}.lock"), wait))
            with lock(whole, wait):
                pass
        yield


def _simulate(config: SimulateConfig, output: Path, progress: bool) -> Path:
    folder = output.with_name(output.name + ".shards")
    if output.exists():
        with open_dataset(output) as found:
            counts = np.bincount(found.labels, minlength=len(CLASSES)).tolist()
            _check_same(output, config, {**found.config, **{f"n_{c}": n for c, n in zip(CLASSES, counts, strict=True)}})
            made_by = attributes(config)
            for what in ("preset", "package"):
                if found.attrs[what] != made_by[what]:
                    raise DatasetError(f"{output}: was made with another {what} ({found.attrs[what][:100]}) than the present one "
                                       f"({made_by[what][:100]}). Delete it to make it anew, or give another --output.")
        if folder.exists() and config.part is None:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed between its last two steps
        return output
    folder.mkdir(parents=True, exist_ok=True)
    _state_configuration(folder, config)
    tasks = row_order(config)
    size = min(SHARD_SIZE, 8 * -(-len(tasks) // (8 * LEAST_SHARDS)))  # a multiple of 8: shards end where chunks end
    shards = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    jobs = [(folder / f"shard_{i:05d}.h5", shard) for i, shard in enumerate(shards)]
    if config.part is not None:
        k, n = (int(x) for x in config.part.split("/"))
        with contextlib.closing(_made(config, jobs[k::n], progress)) as made:
            for _ in made:
                pass
        return folder
    with contextlib.closing(_made(config, jobs, progress)) as made:
        join_shards(made, output, n_events=len(tasks), attrs=attributes(config))
    shutil.rmtree(folder, ignore_errors=True)
    return output


def _state_configuration(folder: Path, config: SimulateConfig):
    """Write the configuration into the folder of shards, or compare it with the one that stands there."""
    statement = folder / "config.json"
    if statement.exists():
        _check_same(folder, config, json.loads(statement.read_text()))
    else:
        with atomic(statement) as temporary:
            temporary.write_text(config.to_json())


def _context():
    """How workers are started: as copies of this process where it has no other thread, which a copy could wait for in vain."""
    if Path("/proc/self/task").is_dir() and len(os.listdir("/proc/self/task")) == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["microlens.data.simulation"])  # imported once, not once a worker
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


def quick_dataset(n_flat, n_pspl, n_binary, *, preset="baseline", seed=1, split="quick", **more) -> Path:
    """A small dataset in the data folder's `quick`, made once for each configuration and found again by the next notebook.

    Its events have streams of their own (split `quick`), so no shipped network was trained on them. more : further fields of
    SimulateConfig. Two notebooks that want the same dataset at once wait for each other.
    """
    words = [preset, f"{n_flat}_{n_pspl}_{n_binary}", split, f"seed{seed}", *(f"{k}_{v}" for k, v in sorted(more.items()))]
    output = data_dir() / "quick" / ("_".join(words) + ".h5")
    config = SimulateConfig(n_flat=n_flat, n_pspl=n_pspl, n_binary=n_binary, binary_preset=preset, seed=seed, split=split,
                            output=str(output), **more)
    return simulate(config, wait=True)
