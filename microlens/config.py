"""The configuration of every stage: one frozen, keyword-only dataclass each.

    SimulateConfig(n_flat=100, n_pspl=100, n_binary=100, output="data/raw/test.h5")

Every field states what it is, its unit and its range once, in `option(...)`. `__post_init__` holds the ranges, the command
line makes its flags and help from the same statement, and files carry the configuration as JSON (`to_json`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CLASSES = ("flat", "pspl", "binary")
BINARY_PRESETS = ("distinct", "planetary", "stellar", "baseline", "roman")
SCHEDULES = ("thesis", "roman")
VIEWS = ("flux", "running", "residual")
DETECTORS = ("roman", "penny2019", "crowded", "thesis")
PERSISTENCES = (1, 2, 3, 5, 8)


def option(default: Any, help: str, *, unit: str = "", low: float | None = None, high: float | None = None,
           choices: tuple | None = None, above: float | None = None) -> Any:
    """A dataclass field with its documentation.

    low, high : inclusive bounds.   above : exclusive lower bound.   choices : the permitted values.
    A default of None means "not set": None then passes every check.
    """
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


def describe_range(field: dataclasses.Field) -> str:
    """The range of a field in words: 'one of a, b', '0 to 1', '> 0', or ''."""
    m = field.metadata
    if m.get("choices"):
        return "one of " + ", ".join(str(c) for c in m["choices"])
    low, high, above = m.get("low"), m.get("high"), m.get("above")
    if above is not None:
        return f"> {above:g}" + (f" and <= {high:g}" if high is not None else "")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f">= {low:g}"
    return f"<= {high:g}" if high is not None else ""


def read_parameters(file) -> dict:
    """A YAML file of parameters, for a command or a notebook. Raises ValueError where it is no mapping of names to values."""
    try:
        data = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: no readable YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file}: expected 'name: value' lines.")
    return data


class Config:
    """What the stage configurations share: checks, JSON, comparison."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))

    def _check(self, field, value):
        if value is None and field.default is None:
            return
        m, name = field.metadata, field.name
        unit = f" {m['unit']}" if m.get("unit") else ""
        wanted = f"{name}: came {value!r}, expected {describe_range(field) or field.type}{unit}"
        if m.get("choices") and value not in m["choices"]:
            raise ValueError(wanted)
        if any(m.get(k) is not None for k in ("low", "high", "above")):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(wanted)
            outside = (not math.isfinite(value) or (m["low"] is not None and value < m["low"])
                       or (m["high"] is not None and value > m["high"]) or (m["above"] is not None and value <= m["above"]))
            if outside:
                raise ValueError(wanted)
        if str(field.type).split(" ")[0] == "int" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(wanted)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict):
        """Inverse of to_dict. Unknown names are an error that lists them."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        return cls(**values)

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def differences(self, other: dict, ignore: tuple[str, ...] = ()) -> list[str]:
        """'name: here 1, there 2' for each field in which another configuration (a dict) differs.

        A field that the other does not state, because it is younger, had its default there.
        """
        mine = self.to_dict()
        other = {**{f.name: f.default for f in dataclasses.fields(self)}, **other}
        names = sorted((set(mine) | set(other)) - set(ignore))
        return [f"{n}: here {mine.get(n)!r}, there {other.get(n)!r}" for n in names if mine.get(n) != other.get(n)]


@dataclass(frozen=True, kw_only=True)
class SimulateConfig(Config):
    """Simulate light curves of the three classes into one dataset file."""

    n_flat: int = option(100, "flat (constant) light curves", unit="events", low=0)
    n_pspl: int = option(100, "single-lens light curves", unit="events", low=0)
    n_binary: int = option(100, "binary-lens light curves", unit="events", low=0)
    binary_preset: str = option("baseline", "prior of the lens parameters: distinct, planetary, stellar, baseline, roman, "
                                "or the path of a YAML file of your own")
    single_prior: str = option("preset", "where single lenses draw t_0, u_0, t_E, f_s, m_base from: the preset's ranges, or "
                               "the thesis' (u_0 to 1 whatever the preset)", choices=("preset", "thesis"))
    finite_source: bool | None = option(None, "finite-source single lenses; unset means the preset decides")
    limb_darkening: float = option(0.0, "linear limb-darkening coefficient of the source (0 = uniform disc)", low=0, high=1)
    output: str = option("data/raw/events.h5", "dataset file to make")
    split: str = option("train", "independent random streams: events of two splits are never shared",
                        choices=("train", "val", "test"))
    seed: int = option(0, "seed of the random streams", low=0)
    schedule: str | None = option(None, "epochs of the season; unset means what the preset says: roman for preset roman, else thesis",
                                  choices=SCHEDULES)
    detector: str = option("roman", "detector noise set", choices=DETECTORS)
    noise_scale: float = option(1.0, "multiplies the photometric error", above=0)
    missing_fraction: float = option(0.05, "share of epochs lost at random", low=0, high=0.99)
    correlated_noise: float = option(0.0, "correlated noise, amplitude in units of the photometric error", low=0)
    correlated_timescale: float = option(1.0, "correlation time of the correlated noise", unit="d", above=0)
    outlier_fraction: float = option(0.0, "share of epochs with an outlier", low=0, high=1)
    outlier_size: float = option(10.0, "standard deviation of outliers in photometric errors", above=0)
    systematics: float = option(1.0, "share of the light curves that have correlated noise and outliers; below 1, amplitude, "
                                "timescale and share of outliers are drawn for each of them, up to the values above", low=0, high=1)
    oversample: float = option(20.0, "at most this many draws per wanted event of a class; fewer accepted is an error", low=1)
    method: str = option("fast", "magnification of binaries: fast (interpolated nodes) or exact (contour at every epoch)",
                         choices=("fast", "exact"))
    engine: str = option("VBBinaryLensing", "lens library", choices=("VBBinaryLensing", "VBMicrolensing"))
    tolerance: float = option(1e-3, "relative error of the magnification", low=1e-6, high=1e-1)
    keep_nodes: bool = option(True, "store the nodes of each magnification curve (about 1 kB an event)")
    threshold_flat: float = option(500.0, "delta chi^2 against a constant above which an event is observable", above=0)
    threshold_pspl: float = option(160.0, "delta chi^2 against the best single lens above which a binary is observable",
                                   above=0)
    num_workers: int = option(0, "worker processes; 0 = one a core", unit="processes", low=0)
    part: str | None = option(None, "simulate only the k-th of n parts of the shards, 'k/n' from 0, for an array job; a later "
                              "run without it joins them")
    virtual: bool = option(False, "join shards by reference (HDF5 virtual datasets) and keep them, instead of copying")
    shard_size: int = option(256, "events a shard, fewer in a small run; a shard is the unit of work and of resuming", unit="events",
                             low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.n_flat + self.n_pspl + self.n_binary == 0:
            raise ValueError("n_flat + n_pspl + n_binary = 0: ask for at least one event.")
        if self.part is not None:
            k, _, n = self.part.partition("/")
            if not (k.isdigit() and n.isdigit() and int(k) < int(n)):
                raise ValueError(f"part: came {self.part!r}, expected 'k/n' with 0 <= k < n, e.g. 0/8.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Train the classifier on a dataset into a run folder."""

    data: str = option("data/raw/events.h5", "dataset file to train on")
    fresh: bool = option(False, "draw new light curves of the training part in every epoch: t_0, t_E, f_s, m_base, gaps and noise; "
                         "the lenses and trajectories stay")
    experiment_name: str | None = option(None, "name of the run; unset means d64_l4_hier_<date>_<time>")
    output: str | None = option(None, "folder that holds the runs; unset means MICROLENS_RUNS or runs/")
    epochs: int = option(20, "passes over the training part", low=1)
    batch_size: int = option(128, "events of one optimiser step over all ranks, before accumulation", unit="events", low=1)
    accumulation_steps: int = option(1, "batches added up for one optimiser step", low=1)
    lr: float = option(3e-3, "peak learning rate", above=0)
    weight_decay: float = option(1e-2, "AdamW weight decay", low=0)
    warmup_epochs: float = option(1.0, "linear warm-up of the learning rate", unit="epochs", low=0)
    grad_clip: float = option(1.0, "largest gradient norm", above=0)
    ema: float = option(0.0, "decay a step of an average of the weights, which is then what is validated, kept and used; 0 = off",
                        low=0, high=0.99999)
    d_model: int = option(64, "width of the network", unit="channels", low=4)
    n_layers: int = option(4, "GRU layers", low=1)
    n_heads: int = option(4, "heads of the attention pooling", low=1)
    dropout: float = option(0.3, "dropout probability", low=0, high=0.9)
    window_size: int = option(5, "kernel width of the causal convolutions", unit="steps", low=1)
    stem_stride: int = option(16, "valid epochs a network step; 1 is the thesis' network", unit="epochs", low=1, high=64)
    view: str | None = option(None, "what the network sees of a curve: flux; running, also the best single lens through the past, "
                              "fitted once a step (both causal, both stream); residual, also the residual to the best single lens "
                              "through the whole season (whole seasons only); unset means running, and flux at stem_stride 1",
                              choices=VIEWS)
    hierarchical: bool = option(True, "two-stage head (flat or not, then PSPL or binary); off gives a flat 3-class head")
    use_aux_head: bool = option(True, "auxiliary 3-class head and loss")
    attention_pooling: bool = option(True, "attention pooling with a learnable query; off gives the masked mean")
    stage1_weight: float = option(1.0, "loss weight of flat / not flat", low=0)
    stage2_weight: float = option(1.0, "loss weight of PSPL / binary, non-flat events only", low=0)
    aux_weight: float = option(0.5, "loss weight of the auxiliary head", low=0)
    class_weights: str = option("none", "weights of the classes in every loss: none, or balanced (each class counts a third, by its "
                                "number among the training labels)", choices=("none", "balanced"))
    prefix_weight: float = option(0.5, "loss weight of the random prefixes; 0 with simulated labels", low=0)
    thin: float = option(0.0, "each training curve loses a random share of its epochs up to this, and up to 8 pauses, anew in each "
                         "pass, so that other seasons are no surprise; not with prefixes or view running; 0 = off", low=0, high=0.9)
    labels: str = option("observable", "which label the network learns", choices=("simulated", "observable"))
    val_fraction: float = option(0.15, "share of events for validation (thresholds, best epoch)", above=0, high=0.5)
    test_fraction: float = option(0.15, "share of events held out for evaluation", low=0, high=0.5)
    seed: int = option(0, "seed of initialisation, batch order and dropout", low=0)
    device: str = option("auto", "where to train", choices=("auto", "cpu", "cuda"))
    precision: str = option("auto", "arithmetic: auto is bf16 on a GPU that has it, fp32 else", choices=("auto", "fp32", "bf16"))
    compile: bool = option(False, "compile the network with torch.compile: a minute or more at the start; no faster on a CPU")
    attention_backend: str = option("auto", "attention pooling of whole curves (validation; the loss where there are no prefixes, "
                                    "which need the cumulative sums): auto is flash where flash-attn imports and the arithmetic is "
                                    "bf16, else sdpa, torch's kernel", choices=("auto", "cumulative", "sdpa", "flash"))
    data_on_device: str = option("auto", "whether the packed data set lies in the device's memory: auto where the device is a GPU and "
                                 "it takes less than half of the free memory; else it is mapped from the disk",
                                 choices=("auto", "yes", "no"))
    threads: int = option(1, "CPU threads of torch; 0 = its own choice. A GRU of this size gains nothing from a second one",
                          low=0)
    patience: int = option(0, "stop after this many epochs without improvement; 0 = never", unit="epochs", low=0)
    save_every: int = option(1, "keep epoch_NNN.pt every so many epochs; 0 = none", unit="epochs", low=0)
    checkpoint_minutes: float = option(5.0, "write checkpoint_latest.pt at least this often", unit="min", above=0)
    wall_minutes: float = option(0.0, "stop with a good checkpoint after this long; 0 = no limit", unit="min", low=0)
    resume: str | None = option(None, "'auto', a unique part of a run's name, or a checkpoint file")
    initial: str | None = option(None, "start from the weights (and the feature scaling) of this run: a unique part of its name, its "
                                 "folder, or a checkpoint file; optimiser, epochs and learning rate start anew")

    def __post_init__(self):
        super().__post_init__()
        if self.view is None:
            object.__setattr__(self, "view", "flux" if self.stem_stride == 1 else "running")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model = {self.d_model} is no multiple of n_heads = {self.n_heads}.")
        if self.thin and (self.view == "running" or self.prefix_weight > 0):
            raise ValueError(f"thin = {self.thin:g} with view = {self.view!r}, prefix_weight = {self.prefix_weight:g}: its prefixes "
                             "are not those of the whole curve; give --prefix-weight 0 and another view.")
        if self.view == "residual" and self.prefix_weight > 0:
            raise ValueError(f"prefix_weight = {self.prefix_weight:g} with view = 'residual': the residual is to a fit of the whole "
                             "season, so there are no prefixes to learn from; give --prefix-weight 0.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """Score a run on a dataset, or on a folder of light-curve files with known classes."""

    experiment_name: str | None = option(None, "unique part of the run's name; unset means the shipped weights, else the "
                                         "newest run")
    checkpoint: str = option("best", "which checkpoint of the run: best, latest, or epoch_NNN")
    data: str | None = option(None, "dataset file to score on")
    light_curves: str | None = option(None, "folder of light-curve files to score instead of a dataset")
    truth: str | None = option(None, "CSV with set, file, unit, class_by_season for --light-curves")
    output: str | None = option(None, "folder to make; unset means runs/<run>/eval_<dataset>_<time>")
    rows: str = option("held-out", "rows of the run's own training file; other files are always scored whole",
                       choices=("held-out", "val", "train", "all"))
    max_events: int = option(0, "score at most this many events; 0 = all", low=0)
    early_detection: bool = option(True, "alerts and accuracy against the fraction of the season seen")
    persistence: int = option(2, "network steps that the alert score must stay at or above its threshold", unit="steps",
                              choices=PERSISTENCES)
    premature: float = option(0.005, "largest share of premature alerts (noise-free delta chi^2 < 40) that the alert threshold may "
                              "have on the validation rows; half of the wanted 1 %, which leaves room for chance", above=0, high=1)
    baselines: bool = option(True, "score the single-lens fit and gradient boosting on the same events")
    draw: bool = option(True, "draw the figures; off for a sweep that needs the numbers alone")
    n_evolution_per_type: int = option(2, "events a class drawn as evolution_<class>_<row>", low=0)
    colorblind_safe: bool = option(True, "colour-blind-safe palette")
    calibration_n_bins: int = option(15, "bins of the reliability diagram", low=2)
    n_bootstrap: int = option(500, "bootstrap samples behind an interval", low=10)
    purity: float = option(0.95, "purity that the thresholds (of whole curves and of alerts) reach on the validation rows", above=0,
                           high=1)
    false_alarms: float = option(0.005, "largest share of single lenses, and of flat curves, that the threshold of whole curves may "
                                 "call binary on the validation rows; half of the wanted 1 %", above=0, high=1)
    save_formats: str = option("png", "figure formats, comma separated: png, pdf, svg")
    batch_size: int = option(128, "events a forward pass; a GPU is faster with more", unit="events", low=1)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    seed: int = option(0, "seed of bootstrap and choice of examples", low=0)

    def __post_init__(self):
        super().__post_init__()
        bad = sorted(set(self.formats) - {"png", "pdf", "svg"})
        if bad or not self.formats:
            raise ValueError(f"save_formats: came {self.save_formats!r}, expected some of png,pdf,svg.")
        if (self.data is None) == (self.light_curves is None):
            raise ValueError("give either --data (a dataset) or --light-curves (a folder), exactly one of them.")
        if self.light_curves is not None and self.truth is None:
            raise ValueError("--light-curves needs --truth, a CSV with set, file, unit and class_by_season.")

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(f.strip() for f in self.save_formats.split(",") if f.strip())


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(Config):
    """Classify other people's light-curve files."""

    experiment_name: str | None = option(None, "unique part of the run's name; unset means the shipped weights, else the "
                                         "newest run")
    json: bool = option(False, "print JSON")
    csv: bool = option(False, "print CSV")
    unit: str = option("auto", "what the second column is; auto asks the header and the values",
                       choices=("auto", "mag", "flux"))
    min_points: int = option(50, "fewest valid epochs of a season that is classified", unit="epochs", low=2)
    season_gap: float = option(30.0, "a longer gap between epochs starts a new season", unit="d", above=0)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))

    def __post_init__(self):
        super().__post_init__()
        if self.json and self.csv:
            raise ValueError("--json and --csv exclude each other.")
