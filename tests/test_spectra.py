"Factors from live and saved adapters, singular values against dense references, ranks, noise bands, and the Spectra object"
import json, math, pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from loranb.factors import Factors, factors
from loranb.recipe import RecipeError
from loranb.spectra import (Spectra, TOLERANCE, energy, entropy_rank, noise_band, participation_ratio, rank_for_energy, singular_values, stable_rank,
                            walk_variance)

# --- the reference and the cases -------------------------------------------------------------------------------------------------------------

def dense(A, B, scaling=1.):
    "The r singular values by a dense float64 SVD of the product, zeros beyond min(m, n)"
    r, T = A.shape[-2], torch.zeros(*A.shape[:-1], dtype=torch.float64)
    S = torch.linalg.svdvals(scaling*B.double() @ A.double())[..., :r]
    T[..., :S.shape[-1]] = S
    return T

def gauge(r, condition, g):
    "R and its inverse, with singular values from 1 down to 1/condition"
    U, V = torch.linalg.qr(torch.randn(2, r, r, generator=g, dtype=torch.float64)).Q
    D = torch.logspace(0, -math.log10(condition), r, dtype=torch.float64)
    return U*D @ V, V.mT/D @ U.mT

def make(kind, m, n, r, g):
    A, B = torch.randn(r, n, generator=g), torch.randn(m, r, generator=g)
    k = max(1, r//3)
    if kind == "uniform": A, B = (torch.rand(r, n, generator=g)*2 - 1)/n**.5, 1e-4*torch.rand(m, r, generator=g)
    if kind == "rank-deficient": B = torch.randn(m, k, generator=g) @ torch.randn(k, r, generator=g)
    if kind == "zero B": B = B*0
    if kind == "zero columns": B[:, ::2] = 0
    if kind == "duplicates": A = A[torch.arange(r)//2]
    if kind == "badly scaled": A, B = A*torch.logspace(0, 4, r)[:, None], B*torch.logspace(0, -4, r)
    if kind == "skewed":
        R, inverse = gauge(r, 1e4, g)
        A, B = (inverse @ A.double()).float(), (B.double() @ R).float()
    if kind == "graded": B = B*torch.logspace(0, -6, r)
    if kind == "first step": B = 1e-4*B.sign()
    if kind == "constant": A, B = torch.full((r, n), 0.1), torch.full((m, r), 0.3)
    if kind == "constant A": A = torch.full((r, n), 0.7)
    if kind == "sparse": A = A*(torch.rand(r, n, generator=g) > 0.8)
    if kind == "cauchy": A = A/torch.randn(r, n, generator=g)
    if kind == "smooth": A = torch.cos(math.pi*torch.arange(r)[:, None]*torch.linspace(0, 1, n))
    if kind == "tiny": A, B = A*1e-22, B*1e-20
    if kind == "huge": A, B = A*1e18, B*1e19
    return A, B

KINDS = ["normal", "uniform", "rank-deficient", "zero B", "zero columns", "duplicates", "badly scaled", "skewed", "graded", "first step", "constant", "constant A",
         "sparse", "cauchy", "smooth", "tiny", "huge"]
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16, float64=torch.float64)

# --- singular values -------------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=300, derandomize=True)
@given(kind=st.sampled_from(KINDS), dtype=st.sampled_from(list(DTYPES)), m=st.integers(1, 96), n=st.integers(1, 96), r=st.integers(1, 24),
       scaling=st.sampled_from([1., 2., 0.25, -1.5]), seed=st.integers(0, 2**31))
def test_bound_holds_and_is_small(kind, dtype, m, n, r, scaling, seed):
    A, B = (X.to(DTYPES[dtype]) for X in make(kind, m, n, r, torch.Generator().manual_seed(seed)))
    if not (A.isfinite().all() and B.isfinite().all()): A, B = A.nan_to_num(), B.nan_to_num()
    S, error = singular_values(A, B, scaling)
    T = dense(A, B, scaling)
    assert S.shape == (r,) and S.dtype == torch.float64 and error.shape == ()
    assert (S.diff() <= 0).all() and (S >= 0).all()
    assert (S - T).abs().max() <= error*S[0]
    assert error <= TOLERANCE
    assert (S[min(m, n):] == 0).all()
    if kind == "zero B": assert (S == 0).all() and error == 0

@pytest.mark.parametrize("kind", ["normal", "first step", "constant", "constant A", "smooth", "skewed", "rank-deficient"])
@pytest.mark.parametrize("m, n, r", [(1500, 1100, 1), (700, 2100, 4), (1500, 1100, 16), (600, 500, 64)])
def test_bound_holds_for_long_sums(kind, m, n, r):
    A, B = make(kind, m, n, r, torch.Generator().manual_seed(7))
    S, error = singular_values(A, B)
    Q, R = torch.linalg.qr(B.double())
    T = dense(A, R)
    assert (S - T).abs().max() <= error*S[0] and error <= TOLERANCE

def test_bound_holds_where_float64_is_no_reference():
    import mpmath
    mpmath.mp.dps = 60
    g = torch.Generator().manual_seed(3)
    for condition in (1e4, 1e6, 1e8):
        A, B = torch.randn(3, 7, generator=g), torch.randn(8, 3, generator=g)
        R, inverse = gauge(3, condition, g)
        A, B = (inverse @ A.double()), (B.double() @ R)
        T = mpmath.svd_r(mpmath.matrix(B.tolist())*mpmath.matrix(A.tolist()), compute_uv=False)
        S, error = singular_values(A, B)
        assert max(float(abs(s - T[i])) for i, s in enumerate(S.tolist())) <= float(error*S[0]) and error <= TOLERANCE

def test_bound_is_within_a_hundred_times_the_error():
    "With one or two values the true error can be near 0 by luck; there the largest of 200 draws is compared"
    g = torch.Generator().manual_seed(0)
    for m, n, r in [(96, 80, 1), (96, 80, 2), (96, 80, 4), (96, 80, 16), (96, 80, 64), (300, 256, 8), (300, 256, 32), (300, 256, 64), (40, 20, 16)]:
        A, B = torch.randn(200, r, n, generator=g), torch.randn(200, m, r, generator=g)
        S, error = singular_values(A, B)
        true = (S - dense(A, B)).abs().amax(-1)/S[:, 0]
        assert (true <= error).all() and error.max() <= 100*true.max()
        if r > 2: assert (error <= 100*true).all()
        assert 2 < (error/true).median() < 30

def test_batches_layouts_and_kinds_of_input():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(3, 2, 4, 30, generator=g), torch.randn(3, 2, 20, 4, generator=g)
    S, error = singular_values(A, B, torch.tensor([1., 3.]))
    assert S.shape == (3, 2, 4) and error.shape == (3, 2)
    one, bound = singular_values(A[2, 1], B[2, 1], 3)
    assert torch.allclose(one, S[2, 1], rtol=1e-5)
    same = [singular_values(A.mT.contiguous().mT, B.mT.contiguous().mT)[0], singular_values(A.numpy(), B.numpy())[0],
            singular_values(A.clone().requires_grad_(), B.clone().requires_grad_())[0], singular_values(A.numpy()[..., ::-1], B)[0]]
    for s in same: assert torch.allclose(s*torch.tensor([1., 3.])[:, None], S, rtol=1e-5) and not s.requires_grad
    assert singular_values(A[0, 0], B)[0].shape == (3, 2, 4)
    assert torch.allclose(singular_values(np.array([[3, 0], [0, 4]]), np.eye(2, dtype=int))[0], torch.tensor([4., 3.]).double())

def test_items_of_a_batch_do_not_touch_each_other():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(5, 4, 30, generator=g), torch.randn(5, 20, 4, generator=g)
    alone, _ = singular_values(A, B)
    B[1], A[2, 0, 0], B[3] = 0, torch.nan, B[3, :, :1]
    S, error = singular_values(A, B)
    assert torch.allclose(S[[0, 4]], alone[[0, 4]], rtol=1e-6) and (S[1] == 0).all() and error[1] == 0
    assert S[2].isnan().all() and error[2].isnan() and (S[3, 1:] < 1e-12*S[3, 0]).all()

@settings(deadline=None, max_examples=60, derandomize=True)
@given(m=st.integers(8, 60), n=st.integers(8, 60), r=st.integers(1, 8), condition=st.sampled_from([1., 10., 1e4]), s=st.floats(0.01, 100), seed=st.integers(0, 2**31))
def test_gauge_and_scaling_change_nothing(m, n, r, condition, s, seed):
    g = torch.Generator().manual_seed(seed)
    A, B = torch.randn(r, n, generator=g, dtype=torch.float64), torch.randn(m, r, generator=g, dtype=torch.float64)
    R, inverse = gauge(r, condition, g)
    S, error = singular_values(A, B, s)
    skewed, wider = singular_values(inverse @ A, B @ R, s)
    assert (skewed - S).abs().max() <= (error + wider + 1e-15*condition**2)*S[0]
    assert torch.allclose(singular_values(A, s*B)[0], S, rtol=1e-9)
    assert torch.isclose(S.square().sum(), s**2*((A @ A.T) @ (B.T @ B)).trace(), rtol=1e-9)

@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_float32_products_are_not_used(precision):
    before = torch.get_float32_matmul_precision()
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(16, 1024, generator=g), torch.randn(1024, 16, generator=g)
    T = dense(A, torch.linalg.qr(B.double()).R)
    try:
        torch.set_float32_matmul_precision(precision)
        S, error = singular_values(A, B)
        assert torch.get_float32_matmul_precision() == precision
    finally: torch.set_float32_matmul_precision(before)
    assert (S - T).abs().max() <= error*S[0] and error < 1e-5

def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        singular_values(torch.randn(2, 5), torch.randn(6, 2))
        with pytest.raises(RecipeError): singular_values(torch.randn(2, 5), torch.randn(6, 3))
        assert torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

def test_numbers_at_the_ends_of_float64():
    A, B = torch.randn(2, 5, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    S, _ = singular_values(A, B)
    for a, b in ((1e-200, 1e200), (1e-160, 1e-140), (1e150, 1e150)):
        assert torch.allclose(singular_values(A*a, B*b)[0]/(a*b), S, rtol=1e-12)

@pytest.mark.parametrize("A, B", [((3, 5), (6, 2)), ((3,), (6, 3)), ((0, 5), (6, 0)), ((2, 0), (6, 2))])
def test_shapes_that_do_not_fit(A, B):
    with pytest.raises(RecipeError, match=r"\(\.\.\., r, n\)"): singular_values(torch.zeros(A), torch.zeros(B))

# --- ranks -----------------------------------------------------------------------------------------------------------------------------------

spectrum = st.lists(st.floats(0, 1e3), min_size=1, max_size=12).map(lambda s: np.sort(np.array(s))[::-1])

@settings(deadline=None, derandomize=True)
@given(sigma=spectrum, share=st.floats(0.01, 1), s=st.floats(1e-3, 1e3))
def test_ranks_lie_between_one_and_r(sigma, share, s):
    sigma = np.where(sigma > 1e-6, sigma, 0)
    nonzero = (sigma > 0).sum()
    for f in (entropy_rank, stable_rank, participation_ratio):
        assert (f(sigma) == 0) if nonzero == 0 else (1 - 1e-9 <= f(sigma) <= nonzero + 1e-9)
        assert np.isclose(f(s*sigma), f(sigma))
    k, e = int(rank_for_energy(sigma, share)), sigma**2
    if nonzero:
        assert e[:k].sum() >= share*e.sum()*(1 - 1e-9) and (k == 1 or e[:k - 1].sum() < share*e.sum())
        assert stable_rank(sigma) <= participation_ratio(sigma) + 1e-9 <= entropy_rank(sigma) + 1e-6
        assert np.isclose(energy(sigma).sum(), 1)

def test_ranks_by_hand():
    sigma = np.array([[2., 1., 0.], [1., 1., 1.], [0., 0., 0.]])
    p = np.array([2/3, 1/3])
    assert np.allclose(entropy_rank(sigma), [np.exp(-(p*np.log(p)).sum()), 3, 0])
    assert np.allclose(stable_rank(sigma), [5/4, 3, 0])
    assert np.allclose(participation_ratio(sigma), [25/17, 3, 0])
    assert rank_for_energy(sigma, 0.8).tolist() == [1, 3, 0] and rank_for_energy(sigma, 0.81).tolist() == [2, 3, 0]
    assert rank_for_energy(sigma, 1.).tolist() == [2, 3, 0]

# --- noise -----------------------------------------------------------------------------------------------------------------------------------

def on_noise(m, n, r, lr_steps, scaling, seed, iid=False):
    "Singular values after Adam was fed pure noise"
    g = torch.Generator().manual_seed(seed)
    A, B = torch.nn.Parameter((torch.rand(r, n, generator=g)*2 - 1)/n**.5), torch.nn.Parameter(torch.zeros(m, r))
    adam = torch.optim.AdamW([A, B], weight_decay=0.)
    for lr in lr_steps:
        adam.param_groups[0]["lr"] = lr
        G = torch.randn(m, n, generator=g)
        A.grad, B.grad = scaling*B.detach().T @ G, scaling*G @ A.detach().T
        adam.step()
    return singular_values(A, B, scaling)[0].numpy()

@pytest.mark.parametrize("m, n, r", [(256, 384, 8), (384, 256, 16)])
@pytest.mark.parametrize("steps, lr, shape", [(1, 1e-3, "constant"), (5, 1e-3, "constant"), (30, 5e-4, "linear"), (150, 1e-3, "linear"), (150, 3e-4, "constant")])
def test_noise_band_against_adam_on_noise(m, n, r, steps, lr, shape):
    lr_steps = [lr*(1 - t/steps if shape == "linear" else 1) for t in range(steps)]
    low, high = noise_band(m, n, r, 2., lr_steps)
    S = np.array([on_noise(m, n, r, lr_steps, 2., seed) for seed in range(3)])
    centre = 2*math.sqrt((v := walk_variance(lr_steps))*m*(1/3 + 2*n*v))
    assert abs(math.sqrt((S**2).mean())/centre - 1) < 0.06
    assert 0.95*low < S.min() and S.max() < 1.05*high

def test_walk_variance_without_momentum_is_the_sum_of_squares():
    lr = [1e-3, 5e-4, 2e-4]
    assert math.isclose(walk_variance(lr, 0.), sum(x*x for x in lr)) and walk_variance([]) == 0
    assert noise_band(64, 64, 8, 2., []) == (0, 0)

def test_adam_first_step_and_start_of_A():
    "4096x4096, r=16: centre 36.95 eta and band [32.5, 41.7] eta; A at its start in [0.541, 0.613]"
    low, high = (1e6*x for x in noise_band(4096, 4096, 16, 1., [1e-6]))
    assert abs(low - 32.5) < 0.1 and abs(high - 41.7) < 0.1 and abs(math.sqrt(low*high) - 36.95) < 0.2
    torch.manual_seed(0)
    S, _ = singular_values((torch.rand(16, 4096)*2 - 1)/64, torch.eye(16))
    assert 0.99*0.541 < S.min() and S.max() < 1.01*0.613

def test_noise_looks_full_rank():
    g = torch.Generator().manual_seed(0)
    S, _ = singular_values(torch.randn(20, 16, 256, generator=g), torch.randn(20, 256, 16, generator=g))
    assert abs(participation_ratio(S).mean()/(16/(1 + 16/256 + 16/256)) - 1) < 0.01

# --- Spectra ---------------------------------------------------------------------------------------------------------------------------------

def parts(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = [("model.layers.0.self_attn.q_proj", 32, 32, 4, 2.), ("model.layers.0.mlp.down_proj", 32, 48, 4, 2.), ("model.layers.1.self_attn.q_proj", 32, 32, 8, 0.5),
              ("model.layers.1.mlp.down_proj", 32, 48, 4, 1.), ("lm_head<b>", 64, 32, 4, 1.)]
    return [Factors(name, torch.randn(r, n, generator=g).to(dtype), torch.randn(m, r, generator=g).to(dtype), s) for name, m, n, r, s in shapes]

@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_spectra_keep_the_order_and_the_scaling(dtype):
    spectra = Spectra.of(parts(dtype))
    assert spectra.names == [f.name for f in parts()] and len(spectra) == 5
    for f, s, o in zip(parts(dtype), spectra.sigma, spectra.modules):
        T = torch.linalg.svdvals(f.delta())[:f.r].numpy()
        assert np.abs(s - T).max() <= o["error"]*s[0] and (o["m"], o["n"], o["r"], o["scaling"]) == (f.m, f.n, f.r, f.scaling)
    assert spectra["model.layers.1.self_attn.q_proj"] is spectra.sigma[2] is spectra[2]

def test_frame_and_summary():
    spectra = Spectra.of(parts())
    frame, table = spectra.frame(), spectra.summary()
    assert list(frame) == ["module", "index", "sigma", "scaling"] and len(frame) == 4 + 4 + 8 + 4 + 4
    assert frame[frame.module == "model.layers.1.self_attn.q_proj"]["index"].tolist() == list(range(8))
    assert list(table) == ["module", "r", "scaling", "error", "frobenius", "spectral", "k90", "k99", "entropy_rank", "stable_rank", "participation_ratio"]
    for row, f in zip(table.itertuples(), parts()):
        assert math.isclose(row.frobenius, f.delta().norm(), rel_tol=1e-6) and math.isclose(row.spectral, torch.linalg.matrix_norm(f.delta(), 2), rel_tol=1e-6)
        assert row.k90 <= row.k99 <= f.r and math.isclose(row.stable_rank, (row.frobenius/row.spectral)**2, rel_tol=1e-9)

def test_arrays_and_back():
    spectra = Spectra.of(parts())
    modules, sigma = spectra.to_arrays()
    assert sigma.shape == (5, 8) and sigma.dtype == np.float32 and (sigma[0, 4:] == 0).all()
    again = Spectra.from_arrays(json.loads(json.dumps(modules)), np.frombuffer(sigma.tobytes(), np.float32).reshape(sigma.shape))
    assert again.names == spectra.names and all(np.allclose(a, b, rtol=1e-6) and len(a) == len(b) for a, b in zip(again.sigma, spectra.sigma))
    assert np.allclose(again.noise_band([1e-4]*10), spectra.noise_band([1e-4]*10)) and again.noise_band([1e-4]).shape == (5, 2)

def test_display_is_text_and_escaped_svg():
    page = Spectra.of(parts())._repr_html_()
    assert "<svg" in page and "currentColor" in page and "lm_head<b>" not in page and "lm_head&lt;b&gt;" in page and page.count("<rect") == 5
    assert repr(Spectra.of(parts())).startswith("Spectra of 5 modules, r=4/8: sigma from ")
    assert repr(Spectra.of([])) == "Spectra of no module" and "<svg" in Spectra.of([])._repr_html_() and len(Spectra.of([]).frame()) == 0

def test_an_untrained_and_a_diverged_module_are_shown_as_they_are():
    fs = parts()
    fs[0].B.zero_()
    fs[1].A[0, 0] = torch.nan
    spectra = Spectra.of(fs)
    assert (spectra[0] == 0).all() and spectra.error[0] == 0 and np.isnan(spectra[1]).all() and np.isfinite(spectra[2]).all()
    assert spectra.summary().entropy_rank[0] == 0 and "<svg" in spectra._repr_html_()
