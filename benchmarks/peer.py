"""What jacscanomaly 0.5 makes of the light curves of `make sky`: a single-lens fit, then a grid of windows.

    pip install jacscanomaly==0.5.2
    python -m benchmarks.peer [FOLDER [N]]      # FOLDER of benchmarks.sky; N single lenses and at most N observable
                                                # binaries of each condition

It is given the true errors, and calls a light curve binary where its delta chi^2 is at least BAR. It answers after the
season alone. Shares have 95 % intervals (Clopper-Pearson).
"""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.sky import CONDITIONS, file_name, share
from microlens.config import BINARY, PSPL
from microlens.data import open_dataset
from microlens.files import data_dir

BAR = 160.0


def delta_chi2(finder, t, flux, sigma) -> float:
    """Its statistic of one light curve; 0 where it finds no candidate."""
    best = finder.run(t, flux, sigma, verbose=False).best
    return 0.0 if best is None else float(best.dchi2)


def main(folder=None, n=100):
    from jacscanomaly import CandidateCriteria, Finder, FinderConfig

    folder, n = Path(folder or data_dir() / "sky"), int(n)
    finder = Finder(FinderConfig(fitter_kind="pspl", candidate_criteria=CandidateCriteria(min_n_eff=2.0)))
    for condition in CONDITIONS:
        (path,) = folder.glob(f"{file_name(condition)}_*.h5")
        with open_dataset(path) as data:
            single = np.flatnonzero(data.labels == PSPL)[:n]
            binary = np.flatnonzero(data.labels_observable == BINARY)[:n]
            rows, score, began = np.concatenate([single, binary]), [], time.perf_counter()
            for row in rows:
                flux, sigma = data.flux(row).astype(float), data.sigma(row).astype(float)
                seen = flux != 0
                score.append(delta_chi2(finder, data.timestamps[seen], flux[seen], sigma[seen]))
        seconds = (time.perf_counter() - began) / len(rows)
        called, is_binary = np.array(score) >= BAR, np.isin(rows, binary)
        print(f"{condition}: completeness {share(called, is_binary)}, n = {len(binary)}; single lenses called binary "
              f"{share(called, ~is_binary)}, n = {len(single)}; {seconds:.2f} s a light curve", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
