"""The configuration of every stage, one frozen dataclass each, and the facts that several packages share.

    SimulateConfig(n_flat=100, n_pspl=100, n_binary=100, output="data/raw/test.h5")

A field says what it is, its unit and its range once, in `option(...)`. `Config` checks the range, the command line
makes flags and help of the same statement, and files carry the configuration as JSON.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# ---- facts ----------------------------------------------------------------------------------------------------------

CLASSES = ("flat", "pspl", "binary", "other")
"""What is simulated. `other` is all else that varies: variable stars, and two sources behind a single lens. A dataset
without it has the first three."""
FLAT, PSPL, BINARY, OTHER = range(4)
LENSING_CLASSES = CLASSES[:3]
"""What a network of three classes tells apart; its outputs are in this order."""
CLASS_COLOURS = {"flat": "#56606b", "pspl": "#0072b2", "binary": "#d55e00", "other": "#cc79a7"}
VARIABLE_STARS = ("rr_lyrae_ab", "rr_lyrae_c", "delta_scuti", "cepheid_2", "cepheid_1", "osarg", "semiregular", "mira",
                  "eclipsing_detached", "eclipsing_semidetached", "eclipsing_contact", "ellipsoidal", "spotted",
                  "heartbeat", "dwarf_nova", "flare", "be_outburst", "trend")
TWO_SOURCES = "two_sources"
SUBCLASSES = (*VARIABLE_STARS, TWO_SOURCES)
"""Sub-classes of `other`; files hold their numbers. sky/variables.yaml says how often each is met."""

THRESHOLD_FLAT = 500.0
"""delta chi^2 against a constant above which an event is observable (a value of the literature, second hand)."""
THRESHOLD_PSPL = 160.0
"""delta chi^2 against the best single lens above which a binary lens is observable (Penny+ 2019, second hand)."""
THRESHOLD_PREMATURE = 40.0
"""delta chi^2 against the best single lens below which an alert is premature."""
PURITY = 0.95
"""Purity that the thresholds of whole curves and of alerts have on the validation rows, at packed.CLASS_MIX."""
FALSE_ALARMS = 0.005
"""Largest share of single lenses, of flat curves, and of premature alerts that the thresholds may have there, unless an
evaluation asks for another one."""
EVEN_ODDS = 0.5
"""P(binary) below which a network of four classes calls nothing binary, since it meets noise that the validation rows
lack, unless an evaluation asks for a share of false alarms."""
PERSISTENCE = 2
"""Network steps that P(binary) has to stay at or above the threshold before an alert is raised."""

LENS_PRESETS = ("distinct", "planetary", "stellar", "baseline", "roman")
"""Presets whose lenses differ, under white noise."""
BINARY_PRESETS = (*LENS_PRESETS, "sky")
"""All presets: sky has the lenses of roman under noise of its own."""
NOISE_PRESETS = ("red_noise", "strong_red_noise", "outliers")
"""Files that state terms of noise alone."""
SCHEDULES = ("thesis", "roman")
DETECTORS = ("roman", "penny2019", "crowded", "thesis")
FLUX_VIEW, RUNNING_VIEW, ROBUST_VIEW = VIEWS = ("flux", "running", "robust")
SPLITS = {"train": 0, "val": 1, "test": 2, "quick": 3}
"""Independent random streams: events of two splits are never shared. `quick` is that of the notebooks."""

# Spawn keys of numpy's SeedSequence. An event's own stream has the key (split, class, index).
SPLIT_STREAM, BATCH_STREAM, PREFIX_STREAM, DROPOUT_STREAM, FRESH_STREAM = 11, 12, 13, 14, 15
CALIBRATION_STREAM = 16
PAUSE_STREAM, ORDER_STREAM = 77, 99


class Parameter(NamedTuple):
    """A parameter of an event: unit in arrays and files, the range that is possible, symbol for figures, meaning."""

    unit: str
    low: float
    high: float
    symbol: str
    meaning: str


PARAMETERS = {
    "t_0": Parameter("d", -1.0, 2.0, "$t_0$", "time of closest approach; its range is in seasons"),
    "u_0": Parameter("theta_E", 0.0, 10.0, "$u_0$", "impact parameter about the centre of mass"),
    "t_E": Parameter("d", 0.01, 1000.0, r"$t_\mathrm{E}$", "Einstein time"),
    "rho": Parameter("theta_E", 1e-6, 2.0, r"$\rho$", "source radius"),
    "s": Parameter("theta_E", 0.05, 20.0, "$s$", "projected separation of the lenses"),
    "q": Parameter("", 1e-7, 1.0, "$q$", "mass ratio"),
    "alpha": Parameter("rad", -7.0, 7.0, r"$\alpha$", "direction of the source's motion against the lens axis"),
    "f_s": Parameter("", 1e-4, 1.0, r"$f_\mathrm{s}$", "share of the baseline flux that is lensed"),
    "m_base": Parameter("mag AB", 14.0, 28.0, r"$m_\mathrm{base}$", "baseline magnitude, F146"),
    "pi_EN": Parameter("", -10.0, 10.0, r"$\pi_\mathrm{E,N}$", "microlensing parallax, north; t_0,par is t_0"),
    "pi_EE": Parameter("", -10.0, 10.0, r"$\pi_\mathrm{E,E}$", "microlensing parallax, east"),
    "t_0_2": Parameter("d", -1.0, 2.0, "$t_{0,2}$", "time of closest approach of a second source"),
    "u_0_2": Parameter("theta_E", -10.0, 10.0, "$u_{0,2}$", "impact parameter of the second source"),
    "rho_2": Parameter("theta_E", 1e-6, 2.0, r"$\rho_2$", "radius of the second source"),
    "q_F": Parameter("", 0.0, 1.0, "$q_F$", "flux of the second source over that of the first; 0 is one source"),
}
VARIABLE_PARAMETERS = {
    "subclass": Parameter("", 0, len(SUBCLASSES) - 1, "", "sub-class, a number in SUBCLASSES"),
    "period": Parameter("d", 0.01, 5000.0, "$P$", "period; mean time between outbursts; correlation time of a trend"),
    "amplitude": Parameter("mag", 0.0, 10.0, "$A$", "from minimum to maximum in F146; of flares in units of the star's "
                                                    "flux; of a trend its standard deviation"),
    "phase": Parameter("", 0.0, 1.0, r"$\phi_0$", "phase at time 0"),
    "R_21": Parameter("", 0.0, 1.0, "$R_{21}$", "amplitude of the second harmonic over that of the first"),
    "phi_21": Parameter("rad", -10.0, 20.0, r"$\phi_{21}$", "phase of the second harmonic, a cosine series in mag"),
    "R_31": Parameter("", 0.0, 1.0, "$R_{31}$", "amplitude of the third harmonic over that of the first"),
    "phi_31": Parameter("rad", -10.0, 20.0, r"$\phi_{31}$", "phase of the third harmonic"),
    "period_2": Parameter("d", 0.01, 5000.0, "$P_2$", "second period"),
    "ratio_2": Parameter("", 0.0, 10.0, "$A_2/A$", "amplitude of the second period over that of the first"),
    "period_3": Parameter("d", 0.01, 5000.0, "$P_3$", "third period"),
    "ratio_3": Parameter("", 0.0, 10.0, "$A_3/A$", "amplitude of the third period over that of the first"),
    "bandwidth": Parameter("", 0.0, 1.0, r"$\Delta P/P$", "relative width of the periods, whose beats change the "
                                                          "amplitude"),
    "radius_sum": Parameter("", 0.0, 1.0, "$r_1 + r_2$", "radii of two stars over their separation"),
    "radius_ratio": Parameter("", 0.0, 10.0, "$r_2/r_1$", "radius of the cooler star over that of the hotter one"),
    "impact": Parameter("", 0.0, 1.0, "$b$", "cosine of the inclination over radius_sum"),
    "brightness_ratio": Parameter("", 0.0, 1.0, "$J$", "surface brightness of the cooler star over that of the hotter"),
    "mass_ratio": Parameter("", 0.0, 10.0, "$q_*$", "mass of the cooler star over that of the hotter one"),
    "asymmetry": Parameter("", 0.0, 1.0, "$a$", "difference of the two minima over the amplitude"),
    "eccentricity": Parameter("", 0.0, 1.0, "$e$", "eccentricity of the orbit"),
    "inclination": Parameter("rad", 0.0, 1.6, "$i$", "inclination of the orbit"),
    "omega": Parameter("rad", 0.0, 7.0, r"$\omega$", "argument of the periastron"),
    "duration": Parameter("d", 0.0, 1000.0, r"$\tau$", "of an outburst; width of a flare at half height; time in which "
                                                       "spots change"),
    "super_share": Parameter("", 0.0, 1.0, "", "share of the outbursts that are super-outbursts"),
    "amplitude_scatter": Parameter("dex", 0.0, 2.0, "", "standard deviation of the amplitudes of one star's flares"),
    "duration_scatter": Parameter("dex", 0.0, 2.0, "", "standard deviation of the widths of one star's flares"),
    "seed": Parameter("", 0, 2**32, "", "seed of what is random in the curve"),
}
"""The parameters of a variable star. NaN for those that its sub-class does not have."""
PRIOR_PARAMETERS = ("t_0", "u_0", "t_E", "rho", "s", "q", "alpha", "f_s", "m_base")
"""The parameters of an event without parallax and with one source, for each of which a preset states a prior."""
PARALLAX = ("pi_EN", "pi_EE")
SECOND_SOURCE = ("t_0_2", "u_0_2", "rho_2", "q_F")
CLASS_PARAMETERS = {
    "flat": ("m_base",),
    "pspl": ("t_0", "u_0", "t_E", "rho", "f_s", "m_base", *PARALLAX, *SECOND_SOURCE),
    "binary": (*PRIOR_PARAMETERS, *PARALLAX),
    "other": ("t_0", "u_0", "t_E", "rho", "f_s", "m_base", *PARALLAX, *SECOND_SOURCE, *VARIABLE_PARAMETERS),
}

# ---- what the configurations share ----------------------------------------------------------------------------------


def option(default: Any, help: str, *, unit: str = "", low: float | None = None, high: float | None = None,
           choices: tuple | None = None, above: float | None = None, path: bool = False) -> Any:
    """A dataclass field with its documentation.

    low, high : inclusive bounds.   above : exclusive lower bound.   choices : the permitted values.   path : whether it
    names a file or folder, in which `~` means the user's home folder.
    A default of None means "not set": None then passes every check.
    """
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "above": above, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def describe_range(field: dataclasses.Field) -> str:
    """The range of a field in words: 'one of a, b', '0 to 1', '> 0', or ''."""
    choices, low, high, above = (field.metadata[name] for name in ("choices", "low", "high", "above"))
    if choices:
        return f"one of {', '.join(choices)}"
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">", above), (">=", low), ("<=", high)) if bound is not None]
    return " and ".join(bounds)


_LARGEST = 1e300  # of a number; NaN and infinity are beyond it
_TYPE_WORDS = {float: "a number", bool: "true or false", str: "text"}


def _checked_value(field, hint, value):
    """The value of a field, whose annotation is `str`, say, or `str | None`.

    Raises ValueError, naming the field, where it is of another kind or out of range.
    """
    kind, *others = typing.get_args(hint) or (hint,)
    if value is None and others:
        return None
    m, limits = field.metadata, describe_range(field)
    choices, low, high, above = m["choices"], m["low"], m["high"], m["above"]
    is_kind = isinstance(value, (int, float) if kind is float else kind)
    is_kind = is_kind and (kind is bool or not isinstance(value, bool))
    good = is_kind and (not choices or value in choices)
    if good and kind in (int, float):
        good = ((kind is int or abs(value) <= _LARGEST) and (low is None or value >= low)
                and (high is None or value <= high) and (above is None or value > above))
    if not good:
        shown = repr(value[:80]) if isinstance(value, str) else str(value)[:80]
        if kind is int and not is_kind:
            limits = f"a whole number {limits}"
        unit = f" {m['unit']}" if m["unit"] else ""
        raise ValueError(f"{field.name}: came {shown}, expected {limits or _TYPE_WORDS[kind]}{unit}.")
    if m["path"] and value.startswith("~"):
        return str(Path(value).expanduser())
    return kind(value)


FORMER = {"prefix_weight": 1.0, "correlated_noise": 0.0, "correlated_timescale": 1.0, "outlier_fraction": 0.0,
          "outlier_size": 10.0}
"""Fields of older versions, which the files of their runs still state, and the value that always holds now."""


class Config:
    """What the stage configurations share: checks, JSON, comparison."""

    def __post_init__(self):
        for name, value in self.checked(self.to_dict()).items():
            object.__setattr__(self, name, value)

    @classmethod
    def checked(cls, values: dict) -> dict:
        """`values` by name, whole numbers made floats where the field is a float.

        Raises ValueError, naming the field, for an unknown name and for a value of another kind or out of range.
        """
        fields, hints = {f.name: f for f in dataclasses.fields(cls)}, typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(fields))}.")
        return {name: _checked_value(fields[name], hints[name], value) for name, value in values.items()}

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict):
        """Inverse of to_dict, and of that of older versions. Unknown names are an error that lists them."""
        known = {name: value for name, value in values.items() if name not in FORMER or value != FORMER[name]}
        return cls(**cls.checked(known))

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def differences(self, other: dict, ignore: tuple[str, ...] = ()) -> list[str]:
        """'name: here 1, there 2' for each field in which another configuration (a dict) differs.

        A field that the other does not state, because it is younger, had its default there.
        """
        mine = FORMER | self.to_dict()
        other = FORMER | {f.name: f.default for f in dataclasses.fields(self)} | other
        names = sorted((set(mine) | set(other)) - set(ignore))
        return [f"{n}: here {mine.get(n)!r}, there {other.get(n)!r}" for n in names if mine.get(n) != other.get(n)]


_SEED = {"low": 0, "high": 2**32 - 1}


# ---- the stages -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Noise(Config):
    """White noise and lost epochs; a simulation's configuration is a Noise, too."""

    detector: str = option("roman", "Detector noise set: zero point, exposure, encircled energy and background.",
                           choices=DETECTORS)
    noise_scale: float = option(1.0, "Factor on the photometric error.", above=0)
    missing_fraction: float = option(0.05, "Share of the epochs that are lost at random.", low=0, high=0.99)


@dataclass(frozen=True, kw_only=True)
class SimulateConfig(Noise):
    """Simulate light curves of the three classes, and of everything else that varies, into one dataset file."""

    n_flat: int = option(100, "Number of flat (constant) light curves.", unit="events", low=0)
    n_pspl: int = option(100, "Number of single-lens light curves.", unit="events", low=0)
    n_binary: int = option(100, "Number of binary-lens light curves.", unit="events", low=0)
    n_other: int = option(0, "Number of light curves of all else that varies: variable stars, two sources (class "
                             "other).", unit="events", low=0)
    binary_preset: str = option("baseline", "Prior of the lens parameters: distinct, planetary, stellar, baseline, "
                                            "roman, sky, or the path of a YAML file of your own.", path=True)
    noise: str | None = option(None, "Terms of noise beside white noise: those of a preset (sky has some, the others "
                                     "have none), of a shipped set (red_noise, strong_red_noise, outliers), or of a "
                                     "YAML file with a block noise. Unset means those of binary_preset.", path=True)
    photometry: str | None = option(None, "Folder of light curves of quiet stars, of any kind that classify reads: "
                                          "events are put into them, and have their epochs, gaps, noise and errors. "
                                          "Each split has stars of its own.", path=True)
    limb_darkening: float = option(0.0, "Linear limb-darkening coefficient of the source; 0 is a uniform disc.",
                                   low=0, high=1)
    output: str = option("data/raw/events.h5", "Dataset file to make.", path=True)
    split: str = option("train", "Which independent random streams to draw from: events of two splits are never "
                                 "shared.", choices=tuple(SPLITS))
    seed: int = option(0, "Seed of the random streams.", **_SEED)
    schedule: str | None = option(None, "Epochs of the season. Unset means what the preset says: roman for preset "
                                        "roman, else thesis.", choices=SCHEDULES)
    two_sources: float = option(0.0, "Share of the single lenses that have a second source and keep their class.",
                                low=0, high=1)
    oversample: float = option(20.0, "At most this many draws for each wanted event of a class; fewer accepted events "
                                     "are an error.", low=1)
    num_workers: int = option(0, "Number of worker processes; 0 means one a core.", unit="processes", low=0, high=4096)
    part: str | None = option(None, "For an array job: simulate only the k-th of n parts, 'k/n' with k from 0. A later "
                                    "run without this option joins the parts.")

    def __post_init__(self):
        super().__post_init__()
        if self.n_flat + self.n_pspl + self.n_binary + self.n_other == 0:
            raise ValueError("n_flat + n_pspl + n_binary + n_other = 0: ask for at least one event.")
        if self.photometry is not None and self.noise is not None:
            raise ValueError("photometry, noise: came both; events in real photometry have its noise alone.")
        if self.part is not None:
            k, _, n = self.part.partition("/")
            if not (k.isdigit() and n.isdigit() and int(k) < int(n)):
                raise ValueError(f"part: came {self.part!r}, expected 'k/n' with 0 <= k < n, for example 0/8.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Train the classifier on a dataset into a run folder.

    The defaults are those of the shipped networks, but for width and depth, which are the thesis' (d64_l4). The
    parameter files slurm/train_*.yaml state the shipped ones, which are as good and cheaper (docs/results.md).
    """

    data: str = option("data/raw/events.h5", "Dataset file to train on.", path=True)
    extra_data: str | None = option(None, "Second dataset file, all of whose events are for training: rare ones, other "
                                    "noise. Validation, thresholds and held-out events are those of --data.", path=True)
    fresh: bool = option(False, "Draw new light curves of the training part in every pass: t_0, t_E, f_s, m_base, gaps "
                         "and noise are new, the lenses and the paths of the sources stay.")
    experiment_name: str | None = option(None, "Name of the run. Unset means d<width>_l<layers>_hier_<date>_<time>.")
    output: str | None = option(None, "Folder that holds the runs. Unset means MICROLENS_RUNS or runs/.", path=True)
    epochs: int = option(8, "Passes over the training part.", low=1)
    batch_size: int = option(64, "Events of one batch, over all ranks.", unit="events", low=1)
    accumulation_steps: int = option(1, "Batches whose gradients are added up for one optimiser step.", low=1)
    lr: float = option(3e-3, "Peak learning rate.", above=0)
    weight_decay: float = option(1e-2, "Weight decay of AdamW.", low=0)
    warmup_epochs: float = option(1.0, "Linear warm-up of the learning rate.", unit="passes", low=0)
    d_model: int = option(64, "Width of the network, a multiple of 4.", unit="channels", low=4)
    n_layers: int = option(4, "Number of GRU layers.", low=1)
    dropout: float = option(0.1, "Dropout probability.", low=0, high=0.9)
    window_size: int = option(5, "Kernel width of the causal convolutions.", unit="steps", low=1)
    stem_stride: int = option(16, "Valid epochs that make one network step; 1 is the thesis' network.", unit="epochs",
                              low=1, high=64)
    view: str = option("running", "What the network sees beside flux and time step: running adds the best single lens "
                       "through the past; robust adds the same for the sky as it is, with parallax, outliers "
                       "and slow noise; flux adds nothing.", choices=VIEWS)
    hierarchical: bool = option(True, "Two-stage head (flat or not, then single lens or binary); off gives one "
                                "head for all classes.")
    use_aux_head: bool = option(True, "Auxiliary head for all classes with a loss of its own.")
    attention_pooling: bool = option(True, "Attention pooling with a learnable query; off gives the mean over the "
                                     "steps.")
    stage1_weight: float = option(1.0, "Loss weight of flat or not flat.", low=0)
    stage2_weight: float = option(1.0, "Loss weight of single lens or binary, of the events that are not flat.", low=0)
    aux_weight: float = option(0.5, "Loss weight of the auxiliary head.", low=0)
    labels: str = option("observable", "Which label the network learns: observable is asked about after random "
                         "prefixes of the light curves, too; simulated after whole curves alone.",
                         choices=("simulated", "observable"))
    seed: int = option(0, "Seed of split, initialisation, batch order and dropout.", **_SEED)
    save_every: int = option(1, "Keep epoch_NNN.pt after every so many passes; 0 keeps none.", unit="passes", low=0)
    wall_minutes: float = option(0.0, "Stop with a good checkpoint after this long; 0 means no limit.", unit="min",
                                 low=0)
    resume: str | None = option(None, "Continue a run: 'auto' (the newest one of this configuration), a unique part of "
                                "a run's name, or a checkpoint file.", path=True)
    initial: str | None = option(None, "Start from the weights and the feature scaling of another run: a shipped "
                                 "network, a unique part of a run's name, its folder, or a checkpoint file.", path=True)

    def __post_init__(self):
        super().__post_init__()
        name = self.experiment_name
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):  # it stays in the runs folder
            raise ValueError(f"experiment_name: came {name!r}, expected letters, digits and . _ + - alone: it names a "
                             f"folder in runs/.")
        if self.fresh and self.extra_data is not None:
            raise ValueError("fresh, extra_data: came both; events are drawn anew of one dataset alone.")
        if self.d_model % N_HEADS:
            raise ValueError(f"d_model: came {self.d_model}, expected a multiple of {N_HEADS}, the heads of the "
                             "attention pooling.")


N_HEADS = 4
"""Heads of the attention pooling."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config):
    """Which network answers."""

    experiment_name: str | None = option(None, "A shipped network, a unique part of a run's name, or the path of a "
                                         "run's folder or checkpoint. Unset means the shipped network sky.", path=True)


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig(NetworkConfig):
    """Which network answers, and at which thresholds."""

    calibration: str | None = option(None, "File of `microlens calibrate`, whose thresholds of P(binary) are taken: "
                                     "that of whole light curves, at which one is called binary, and that of alerts.",
                                     path=True)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ThresholdConfig):
    """Score a run on a dataset, or on a folder of light-curve files with known classes."""

    data: str | None = option(None, "Dataset file to score.", path=True)
    light_curves: str | None = option(None, "Folder of light-curve files to score instead of a dataset.", path=True)
    truth: str | None = option(None, "CSV file with the columns set, file, unit, class_by_season, for "
                               "--light-curves.", path=True)
    output: str | None = option(None, "Folder to make. Unset means runs/<run>/eval_<dataset>_<time>.", path=True)
    rows: str = option("held-out", "Which rows of the run's own training events to score. Events of other random "
                       "streams are scored in any case.", choices=("held-out", "val", "train", "all"))
    early_detection: bool = option(True, "Score alerts, and accuracy against the fraction of the season seen.")
    baselines: bool = option(True, "Score the single-lens fit and gradient boosting on the same events.")
    false_alarms: float | None = option(
        None, "Largest share of single lenses, of flat curves, and of premature alerts that the thresholds may have on "
        f"the validation rows. Unset: {FALSE_ALARMS:g}, and a network that knows class other calls nothing binary that "
        "is more probably something else.",
        above=0, high=1)
    n_evolution_per_type: int = option(2, "Events of each class drawn as evolution_<class>_<row>.", low=0)
    colorblind_safe: bool = option(True, "Palette that colour-blind readers can tell apart.")
    calibration_n_bins: int = option(15, "Bins of the reliability diagram.", low=2)
    save_formats: str = option("png", "Figure formats, separated by commas: png, pdf, svg.")

    def __post_init__(self):
        super().__post_init__()
        bad = sorted(set(self.formats) - {"png", "pdf", "svg"})
        if bad or not self.formats:
            raise ValueError(f"save_formats: came {self.save_formats!r}, expected some of png,pdf,svg.")
        if (self.data is None) == (self.light_curves is None):
            raise ValueError("give either --data (a dataset) or --light-curves (a folder), exactly one of them.")
        if self.light_curves is not None and self.truth is None:
            raise ValueError("--light-curves needs --truth, a CSV file with set, file, unit and class_by_season.")

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(f.strip() for f in self.save_formats.split(",") if f.strip())


@dataclass(frozen=True, kw_only=True)
class ReadConfig(Config):
    """What a light-curve file does not say of itself; see docs/light_curve_files.md."""

    time: str | None = option(None, "Column of times: its name, or its number from 1, with its unit in brackets if "
                              "need be: 't [s]'.")
    value: str | None = option(None, "Column of brightness, named in the same way: '4', 'I', 'flux [uJy]'; or the unit "
                               "alone: '[mag]'. Units are mag, mmag, flux, nJy, uJy and mJy.")
    error: str | None = option(None, "Column of the brightness' error, named in the same way.")
    band: str | None = option(None, "Band, telescope or camera to read of a file with several. Unset means F146 where "
                              "there is one, else each on its own.")
    event: str | None = option(None, "Star or event, by name or number, to read of a file with several. Unset means "
                               "each on its own.")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ReadConfig, ThresholdConfig):
    """Classify other people's light-curve files."""

    format: str = option("table", "How the answers are printed.", choices=("table", "csv", "json"))
    num_workers: int = option(1, "Processes that classify files at the same time.", low=1, high=256)


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(NetworkConfig):
    """Find the threshold of P(binary) that keeps the false alarms low on quiet light curves of your own."""

    false_alarms: float = option(0.01, "Share of the single lenses, and of the quiet light curves, that may be called "
                                 "binary, and that may raise an alert. It takes 1/share - 1 stars at the least.",
                                 above=0, high=0.5)
    binary_preset: str | None = option(None, "Prior of the single lenses that are put into the stars: a preset, or the "
                                       "path of a YAML file of your own. Unset means that of the network's "
                                       "training.", path=True)
    injections: int = option(4, "Single lenses put into each season of a star, one at a time.", low=1)
    split: str = option("all", "Which of the folder's stars to use: all, or those that simulate --photometry has under "
                        "the same --split, so that others are left to test on.",
                        choices=("all", "train", "val", "test"))
    output: str = option("calibration.json", "File to make.", path=True)
    seed: int = option(0, "Seed of the single lenses.", **_SEED)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(ReadConfig, ThresholdConfig):
    """Take new epochs of many stars into their saved state, and print the alerts that they raise.

    A star's reference flux is that of a column `baseline`, or the median of its first 32 epochs, which wait until all
    are there. Epochs that are not later than their star's last one count as known already.
    """

    state: str = option("stars.h5", "File with the state of every star; made where it is absent.", path=True)
    format: str = option("json", "How alerts are printed: JSON lines, or CSV.", choices=("json", "csv"))
