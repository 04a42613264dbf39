import io

import numpy as np
import pytest
import torch

from microlens import attention, model
from microlens.config import SimulateConfig
from microlens.data.packed import PackedDataset, decode, encode, pack, split_rows, thin
from microlens.network.model import Classifier
from microlens.data.simulation import simulate
from microlens.data.format import open_dataset
from microlens.sky.noise import DETECTORS, sigma_flux

T = 200
OPTIONS = [{}, {"stem_stride": 1}, {"stem_stride": 5, "window_size": 1}, {"n_layers": 1, "n_heads": 1}, {"attention_pooling": False},
           {"hierarchical": False}, {"use_aux_head": False},
           {"hierarchical": False, "use_aux_head": False, "attention_pooling": False},
           {"view": "running", "stem_stride": 8}, {"view": "running", "stem_stride": 16}]
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
    c = Classifier(**{"d_model": 16, "n_layers": 2, **options}).eval()
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
    for k in range(1, T + 1):
        assert c.log_prob(flux[:, :k], delta_t[:, :k]) == pytest.approx(prefixes[:, k - 1], abs=1e-5)
    assert np.exp(prefixes).sum(-1) == pytest.approx(1.0, abs=1e-5)


@each
@pytest.mark.parametrize("chunk", [1, 7, None], ids=["one by one", "sevens", "at random"])
def test_stream_gives_the_prefixes_for_any_chunking_and_goes_on_from_a_saved_state(options, chunk, curves):
    flux, delta_t = curves
    c, rng = make(**options), np.random.default_rng(1)
    prefixes, stream, k = np.exp(c.log_prob_prefixes(flux, delta_t)), c.stream(3), 0
    while k < T:
        end = min(k + (chunk or int(rng.integers(1, 40))), T)
        p = stream.update(flux[:, k:end], delta_t[:, k:end])
        assert p == pytest.approx(prefixes[:, end - 1], abs=1e-5)
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
    assert c.log_prob(f, d, lengths) == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize("bf16", [False, True])
def test_an_attention_kernel_gives_the_cumulative_sums_and_their_gradients(bf16, curves):
    c, steps = make(stem_stride=8), torch.tensor([[25], [9], [0]])
    c.sharpness.data += torch.linspace(-2, 3, 4)  # heads of different sharpness
    f, d, _, _ = pack(*curves)
    outs, gradients = [], []
    for backend in ("cumulative", "sdpa"):
        c.attention_backend = backend
        c.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outs.append(c(torch.from_numpy(f), torch.from_numpy(d), steps)["log_p"])
        outs[-1][..., 2].sum().backward()
        gradients.append([p.grad for p in c.parameters() if p.grad is not None])
    # bf16: the core is the same, the sums stay in single precision, and the heads round to 8 bits what differs in the 24th
    assert torch.allclose(*outs, rtol=0, atol=4e-3 if bf16 else 1e-5)
    if not bf16:
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*gradients, strict=True))


def varlen(q, k, v, ends_q, ends_k, longest_q, longest_k, softmax_scale):
    """What flash_attn_varlen_func documents, in plain torch: curves end to end, (sum of lengths, heads, e)."""
    assert q.dtype == k.dtype == v.dtype == torch.bfloat16 and ends_q.dtype == ends_k.dtype == torch.int32
    assert (ends_q.diff() <= longest_q).all() and (ends_k.diff() <= longest_k).all() and ends_k[-1] == len(k)
    out = torch.empty_like(q)
    for i in range(len(ends_k) - 1):
        keys, values = (a[ends_k[i] : ends_k[i + 1]].float() for a in (k, v))
        weights = torch.softmax(softmax_scale * torch.einsum("qhe,khe->hqk", q[ends_q[i] : ends_q[i + 1]].float(), keys), -1)
        out[ends_q[i] : ends_q[i + 1]] = torch.einsum("hqk,khe->qhe", weights, values)
    return out


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    attention.flash_attention()[0] is None, reason=attention.flash_attention()[1]))])
def test_flash_gets_each_curve_without_what_pads_it(device, monkeypatch):
    torch.manual_seed(0)
    query, keys, values = (torch.randn(*shape, device=device) for shape in ((2, 12), (4, 30, 2, 12), (4, 30, 2, 12)))
    steps = torch.tensor([30, 7, 0, 1], device=device)
    if device == "cpu":
        monkeypatch.setattr(attention, "flash_attention", lambda: (varlen, ""))
    flash, sdpa = (attention.pool(query, keys, values, steps, backend) for backend in ("flash", "sdpa"))
    assert torch.allclose(flash, sdpa, rtol=0, atol=0.03)  # bf16: values up to 3 to 8 bits, weights as well
    assert not sdpa[2].any() and torch.allclose(sdpa[3], values[3, 0].flatten())
    assert not torch.allclose(sdpa, attention.pool(query, keys, values, steps.clamp_max(3), "sdpa"), atol=0.1)


def test_choice_of_the_attention_is_explained(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention.choose("auto", cpu, False) == ("sdpa", attention.flash_attention()[1])
    with pytest.raises(ValueError, match=r"attention_backend = 'flash', but .*; choose auto or sdpa"):
        attention.choose("flash", cpu, True)
    monkeypatch.setattr(attention, "flash_attention", lambda: (varlen, "flash_attn imports"))
    assert attention.choose("auto", gpu, True) == ("flash", "flash_attn imports")
    assert attention.choose("auto", gpu, False)[0] == attention.choose("auto", cpu, True)[0] == "sdpa"
    assert attention.choose("cumulative", gpu, True) == ("cumulative", "asked for")


def test_a_network_that_has_seen_nothing_answers(curves):
    c = make()
    nothing = c.log_prob(np.zeros((2, 5)), np.zeros((2, 5)))
    assert np.isfinite(nothing).all() and np.exp(nothing).sum(1) == pytest.approx(1.0, abs=1e-6)
    assert c.stream(2).update(np.zeros(2), np.zeros(2)) == pytest.approx(np.exp(nothing), abs=1e-6)


@pytest.mark.parametrize("call, message", [
    (lambda c, f, d: c.log_prob(f[0], d[0]), r"\(200,\)"),
    (lambda c, f, d: c.log_prob(f, d[:, :7]), r"\(3, 200\) and \(3, 7\)"),
    (lambda c, f, d: c.log_prob(f, d, lengths=np.array([1, 2])), r"lengths.*\(2,\).*\(3,\)"),
    (lambda c, f, d: c.log_prob(f, d, lengths=np.array([1, 2, 999])), "within 0..200"),
    (lambda c, f, d: c.stream(3).update(f[:, :5], d[:, :4]), r"\(3, 5\) and \(3, 4\)"),
    (lambda c, f, d: c.stream(4).update(f[:, 0], d[:, 0]), r"\(4,\) or \(4, k\)"),
    (lambda c, f, d: c.stream(2).update(f[:, :2], d[:, :2]), r"\(2, k\)"),
    (lambda c, f, d: make(view="residual").log_prob(f, d), "flux_err"),
    (lambda c, f, d: make(view="residual").log_prob_prefixes(f, d, flux_err=f), "whole season"),
    (lambda c, f, d: make(view="residual").stream(2), "whole season"),
], ids=range(10))
def test_misshapen_input_is_one_clear_error(call, message, curves):
    with pytest.raises(ValueError, match=message):
        call(make(), *curves)


# ---- packed curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("m_base", [15.0, 18.0, 20.0, 22.0, 25.0])
def test_packed_flux_is_far_below_the_noise(detector, m_base):
    lowest = 1 - 5 * sigma_flux(np.ones(1), m_base, detector)[0]
    flux = np.concatenate([np.linspace(lowest, 3, 5001), 10 ** np.linspace(0, 3.5, 2001)])
    # rms of a uniform rounding error is its largest value / sqrt 3; 0.16 sigma adds 1.3 % to the noise of the brightest epochs,
    # 0.1 sigma, below three times the baseline, 0.5 %.
    share = np.abs(decode(encode(flux)) - flux) / np.sqrt(3) / sigma_flux(flux, m_base, detector)
    assert share.max() < 0.16 and share[flux < 3].max() < 0.1


@pytest.mark.parametrize("changes, exact", [({}, False), ({"detector": "thesis"}, True), ({"noise_scale": 0.1}, True)], ids=str)
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


def test_thinning_keeps_the_times_of_the_epochs_that_are_left():
    t = np.sort(np.random.default_rng(1).uniform(0, 70, (2, 500)), axis=1)
    t[:, 0] = 0.0
    delta_t, extra = np.diff(t, prepend=0.0).astype(np.float32), np.repeat(t[..., None], 2, axis=2)
    flux, d, n, x = thin(t + 1, delta_t, np.array([500, 400]), extra, 0.5, [(1, 2), (1, 3)])
    assert (n < [500, 400]).all() and (n > [100, 80]).all()
    for i in range(2):
        assert flux[i, : n[i]] - 1 == pytest.approx(x[i, : n[i], 0]) and not flux[i, n[i] :].any()
        assert np.cumsum(d[i, : n[i]]) == pytest.approx(flux[i, : n[i]] - flux[i, 0], abs=1e-3)


def test_many_curves_are_answered_in_blocks(curves):
    flux, delta_t = curves
    c, many = make(), np.arange(2 * model.ROWS + 5) % len(flux)
    assert c.log_prob(flux[many], delta_t[many]) == pytest.approx(c.log_prob(flux, delta_t)[many], abs=1e-5)
    assert c.log_prob(flux[:0], delta_t[:0]).shape == (0, 3)
