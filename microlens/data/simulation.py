"""Events in parallel -> shards -> one dataset file.

    simulate(SimulateConfig(n_flat=100, n_pspl=100, n_binary=100, output="data/raw/test.h5"))

Every event has a random stream of its own, SeedSequence(seed, (split, class, index)), so a file depends on neither the
number of workers nor the order of work, and no event of one split can appear in another. Shards of SHARD_SIZE events
are written atomically into `<output>.shards/`; an interrupted run continues with the shards that are missing, and the
finished file is made of them in one atomic step. A worker makes a whole shard, of 7 MB, and writes it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np
from tqdm.auto import tqdm

from microlens import files, lens, sky
from microlens.config import (
    CLASS_PARAMETERS,
    CLASSES,
    LENSING_CLASSES,
    ORDER_STREAM,
    SPLITS,
    SUBCLASSES,
    SimulateConfig,
)
from microlens.data.events import Event, OversampleError, is_star, make_event, preset_source
from microlens.data.format import CHUNK, NOISE, DatasetError, join_shards, open_dataset, param_dtype, write_dataset
from microlens.data.photometry import Photometry, QuietSeason, read_photometry
from microlens.fit import observable_label

log = logging.getLogger("microlens")

NOT_COMPARED = ("output", "num_workers", "part", "oversample")  # change neither the events nor the bytes of the file
SHARD_SIZE = 256  # events: the unit of work and of resuming
LEAST_SHARDS = 16  # of a small run: work for all
LARGEST_INT16 = 2**15 - 1  # n_draws beyond it is stored as this


class WorkerError(RuntimeError):
    """A worker process that could not start or did not survive."""


# ---- what a configuration means -------------------------------------------------------------------------------------


def event_stream(config: SimulateConfig, kind: str, index: int) -> np.random.Generator:
    """The random stream of one event."""
    key = (SPLITS[config.split], CLASSES.index(kind), index)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def season_epochs(config: SimulateConfig) -> np.ndarray:
    """Epochs (T,) of the configured schedule, days."""
    preset = sky.load_preset(config.binary_preset, config.noise)
    return sky.epochs(config.schedule or preset.schedule, config.seed)


def _count(config: SimulateConfig, kind: str) -> int:
    return getattr(config, f"n_{kind}")


def row_order(config: SimulateConfig) -> list[tuple[str, int]]:
    """(class, index) of every row, in random class order."""
    everything = [(kind, i) for kind in CLASSES for i in range(_count(config, kind))]
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(SPLITS[config.split], ORDER_STREAM)))
    return [everything[i] for i in rng.permutation(len(everything))]


def attributes(config: SimulateConfig) -> dict:
    """File attributes: what the events are a function of (configuration and preset, as JSON), and the versions.

    With events of class other, also the priors of variable stars, as JSON.
    """
    unsaid = ("n_other", 0), ("photometry", None)  # such files are those of versions that did not know these fields
    kept = {name: value for name, value in config.to_dict().items()
            if name not in NOT_COMPARED and (name, value) not in unsaid}
    preset = sky.load_preset(config.binary_preset, config.noise)
    more = {"variables": sky.variables_json()} if config.n_other else {}
    if config.photometry is not None:
        more["photometry"] = _photometry(config).digest
    return {"config": json.dumps(kept, sort_keys=True), "preset": json.dumps(preset.to_dict(), sort_keys=True),
            "engine": lens.engine_version(), "package": f"microlens {metadata.version('microlens')}", **more}


def _check_same(path: Path, config: SimulateConfig, named: Path):
    """Raise DatasetError, naming what differs, where a dataset or shard was made of other things than config gives.

    named : the dataset, or the folder of shards, that the message tells to delete.
    """
    with open_dataset(path) as found:
        differing = config.differences(found.config, ignore=NOT_COMPARED)
        differing += sky.load_preset(config.binary_preset, config.noise).differences(found.preset)
        wanted = attributes(config)
        differing += [f"{name}: here {wanted[name]}, there {found.attrs[name]}" for name in ("engine", "package")
                      if found.attrs[name] != wanted[name]]
        if found.attrs.get("photometry") != wanted.get("photometry"):
            differing.append("the photometry that events are put into")
        if found.attrs.get("variables", wanted.get("variables")) != wanted.get("variables"):
            differing.append("the priors of variable stars")
    if differing:
        raise DatasetError(f"{named} was made with another configuration: {'; '.join(differing)}. "
                           "Give another --output, or delete it to make it anew.")


# ---- shards ---------------------------------------------------------------------------------------------------------


def _make_shard(config: SimulateConfig, path: Path, events: list[tuple[str, int]]) -> dict[str, int]:
    """Make the events (class, index) and write them to path. Returns the draws that each class took."""
    preset, made = sky.load_preset(config.binary_preset, config.noise), []
    photometry = _photometry(config)
    timestamps = season_epochs(config) if photometry is None else photometry.timestamps
    stars = [None if photometry is None else photometry.season(index) for _, index in events]
    for (kind, index), star in zip(events, stars, strict=True):
        epochs = timestamps if star is None else star.time
        source = preset_source(preset, kind, epochs, config)
        most = max(int(config.oversample * _count(config, kind)), 1)
        made.append(make_event(source, config, epochs, event_stream(config, kind, index), most, star))
    _write_shard(config, path, timestamps, made, photometry, stars)
    return {kind: sum(e.n_draws for e in made if e.kind == kind) for kind in CLASSES}


def _photometry(config: SimulateConfig) -> Photometry | None:
    """The real photometry that events are put into; None where there is none."""
    return None if config.photometry is None else read_photometry(config.photometry, config.split)


def _write_shard(config: SimulateConfig, path: Path, timestamps, made: list[Event], photometry: Photometry | None,
                 stars: list[QuietSeason | None]):
    """Write events to a dataset file; those put into real photometry with its stars and errors."""
    labels = np.array([CLASSES.index(e.kind) for e in made])
    rows = {name: np.array([getattr(e.observability, name) for e in made]) for name in made[0].observability._fields}
    rows["labels"] = labels
    rows["labels_observable"] = observable_label(labels, rows["delta_chi2_flat"], rows["delta_chi2_pspl"],
                                                 [is_star(e.params) for e in made])
    rows["status"] = [e.status for e in made]
    rows["n_draws"] = np.minimum([e.n_draws for e in made], LARGEST_INT16)
    rows["m_base"] = [e.params["m_base"] for e in made]
    params = {}
    for kind in CLASSES if config.n_other else LENSING_CLASSES:
        values = [(*_numbers(e), row) for row, e in enumerate(made) if e.kind == kind]
        params[kind] = np.array(values, dtype=param_dtype(kind))
    noise = np.array([tuple(e.noise.get(name, np.nan) for name in NOISE.names) for e in made], dtype=NOISE)
    nodes = [e.curve if isinstance(e.curve, tuple) else ((), ()) for e in made]
    flux, more = np.stack([e.flux for e in made]) if photometry is None else None, {}
    if photometry is not None:
        flux, error = np.zeros((2, len(made), len(timestamps)), np.float32)
        for row, (event, star) in enumerate(zip(made, stars, strict=True)):
            flux[row, star.index], error[row, star.index] = event.flux, event.error
        more = {"flux_err": error, "star": np.char.encode([star.star for star in stars], "utf-8")}
    write_dataset(path, timestamps=timestamps, flux=flux, rows=rows, params=params, noise=noise, nodes=nodes,
                  attrs=attributes(config), **more)


def _numbers(event: Event) -> list[float]:
    """The parameters of an event as numbers, in the order of its class; a sub-class by its number."""
    values = [event.params[name] for name in CLASS_PARAMETERS[event.kind]]
    return [SUBCLASSES.index(value) if isinstance(value, str) else value for value in values]


def _shards(config: SimulateConfig, jobs: dict[Path, list], progress: bool) -> Iterator[Path]:
    """The shards of jobs {path: events} in their order, each as soon as it is there; all workers make the missing ones.

    Raises OversampleError, WorkerError, and what making an event or writing a file raises.
    """
    missing = {path: events for path, events in jobs.items() if not path.exists()}
    n_workers = min(config.num_workers or len(os.sched_getaffinity(0)), len(missing))
    n_draws = dict.fromkeys(CLASSES, 0)
    if missing and not any(files.KERNEL_CACHE.glob("*")):
        log.warning("compiling once: it takes two or three minutes until the first events are there.")
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_workers(n_workers)) if n_workers > 1 else map
        made = run(functools.partial(_make_shard, config), missing, missing.values())
        n_events = sum(map(len, missing.values()))
        title = f"simulate {config.binary_preset} {config.split}"
        hidden = not (progress and missing)
        bar = stack.enter_context(tqdm(total=n_events, unit="event", desc=title, disable=hidden))
        for path in jobs:
            if path in missing:
                for kind, n in next(made).items():
                    n_draws[kind] += n
                bar.update(len(missing[path]))
            yield path
    for kind, n in n_draws.items():
        if n > config.oversample * max(_count(config, kind), 1):
            raise OversampleError(f"{n} draws for {_count(config, kind)} {kind} events, more than --oversample "
                                  f"{config.oversample:g} times; widen the preset or raise it.")


# ---- workers --------------------------------------------------------------------------------------------------------

HOW_TO_CALL = """Call simulate from a file, under `if __name__ == "__main__":`, or with num_workers=1."""


@contextlib.contextmanager
def _workers(n_workers: int):
    """`map` in n_workers processes. When the block ends early, what has not been begun is dropped.

    Raises WorkerError where a worker cannot start or is killed; shards that are finished stay.
    """
    pool = ProcessPoolExecutor(n_workers, _context(), _start_worker)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise WorkerError(f"a worker process could not start, or was killed (out of memory?). {HOW_TO_CALL}") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _context():
    """How workers start: as copies of this process where it has no other thread, whose locks a copy could never get."""
    if Path("/proc/self/task").is_dir() and len(os.listdir("/proc/self/task")) == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["microlens.data.simulation"])  # imported once, not once a worker
    return context


def _start_worker():
    """Prepare a worker: Ctrl-C is left to its parent, with which it ends, however that ends, and so are warnings."""
    log.setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


# ---- datasets -------------------------------------------------------------------------------------------------------


def simulate(config: SimulateConfig, progress: bool = True, wait: bool = False) -> Path:
    """Make the dataset `config.output` (or, with `part`, some of its shards) and return its path.

    A finished file of the same configuration, preset and package is left as it is; one of others is an error that names
    what differs.   wait : wait for another process that makes the same file, which is else an error.
    Raises DatasetError, OversampleError, WorkerError, and what load_preset raises.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports the caller's script
        raise WorkerError(f"simulate was called again by one of its own workers. {HOW_TO_CALL}")
    output = Path(config.output)
    if output.is_dir():
        raise DatasetError(f"--output {config.output}: is a folder; give the name of a file in it, for example "
                           f"{output / 'events.h5'}.")
    sky.load_preset(config.binary_preset, config.noise)
    _photometry(config)
    try:
        with _locked(output, config.part, wait):
            return _simulate(config, output, progress)
    except filelock.Timeout:
        raise DatasetError(f"{output}: another simulation is writing the same output; wait for it or give another "
                           "--output.") from None


@contextlib.contextmanager
def _locked(output: Path, part: str | None, wait: bool) -> Iterator[None]:
    """Keep others from making the same file: parts may run side by side, the run that joins them runs alone."""
    whole = output.with_name(f".{output.name}.lock")
    with contextlib.ExitStack() as held:
        if part is None:
            held.enter_context(files.lock(whole, wait))
            for other in output.parent.glob(f".{glob.escape(output.name)}.part*.lock"):
                held.enter_context(files.lock(other, wait))
        else:
            own = output.with_name(f".{output.name}.part{part.replace('/', 'of')}.lock")
            held.enter_context(files.lock(own, wait))
            with files.lock(whole, wait):
                pass
        yield


def _simulate(config: SimulateConfig, output: Path, progress: bool) -> Path:
    folder = output.with_name(output.name + ".shards")
    if output.exists():
        _check_same(output, config, output)
        if config.part is None:  # shards of a run that was killed between its last two steps
            shutil.rmtree(folder, ignore_errors=True)
        return output
    events = row_order(config)
    size = min(SHARD_SIZE, CHUNK * -(-len(events) // (CHUNK * LEAST_SHARDS)))  # shards end where chunks end
    starts = range(0, len(events), size)
    jobs = {folder / f"shard_{i:05d}.h5": events[start : start + size] for i, start in enumerate(starts)}
    found = next(filter(Path.exists, jobs), None)
    if found:
        _check_same(found, config, folder)
    if config.part is not None:
        part, n_parts = map(int, config.part.split("/"))
        jobs = dict(list(jobs.items())[part::n_parts])
    with contextlib.closing(_shards(config, jobs, progress)) as shards:
        if config.part is not None:
            for _ in shards:
                pass
            return folder
        join_shards(shards, output, n_events=len(events), attrs=attributes(config))
    shutil.rmtree(folder, ignore_errors=True)
    return output


def quick_dataset(n_flat, n_pspl, n_binary, *, preset="baseline", seed=1, split="quick", **more) -> Path:
    """A small dataset in the data folder's `quick`, made once for each configuration and found again by later calls.

    Its events have streams of their own (split `quick`), so no shipped network was trained on them. more : further
    fields of SimulateConfig. Its name holds a digest of all that its events depend on, preset and versions included, so
    that a changed one makes another file. Two notebooks that want the same dataset at once wait for each other.
    """
    config = SimulateConfig(n_flat=n_flat, n_pspl=n_pspl, n_binary=n_binary, binary_preset=preset, seed=seed,
                            split=split, **more)
    digest = hashlib.sha256(json.dumps(attributes(config)).encode()).hexdigest()[:8]
    name = f"{Path(preset).stem}_{n_flat}_{n_pspl}_{n_binary}_{split}_seed{seed}_{digest}.h5"
    return simulate(config.replace(output=str(files.data_dir() / "quick" / name)), wait=True)
