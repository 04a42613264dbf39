import numpy as np
import pytest
import torch

from microlens.dataset import decode, encode, split_rows, thin
from microlens.model import Classifier
from microlens.survey import sigma_flux

OPTIONS = [{}, {"stem_stride": 1}, {"attention_pooling": False}, {"hierarchical": False}, {"use_aux_head": False},
           {"view": "running"}, {"view": "running", "stem_stride": 16}]


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    flux = (1 + 0.1 * rng.normal(size=(3, 300))).astype(np.float32)
    flux[rng.random(flux.shape) < 0.05] = 0
    return flux, np.full_like(flux, 0.01)


def make(**options):
    torch.manual_seed(0)
    return Classifier(**{"d_model": 16, "n_layers": 2, **options}).eval()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_past_does_not_see_the_future_bit_for_bit(options, curves):
    flux, delta_t = curves
    c, other = make(**options), flux.copy()
    other[:, 150:] = 9.0
    assert np.array_equal(c.log_prob_prefixes(flux, delta_t)[:, :150], c.log_prob_prefixes(other, delta_t)[:, :150])


@pytest.mark.parametrize("options", OPTIONS)
def test_stream_prefixes_and_full_pass_agree(options, curves):
    flux, delta_t = curves
    c = make(**options)
    prefixes = c.log_prob_prefixes(flux, delta_t)
    assert c.log_prob(flux, delta_t) == pytest.approx(prefixes[:, -1], abs=1e-5)
    assert c.log_prob(flux[:, :101], delta_t[:, :101]) == pytest.approx(prefixes[:, 100], abs=1e-5)
    stream = c.stream(3)
    stream.update(flux[:, :57], delta_t[:, :57])
    stream = c.stream(3).restore(stream.state())
    for k in range(57, 120):
        p = stream.update(flux[:, k], delta_t[:, k])
        assert np.log(p) == pytest.approx(prefixes[:, k], abs=1e-5)
    assert np.exp(prefixes).sum(-1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("m_base", [18.0, 21.0, 24.0])
def test_packed_flux_is_far_below_the_noise(m_base):
    lowest = 1 - 5 * sigma_flux(np.ones(1), m_base, "roman")[0]
    flux = np.concatenate([np.linspace(lowest, 3, 5001), 10 ** np.linspace(0, 3.5, 2001)])
    # rms of a uniform rounding error is its largest value / sqrt 3
    assert (np.abs(decode(encode(flux)) - flux) / np.sqrt(3) <= 0.2 * sigma_flux(flux, m_base, "roman")).all()


def test_split_is_stratified_and_disjoint():
    labels = np.repeat([0, 1, 2], [100, 200, 300])
    train, val, test = split_rows(labels, 3)
    assert sorted(np.concatenate([train, val, test])) == list(range(600))
    assert np.bincount(labels[val]).tolist() == [15, 30, 45]


def test_thinning_keeps_the_times_of_the_epochs_that_are_left():
    t = np.sort(np.random.default_rng(1).uniform(0, 70, (2, 500)), axis=1)
    t[:, 0] = 0.0
    delta_t, extra = np.diff(t, prepend=0.0).astype(np.float32), np.repeat(t[..., None], 2, axis=2)
    flux, d, n, x = thin(t + 1, delta_t, np.array([500, 400]), extra, 0.5, [(1, 2), (1, 3)])
    assert (n < [500, 400]).all() and (n > [100, 80]).all()
    for i in range(2):
        assert flux[i, : n[i]] - 1 == pytest.approx(x[i, : n[i], 0]) and not flux[i, n[i] :].any()
        assert np.cumsum(d[i, : n[i]]) == pytest.approx(flux[i, : n[i]] - flux[i, 0], abs=1e-3)
