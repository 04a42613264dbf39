import io

import numpy as np
import pytest
import torch

from microlens.config import DETECTORS, SimulateConfig, TrainConfig
from microlens.data import open_dataset, simulate
from microlens.data.packed import PackedDataset, decode, encode, pack, split_rows
from microlens.network import model
from microlens.network.attention import flash_attention
from microlens.network.model import from_config
from microlens.sky import sigma_flux

T = 200
OPTIONS = [
    {},
    {"stem_stride": 1},
    {"stem_stride": 5, "window_size": 1, "n_layers": 1},
    {"attention_pooling": False},
    {"hierarchical": False, "use_aux_head": False},
    {"view": "running"},
    {"view": "robust"},
]
each = pytest.mark.parametrize("options", OPTIONS, ids=str)


@pytest.fixture
def curves():
    """Three curves with gaps: flux and delta_t (3, T), as a dataset has them."""
    rng = np.random.default_rng(0)
    flux = (1 + 0.1 * rng.normal(size=(3, T))).astype(np.float32)
    flux[rng.random(flux.shape) < 0.1] = 0
    return flux, np.where(flux != 0, rng.uniform(0.01, 0.2, flux.shape), 0).astype(np.float32)


def make(**options):
    """An untrained network whose outputs vary: scaling as after a training, weights as they are born."""
    torch.manual_seed(0)
    c = from_config(TrainConfig().to_dict() | {"d_model": 16, "stem_stride": 8, "view": "flux"} | options).eval()
    c.mean[:3] += torch.tensor([0.1, 0.0, 1.0])
    c.std[:3] *= torch.tensor([5.0, 0.2, 1.0])
    return c


@each
def test_the_past_does_not_see_the_future_bit_for_bit(options, curves):
    flux, delta_t = curves
    c = make(**options)
    known = c.log_prob_prefixes(flux, delta_t)
    for k in (1, 57, 150):
        other, gaps = flux.copy(), delta_t.copy()
        other[:, k:], gaps[:, k:] = 9.0, 3.0
        assert np.array_equal(known[:, :k], c.log_prob_prefixes(other, gaps)[:, :k])
    assert np.abs(np.diff(known, axis=1)).max() > 1e-3  # the outputs do depend on what is seen


@each
def test_prefixes_are_the_full_pass_of_every_truncated_curve(options, curves):
    flux, delta_t = curves
    c = make(**options)
    prefixes = c.log_prob_prefixes(flux, delta_t)
    for k in (1, 2, *range(5, T, 13), T - 1, T):
        assert np.array_equal(c.log_prob(flux[:, :k], delta_t[:, :k]), prefixes[:, k - 1])
    assert np.exp(prefixes).sum(-1) == pytest.approx(1.0, abs=1e-5)


@each
@pytest.mark.parametrize("chunk", [1, None], ids=["one by one", "at random"])
def test_stream_gives_the_prefixes_for_any_chunking_and_goes_on_from_a_saved_state(options, chunk, curves):
    flux, delta_t = curves
    c, rng = make(**options), np.random.default_rng(1)
    prefixes, stream, k = np.exp(c.log_prob_prefixes(flux, delta_t).astype(float)).astype(np.float32), c.stream(3), 0
    while k < T:
        end = min(k + (chunk or int(rng.integers(1, 40))), T)
        p = stream.update(flux[:, k:end], delta_t[:, k:end])
        assert np.array_equal(p, prefixes[:, end - 1]), "bit for bit"
        if rng.random() < 0.2:
            file = io.BytesIO()
            torch.save(stream.state(), file)
            file.seek(0)
            stream = c.stream(3).restore(torch.load(file, weights_only=True))
        k = end


def test_a_saved_state_is_not_changed_by_what_comes_after(curves):
    flux, delta_t = curves
    c = make()
    stream = c.stream(3)
    stream.update(flux[:, :50], delta_t[:, :50])
    state = stream.state()
    later = stream.update(flux[:, 50:], delta_t[:, 50:])
    again = c.stream(3).restore(state)
    assert np.array_equal(again.update(flux[:, 50:], delta_t[:, 50:]), later)
    with pytest.raises(ValueError, match="3 light curves, this stream holds 4"):
        c.stream(4).restore(state)


def test_curves_of_a_batch_do_not_see_each_other(curves):
    flux, delta_t = curves
    c = make()
    together = c.log_prob(flux, delta_t)
    alone = np.concatenate([c.log_prob(flux[i : i + 1], delta_t[i : i + 1]) for i in range(3)])
    assert together == pytest.approx(alone, abs=1e-6)
    # Longer padding of the same curves, and packed curves with their lengths, change nothing.
    padded = [np.concatenate([a, np.zeros((3, 64), np.float32)], axis=1) for a in (flux, delta_t)]
    assert c.log_prob(*padded) == pytest.approx(together, abs=1e-6)
    f, d, _, lengths = pack(flux, delta_t)
    assert c.log_prob_packed(f, d, lengths) == pytest.approx(together, abs=1e-6)


def varlen(q, k, v, ends_q, ends_k, longest_q, longest_k, softmax_scale):
    """What flash_attn_varlen_func documents, in plain torch: curves end to end, (sum of lengths, heads, e)."""
    assert q.dtype == k.dtype == v.dtype == torch.bfloat16 and ends_q.dtype == ends_k.dtype == torch.int32
    assert (ends_q.diff() <= longest_q).all() and (ends_k.diff() <= longest_k).all() and ends_k[-1] == len(k)
    out = torch.empty_like(q)
    for i in range(len(ends_k) - 1):
        keys, values = (a[ends_k[i] : ends_k[i + 1]].float() for a in (k, v))
        products = torch.einsum("qhe,khe->hqk", q[ends_q[i] : ends_q[i + 1]].float(), keys)
        weights = torch.softmax(softmax_scale * products, -1)
        out[ends_q[i] : ends_q[i + 1]] = torch.einsum("hqk,khe->qhe", weights, values)
    return out


KERNEL, WHY_NOT = flash_attention()
ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(KERNEL is None, reason=WHY_NOT))


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_flash_attention_answers_like_the_cumulative_sums(device, curves):
    """On a CPU the kernel is what its documentation says, above; so what is tested is what the network gives it."""
    c = make().to(device)
    c.sharpness.data += torch.linspace(-2, 3, 4, device=device)  # heads of different sharpness
    f, d, _, lengths = pack(*curves)
    inputs = c.tensors(f, d, np.array([[lengths.min() // 8], [9], [0]]))
    sums = c(*inputs)["log_p"]
    c.flash = varlen if device == "cpu" else KERNEL
    # Keys and values in bf16 have 8 bits, of which the mean over the steps keeps about as many.
    assert torch.allclose(c(*inputs)["log_p"], sums, rtol=0, atol=0.02)
    assert not torch.allclose(c(*inputs)["log_p"], sums, rtol=0, atol=1e-7)  # the kernel was asked
    assert not torch.allclose(sums[0], sums[1], atol=0.02)


def test_a_network_that_has_seen_nothing_answers(curves):
    c = make()
    nothing = c.log_prob(np.zeros((2, 5)), np.zeros((2, 5)))
    assert np.isfinite(nothing).all() and np.exp(nothing).sum(1) == pytest.approx(1.0, abs=1e-6)
    assert c.stream(2).update(np.zeros(2), np.zeros(2)) == pytest.approx(np.exp(nothing), abs=1e-6)


@pytest.mark.parametrize("call, message", [
    (lambda c, f, d: c.log_prob(f[0], d[0]), r"\(200,\)"),
    (lambda c, f, d: c.log_prob(f, d[:, :7]), r"\(3, 200\) and \(3, 7\)"),
    (lambda c, f, d: c.stream(3).update(f[:, :5], d[:, :4]), r"\(3, 5\) and \(3, 4\)"),
    (lambda c, f, d: c.stream(4).update(f[:, 0], d[:, 0]), r"\(4,\) or \(4, k\)"),
    (lambda c, f, d: c.stream(2).update(f[:, :2], d[:, :2]), r"\(2, k\)"),
], ids=range(5))
def test_misshapen_input_is_one_clear_error(call, message, curves):
    with pytest.raises(ValueError, match=message):
        call(make(), *curves)


# ---- packed curves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", [d for d in DETECTORS if d != "thesis"])  # whose flux is not encoded
@pytest.mark.parametrize("m_base", [15.0, 18.0, 20.0, 22.0, 25.0])
def test_packed_flux_is_far_below_the_noise(detector, m_base):
    lowest = 1 - 5 * sigma_flux(np.ones(1), m_base, detector)[0]
    flux = np.concatenate([np.linspace(lowest, 3, 5001), 10 ** np.linspace(0, 3.5, 2001)])
    # The rms of a uniform rounding error is its largest value / sqrt 3. 0.16 sigma adds 1.3 % to the noise of the
    # brightest epochs; 0.1 sigma, below three times the baseline, adds 0.5 %.
    share = np.abs(decode(encode(flux)) - flux) / np.sqrt(3) / sigma_flux(flux, m_base, detector)
    assert share.max() < 0.16 and share[flux < 3].max() < 0.1


@pytest.mark.parametrize("changes, exact", [
    ({}, False),
    ({"detector": "thesis"}, True),
    ({"noise_scale": 0.1}, True),
], ids=str)
def test_packed_dataset_gives_the_curves_of_the_file(changes, exact, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path))
    config = SimulateConfig(n_flat=3, n_pspl=3, n_binary=3, num_workers=1, output=str(tmp_path / "x.h5"), **changes)
    path = simulate(config, progress=False)
    with open_dataset(path) as data:
        flux, delta_t, sigma, lengths = pack(data.flux(), data.delta_t(), data.sigma())
    got = PackedDataset(path).gather(np.arange(9))
    assert np.array_equal(got[2], lengths)
    assert got[1] == pytest.approx(delta_t[:, : lengths.max()], abs=1e-5)
    error = np.abs(got[0] - flux[:, : lengths.max()])
    assert error.max() == 0 if exact else (error <= 0.3 * sigma[:, : lengths.max()]).all() and error.max() > 0


def test_split_is_stratified_and_disjoint():
    labels = np.repeat([0, 1, 2], [100, 200, 300])
    train, val, test = split_rows(labels, 3)
    assert sorted(np.concatenate([train, val, test])) == list(range(600))
    assert np.bincount(labels[val]).tolist() == [15, 30, 45]


def test_many_curves_are_answered_in_blocks(curves):
    flux, delta_t = curves
    c, many = make(), np.arange(2 * model.ROWS + 5) % len(flux)
    assert np.array_equal(c.log_prob(flux[many], delta_t[many]), c.log_prob(flux, delta_t)[many])
    assert c.log_prob(flux[:0], delta_t[:0]).shape == (0, 3)
