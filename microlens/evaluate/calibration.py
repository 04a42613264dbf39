"""A threshold of P(binary) that keeps the false alarms below a wanted rate on quiet light curves of the user's own.

    file = calibrate("my_stars", CalibrateConfig(false_alarms=0.01))
    calibration = read_calibration(file, run)        called = p_binary >= calibration.whole_curve

Single lenses are put into the quiet seasons of real stars, and these are read and answered as `classify` does it. The
threshold is a split-conformal quantile of the answers (see conformal_threshold), so the guarantee needs nothing of the
network and nothing of the noise. It needs new stars to be like those of the folder, and new single lenses like those
of the preset.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from math import ceil
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from microlens import sky
from microlens.config import BINARY, CALIBRATION_STREAM, CalibrateConfig, SimulateConfig
from microlens.data.events import make_event, preset_source
from microlens.data.lightcurve import LightCurve, is_sparse, seasons
from microlens.data.photometry import QuietSeason, read_photometry
from microlens.data.tables import LightCurveError
from microlens.files import KERNEL_VERSION, atomic
from microlens.network.model import Classifier
from microlens.network.predict import alert_scores
from microlens.network.runs import Run, load_run

log = logging.getLogger("microlens")
FORMAT = "microlens calibration 1"
MOST_DRAWS = 100  # of a single lens until its magnification is known to its tolerance
NOT_ANSWERED = 0.0  # score of a light curve that classify refuses: it is never called binary
LEARNT_PARTS = ("train", "val")  # parts of a training whose stars its network, or the choice of its best pass, has seen


@dataclass(frozen=True)
class Calibration:
    """What a calibration file says.

    network, weights : name of the network and digest of its weights.   false_alarms : the wanted rate.
    whole_curve, alert : the thresholds of P(binary) after whole curves, and of the alert score.   reached : what share
    of the calibration's own curves reaches each of them, by kind.   n_injections : single lenses in all n_seasons
    seasons of the n_stars stars.   photometry : digest of the folder.   stars : their names.   package, kernels :
    versions of the package and of its compiled functions.
    """

    network: str
    weights: str
    false_alarms: float
    whole_curve: float
    alert: float
    reached: dict[str, dict[str, float]]
    n_stars: int
    n_seasons: int
    n_injections: int
    binary_preset: str
    split: str
    seed: int
    photometry: str
    stars: list[str]
    package: str
    kernels: str

    @property
    def source(self) -> str:
        """What the thresholds are from, in words."""
        return f"a calibration on {self.n_stars} quiet stars"

    @property
    def limits(self) -> str:
        """What the thresholds keep, in words."""
        return f"false alarms of single lenses and of quiet stars <= {self.false_alarms:g} each"

    def knows(self, stars) -> np.ndarray:
        """Which of the named stars (N,) the thresholds were chosen on, (N,) bool."""
        return np.isin(stars, self.stars)


# ---- the threshold --------------------------------------------------------------------------------------------------


def conformal_threshold(scores, stars, rate: float) -> float:
    """The threshold that the score of a new star reaches with a probability of at most `rate`.

    scores : (N,).   stars : (N,) the star that each score is of; a star may have several.   rate : 0 to 1, exclusive.

    With m_i(t) the share of the scores of star i that are >= t, and n stars, a threshold t keeps the rate where

        (m_1(t) + ... + m_n(t) + 1)/(n + 1) <= rate

    and the lowest such number of the scores' precision is returned. The 1 stands for the new star, which may be as bad
    as can be. Stars have to be exchangeable; scores of one star need not be independent. This is split conformal
    prediction (Lei et al. 2018, section 2.2) with stars as groups (Dunn, Wasserman & Ramdas 2023; Lee, Barber & Willett
    2023). The probability is over the stars of the calibration and the new one together: a calibration may be unlucky.
    Sums are exact fractions, so neither ties nor rounding make the threshold too low.

    Raises ValueError where there are too few stars, or a score is not a number.
    """
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite numbers.")
    _, star, n_scores = np.unique(stars, return_inverse=True, return_counts=True)
    allowed, reached = allowed_stars(len(n_scores), rate), Fraction(0)
    for i in np.argsort(-scores, kind="stable"):
        reached += Fraction(1, int(n_scores[star[i]]))
        if reached > allowed:  # the scores down to this one are too many, so the threshold lies just above it
            break
    return float(np.nextafter(scores[i], scores.dtype.type(np.inf)))


def allowed_stars(n_stars: int, rate: float) -> Fraction:
    """How many stars may reach the threshold of conformal_threshold. Raises ValueError where there are too few stars.

    The rate is taken as it is written: 0.01 is 1/100.
    """
    wanted = Fraction(str(rate))
    if wanted * (n_stars + 1) < 1:
        least = ceil(Fraction(1000, n_stars + 1)) / 1000
        raise ValueError(f"{n_stars} quiet stars are too few: a share of {rate:g} false alarms can be kept with "
                         f"{ceil(1 / wanted) - 1} or more. Give more stars, or ask for --false-alarms {least:g} or "
                         "more.")
    return wanted * (n_stars + 1) - 1


# ---- the scores -----------------------------------------------------------------------------------------------------


SCORES = np.dtype([("whole_curve", "f8"), ("alert", "f4")])
"""The highest thresholds at which a light curve is called binary, which is P(binary) at its end, and at which it raises
an alert, as predict.alert_scores gives it."""


def network_scores(network: Classifier, flux, delta_t) -> np.ndarray:
    """The SCORES (N,) of light curves of the same epochs; flux, delta_t : (N, T) as Classifier.log_prob takes them."""
    p = np.exp(network.log_prob_prefixes(flux, delta_t).astype(float))
    p_binary = p[..., BINARY] / p.sum(axis=-1)
    start = network.stream().update(0.0, 0.0)[0, BINARY]  # before the first epoch
    steps = p_binary[:, network.stem_stride - 1 :: network.stem_stride]
    out = np.empty(len(flux), SCORES)
    out["whole_curve"] = p_binary[:, -1]
    out["alert"] = alert_scores(np.column_stack([np.full(len(flux), start), steps]))
    return out


def season_scores(network: Classifier, star: QuietSeason, events) -> np.ndarray:
    """The SCORES (N,) of one quiet season with each of N events in it.

    events : (N, 2, n) flux and error with the event, as QuietSeason.injected gives them.
    A light curve with the event is read as if the file held nothing else, so its baseline is that which `classify`
    finds. One without a usable baseline, which `classify` refuses, has the scores NOT_ANSWERED. Where the reader leaves
    out an epoch between two pauses, it finds two seasons there, and the higher scores count.
    """
    read = []  # places and the seasons that classify answers
    for place, (flux, error) in enumerate(events):
        with contextlib.suppress(LightCurveError):
            found = seasons(LightCurve(star.star, star.time, flux, error, "flux", ""))
            read += [(place, season) for season in found if len(season.flux)]
    out = np.full(len(events), NOT_ANSWERED, SCORES)
    for n_epochs in {len(season.flux) for _, season in read}:  # the reader may join other epochs in another event
        places, alike = zip(*((place, season) for place, season in read if len(season.flux) == n_epochs), strict=True)
        arrays = (np.stack([getattr(season, name) for season in alike]) for name in ("flux", "delta_t"))
        scores = network_scores(network, *arrays)
        for name in SCORES.names:
            np.maximum.at(out[name], list(places), scores[name])
    return out


def single_lenses(star: QuietSeason, preset: sky.Preset, n: int, seed: int, number: int) -> np.ndarray:
    """Flux and error (n, 2, T) of a quiet season with each of n single lenses of a preset in it.

    seed, number : of the random stream; seasons with different numbers have different events.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(CALIBRATION_STREAM, number)))
    config = SimulateConfig(seed=seed)
    source = preset_source(preset, "pspl", star.time, config)
    events = (make_event(source, config, star.time, rng, MOST_DRAWS, star) for _ in range(n))
    return np.array([(event.flux, event.error) for event in events])


def star_scores(network: Classifier, stars, preset: sky.Preset, n: int, seed: int,
                progress: bool = True) -> dict[str, np.ndarray]:
    """The SCORES of S quiet seasons by kind: flat (S, 1), as they are, and pspl (S, n), with each of n single lenses.
    """
    found = []
    for number, star in enumerate(tqdm(stars, desc="calibrate", unit="season", disable=not progress)):
        events = single_lenses(star, preset, n, seed, number)
        found.append(season_scores(network, star, [(star.flux, star.error), *events]))
    table = np.stack(found)
    return {"flat": table[:, :1], "pspl": table[:, 1:]}


def choose_threshold(by_kind: dict, names, rate: float) -> float:
    """The lowest threshold that keeps the rate among each kind of light curves.

    by_kind : {kind: scores (S, n)} of S seasons.   names : (S,) the star of each season.
    """
    return max(conformal_threshold(scores.ravel(), np.repeat(names, scores.shape[1]), rate)
               for scores in by_kind.values())


# ---- the command ----------------------------------------------------------------------------------------------------


def calibrate(folder, config: CalibrateConfig, run: Run | None = None, progress: bool = True) -> Path:
    """Calibrate a network on the quiet light curves in a folder; returns the file made.

    Stars that the network was trained or validated on are left out with a word. Raises LightCurveError for a folder
    without quiet stars, and ValueError where they are too few, or where the network is so sure of its false alarms
    that no threshold keeps the rate.
    """
    run = run or load_run(config.experiment_name, "auto")
    photometry = read_photometry(str(folder), "quick" if config.split == "all" else config.split, for_dataset=False)
    seasons_of_stars = _unlearnt(photometry.seasons, run, folder)
    names = np.array([season.star for season in seasons_of_stars])
    n_stars = len(np.unique(names))
    allowed_stars(n_stars, config.false_alarms)  # too few are an error before the work
    preset_name = config.binary_preset or run.data["config"]["binary_preset"]
    preset = sky.load_preset(preset_name)
    scores = star_scores(run.network, seasons_of_stars, preset, config.injections, config.seed, progress)
    thresholds, reached = {}, {}
    for name in SCORES.names:
        by_kind = {kind: of_kind[name] for kind, of_kind in scores.items()}
        thresholds[name] = choose_threshold(by_kind, names, config.false_alarms)
        reached[name] = {kind: _mean_share(values >= thresholds[name], names) for kind, values in by_kind.items()}
    if max(thresholds.values()) > 1:
        raise ValueError(f"{folder}: no threshold keeps the false alarms at {config.false_alarms:g}: the P(binary) "
                         f"that {run.name} gives to more of these light curves than that is 1.")
    calibration = Calibration(
        run.name, run.digest, config.false_alarms, **thresholds, reached=reached, n_stars=n_stars,
        n_seasons=len(names), n_injections=len(names) * config.injections, binary_preset=preset_name,
        split=config.split, seed=config.seed, photometry=photometry.digest, stars=sorted(set(names.tolist())),
        **_versions())
    write_calibration(Path(config.output), calibration)
    for name, what in (("whole_curve", "called binary"), ("alert", "alerted")):
        share = reached[name]
        log.info("%s at P(binary) >= %.7g: %.4f of the %d single lenses and %.4f of the %d quiet seasons of %d stars",
                 what, thresholds[name], share["pspl"], calibration.n_injections, share["flat"], len(names), n_stars)
    return Path(config.output)


def _unlearnt(stars, run: Run, folder) -> list[QuietSeason]:
    """The seasons of stars that a training did not use, with a word on those left out and on sparse ones."""
    known = run.data.get("stars", {})
    left = [season for season in stars if known.get(season.star) not in LEARNT_PARTS]
    if len(left) < len(stars):
        log.warning("%s: %d of %d seasons are left out, of stars that %s was trained on.", folder,
                    len(stars) - len(left), len(stars), run.name)
    if not left:
        raise ValueError(f"{folder}: {run.name} was trained on all of its stars; give others, or --split test.")
    n_sparse = sum(is_sparse(season.time) for season in left)
    if n_sparse:
        log.warning("%s: %d of %d seasons have a cadence that the network does not know; the rate is kept all the "
                    "same, but few binaries will be found.", folder, n_sparse, len(left))
    return left


def _mean_share(reached, names) -> float:
    """Mean over stars of the share of reached (S, n) among the curves of their seasons; names : (S,) stars."""
    return float(np.mean([reached[names == name].mean() for name in np.unique(names)]))


def _versions() -> dict[str, str]:
    return {"package": f"microlens {metadata.version('microlens')}", "kernels": KERNEL_VERSION}


# ---- the file -------------------------------------------------------------------------------------------------------


def _checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_calibration(path: Path, calibration: Calibration):
    """Write a calibration as JSON with its checksum; the same calibration gives the same bytes. Raises WriteError."""
    content = {"format": FORMAT, **dataclasses.asdict(calibration)}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n")


def read_calibration(path, run: Run) -> Calibration:
    """The calibration in a file, of the network of `run`.

    Raises FileNotFoundError, and ValueError where the file is damaged, is none, or is of another network.
    """
    again = "make it anew with `microlens calibrate FOLDER`"
    try:
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; `microlens calibrate FOLDER` makes one.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path}: is no readable calibration file ({error}); {again}.") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: is no calibration file of this version of the package; {again}.")
    stated = content.pop("checksum", None)
    if stated != _checksum({"format": FORMAT, **content}):
        raise ValueError(f"{path}: is damaged or was changed by hand: its checksum does not fit; {again}.")
    calibration = Calibration(**content)
    if calibration.weights != run.digest:
        raise ValueError(f"{path}: is a calibration of another network, {calibration.network}, and says nothing of "
                         f"{run.name}; {again} and --experiment-name.")
    if _versions() != {name: content[name] for name in _versions()}:
        log.warning("%s: was made by another version of the package, whose answers may differ; %s.", path, again)
    return calibration
