"""The classifier: the causal network, its training, its streaming form, and what a run keeps.

model       the network; log-probabilities after whole curves and after every epoch
stream      the same numbers, a few epochs at a time
predict     the network's output on rows of a dataset; alerts
training    train(config) -> run folder, one code path for notebook, papermill and torchrun
runs        the files of a run: checkpoints, and how a run is found and read
ranks       this process among those that torchrun started
attention   attention pooling of whole curves by torch's kernel or by flash-attn
"""

from microlens.network.model import Classifier
from microlens.network.runs import Run, load_run

__all__ = ["Classifier", "Run", "load_run"]
