"""Roman microlensing light curves: simulate, explore, train, evaluate, classify.

    import microlens
    classifier = microlens.load()                       # shipped weights, else the newest run
    log_p = classifier.log_prob(flux, delta_t)                   # (n, 3): flat, pspl, binary; causal
    stream = classifier.stream(); p = stream.update(flux_now, delta_t_now)
"""

import microlens.kernels  # noqa: F401  before anything imports numba


def load(name=None, checkpoint="best", device="cpu"):
    """The classifier of a run, ready to use.

    name : a unique part of the run's name. Without it the shipped weights, else the newest run.   device : cpu, cuda or auto.
    Raises FileNotFoundError naming the command that makes a run, ValueError for an ambiguous name.
    """
    from microlens.checkpoint import load_run

    return load_run(name, checkpoint, device)


__all__ = ["load"]
