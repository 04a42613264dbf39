"""Buttons that fit a lens to the light curve of a LensExplorer: single lenses, and binaries with all their solutions.

    explorer.fits.start("search");  explorer.fits.wait();  explorer.fits.found.best.parameters

A fit runs in a thread of its own, with progress and cancel. A solution that is chosen from the list moves the sliders.
"""

from __future__ import annotations

import html
import threading

import ipywidgets as widgets

from microlens import fit
from microlens.config import PARALLAX, PARAMETERS
from microlens.explore.controls import printed_unit, row, user_path
from microlens.fit import SingleLensFit
from microlens.fit.problem import BINARY

KINDS = {"PSPL": ("PSPL", "a single lens and a point source"),
         "FSPL": ("FSPL", "a single lens and a source with a disc"),
         "from the sliders": ("binary", "a binary lens that starts as the sliders stand: seconds"),
         "search": ("binary", "a binary lens from a coarse search: a minute")}


class Fits:
    """The buttons of the fits of an explorer, their progress and solutions; `widget` is what to display.

    explorer : a LensExplorer.   found : the last LightCurveFit, None before the first.
    """

    def __init__(self, explorer):
        self.explorer, self.found, self.thread, self.cancelled = explorer, None, None, threading.Event()
        self.buttons = [widgets.Button(description=name, tooltip=what, layout={"width": "130px"})
                        for name, (_, what) in KINDS.items()]
        self.parallax = widgets.Checkbox(description="with parallax", indent=False, layout={"width": "120px"})
        self.cancel = widgets.Button(description="cancel", disabled=True, layout={"width": "80px"})
        self.progress = widgets.FloatProgress(max=1.0, layout={"width": "160px"})
        self.words, self.values = widgets.HTML(), widgets.HTML()
        self.solutions = widgets.Select(options=[], description="solutions", rows=4, layout={"width": "560px"})
        self.chain = widgets.Button(description="Markov chain", disabled=True, layout={"width": "120px"},
                                    tooltip="errors of the chosen solution from a Markov chain (needs emcee)")
        self.file = widgets.Text(value="fit.py", description="export to", layout={"width": "240px"})
        self.export_button = widgets.Button(description="export fit", disabled=True, layout={"width": "100px"},
                                            tooltip=".py: MulensModel code; .json: for microlens-submit")
        attempt = explorer.message.attempt
        for button in self.buttons:
            button.on_click(lambda button: attempt(self.start, button.description))
        self.cancel.on_click(lambda _: self.cancelled.set())
        self.solutions.observe(lambda change: attempt(self.show, change["new"]), "value")
        self.chain.on_click(lambda _: attempt(self.start_chain))
        self.export_button.on_click(lambda _: attempt(self.export, self.file.value))
        self.widget = widgets.VBox([
            row(widgets.Label("fit"), *self.buttons, self.parallax, self.cancel, self.progress, self.words),
            row(self.solutions, self.values), row(self.chain, self.file, self.export_button)])

    # ---- the work ---------------------------------------------------------------------------------------------------

    def start(self, name: str):
        """Begin one of KINDS on the light curve that is shown; a simulated one stays as it is from now on.

        Raises ValueError for an unknown kind, and while another fit runs.
        """
        if name not in KINDS:
            raise ValueError(f"fit: came {name!r}, expected one of {', '.join(KINDS)}.")
        self._refuse_while_running()
        explorer, (model, _) = self.explorer, KINDS[name]
        if explorer.measured is None:
            explorer.keep_simulated()
        measured, parameters = explorer.measured, explorer.parameters
        start = {key: parameters[key] for key in BINARY} if name == "from the sliders" else None
        field = measured.field if self.parallax.value else None
        if start and field:
            start |= {key: parameters[key] for key in PARALLAX}

        def work():
            return fit.fit_light_curve(measured.t, measured.flux, measured.sigma, model=model, parallax=field,
                                       start=start, progress=self._tell, cancel=self.cancelled.is_set)

        self._run(work, self._take)

    def start_chain(self):
        """Begin a Markov chain about the chosen solution. Raises ImportError without emcee."""
        self._refuse_while_running()
        found, solution = self.found, self.solution

        def work():
            return fit.sample(found, solution, progress=self._tell, cancel=self.cancelled.is_set)

        self._run(work, self._take_chain)

    def _refuse_while_running(self):
        if self.thread is not None and self.thread.is_alive():
            raise ValueError("a fit is running; cancel it or wait.")

    def _run(self, work, take):
        """Do `work` in a thread and hand what it returns to `take`."""
        self.cancelled.clear()
        self._tell(0.0, "the fit begins")
        self.cancel.disabled = False

        def run():
            try:
                result = work()
                take(result)
            except fit.FitCancelled:
                self._tell(0.0, "cancelled; there is no solution yet")
            except Exception as error:  # a thread's traceback would be seen by nobody
                self.progress.value = 0.0
                self.words.value = f"<b class='microlens-error'>{html.escape(str(error))}</b>"
            self.cancel.disabled = True

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self, seconds: float | None = None):
        """Wait for the fit that runs."""
        if self.thread is not None:
            self.thread.join(seconds)

    def _tell(self, share: float, words: str):
        self.progress.value, self.words.value = share, html.escape(words)

    # ---- what it found ----------------------------------------------------------------------------------------------

    @property
    def solution(self):
        """The chosen solution."""
        if self.found is None:
            raise ValueError("nothing has been fitted yet.")
        return self.found.solutions[self.solutions.value or 0]

    def _take(self, found):
        self.found = found
        best = found.best.chi2
        lines = []
        for i, s in enumerate(found.solutions):
            lens = "".join(f", {name} = {s.parameters[name]:.4g}" for name in ("s", "q", "u_0") if name in s.parameters)
            lines.append((f"{i + 1}: χ² = {best:.6g} + {s.chi2 - best:.2f}{lens}", i))
        self.solutions.value = None
        self.solutions.options = lines
        self.solutions.value = 0
        self.chain.disabled = self.export_button.disabled = False
        stopped = "; it was cancelled before the end" if found.cancelled else ""
        poor = "" if found.best.describes else "; none describes it within its errors: look at the residual"
        self._tell(1.0, f"{len(lines)} solution{'s' * (len(lines) > 1)} in {found.seconds:.1f} s{stopped}{poor}")

    def show(self, number: int | None):
        """Show a solution by its number from 0: its values, and its model over the light curve; None shows nothing."""
        if number is None:
            return
        s = self.found.solutions[number]
        values = [(name, value, s.errors[name], printed_unit(PARAMETERS[name].unit))
                  for name, value in s.parameters.items()]
        values += [(name, value, s.flux_errors[name], "baseline") for name, value in s.fluxes.items()]
        rows = "".join(f"<tr><td>{name}</td><td>{value:.7g}</td><td>&plusmn; {error:.2g}</td><td>{unit}</td></tr>"
                       for name, value, error, unit in values)
        self.values.value = (f"<table>{rows}</table>{s.model}: χ² = {s.chi2:.6g} of {s.n} epochs and "
                             f"{len(s.names)} parameters")
        if "q" in s.parameters:
            without = {} if s.parallax is not None else {"pi_EN": 0.0, "pi_EE": 0.0}
            self.explorer.set_lens({**s.parameters, **without})
        else:
            p, f = s.parameters, s.fluxes
            self.explorer.set_single(SingleLensFit(s.chi2, p["t_0"], p["u_0"], p["t_E"], p.get("rho", 0.0),
                                                   f["f_source"], f["f_blend"], s.parallax))

    def _take_chain(self, chain):
        rows = "".join(f"<tr><td>{name}</td><td>{median:.7g}</td><td>- {minus:.2g} + {plus:.2g}</td></tr>"
                       for name, (median, minus, plus) in chain.summary().items())
        self.values.value = f"<table>{rows}</table>medians and 68 % intervals of a Markov chain"
        self._tell(1.0, "the Markov chain is done")

    def export(self, path) -> str:
        """Write the chosen solution: .py is MulensModel code with the epochs beside it, .json is for microlens-submit.

        Raises ValueError for another ending, and where nothing has been fitted.
        """
        path, solution = user_path(path), self.solution
        if path.suffix == ".py":
            epochs = path.with_suffix(".dat")
            fit.save_epochs(self.found, epochs)
            path.write_text(fit.to_mulensmodel(self.found, solution, data_file=epochs.name))
        elif path.suffix == ".json":
            path.write_text(fit.to_microlens_submit(self.found, solution, alias=path.stem))
        else:
            raise ValueError(f"export to: came {str(path)!r}, expected a name that ends in .py or .json.")
        return html.escape(f"the fit is written to {path}")
