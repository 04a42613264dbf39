"""The parts of `make bench` run, with so few repetitions that their numbers mean nothing."""

import pytest

from benchmarks import networks


@pytest.mark.parametrize("part, few, said", [
    (networks.prefixes, {"n": 1, "k": 2}, "stride 8: all 6912 answers"),
    pytest.param(networks.training, {"n": 1, "batch": 2}, "training an event at stride 8", marks=pytest.mark.validate),
    (networks.inference, {"n": 1, "batch": 8}, "preset sky: sky answers"),
    (networks.streaming, {"n": 16, "n_curves": 4}, "a stream of 4 light curves"),
])
def test_a_benchmark_of_the_network_runs(part, few, said, capsys):
    part(**few)
    assert said in capsys.readouterr().out
