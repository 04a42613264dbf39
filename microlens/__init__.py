"""Roman microlensing light curves: simulate, explore, train, evaluate, classify.

    import microlens
    classifier = microlens.load()                                # the shipped network for the thesis' season
    log_p = classifier.log_prob(flux, delta_t)                   # (n, 3): flat, pspl, binary
    stream = classifier.stream(); p = stream.update(flux_now, delta_t_now)

For a guided tour read config.py, then data/events.py (how one event is made), network/model.py and
evaluate/__init__.py.
"""

import microlens.files  # noqa: F401  before anything imports numba


def load(name=None, device="cpu"):
    """The trained network of a run, ready to use.

    name : a shipped network (`baseline`, `roman`), a unique part of a run's name, its folder, or one of its checkpoint
    files; unset means the shipped `baseline`.   device : cpu, cuda or auto.
    Returns a microlens.network.Classifier. Raises FileNotFoundError that lists what there is, ValueError for an
    ambiguous name.
    """
    from microlens.network.runs import load_run

    return load_run(name, device).network


__all__ = ["load"]
