"Singular values and vectors against dense references, metrics and their nulls, and the Spectra object"
import json, math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from loranb.spectra.layouts import Factors, difference, sum_factors
from loranb.core.fields import RecipeError
from loranb.spectra.values import TOLERANCE, singular_values, singular_vectors
from loranb.spectra.metrics import (
    a_at_start, a_init_band, energy, energy_entropy_rank, entropy_rank, gavish_donoho, hard_threshold, noise_band,
    noise_ranks, nuclear_rank, participation_null, participation_ratio, rank_for_energy, stable_rank, walk_variance)
from loranb.spectra.spectra import Spectra

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

KINDS = ["normal", "uniform", "rank-deficient", "zero B", "zero columns", "duplicates", "badly scaled", "skewed",
    "graded", "first step", "constant", "constant A", "sparse", "cauchy", "smooth", "tiny", "huge"]
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16, float64=torch.float64)

# --- singular values -------------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=300, derandomize=True)
@given(kind=st.sampled_from(KINDS), dtype=st.sampled_from(list(DTYPES)), m=st.integers(1, 96), n=st.integers(1, 96),
    r=st.integers(1, 24), scaling=st.sampled_from([1., 2., 0.25, -1.5]), seed=st.integers(0, 2**31))
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

@pytest.mark.parametrize("kind", ["normal", "first step", "constant", "constant A", "smooth", "skewed",
    "rank-deficient"])
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
    for m, n, r in [(96, 80, 1), (96, 80, 2), (96, 80, 4), (96, 80, 16), (96, 80, 64), (300, 256, 8), (300, 256, 32),
            (300, 256, 64), (40, 20, 16)]:
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
        singular_values(A.clone().requires_grad_(), B.clone().requires_grad_())[0],
        singular_values(A.numpy()[..., ::-1], B)[0]]
    for s in same: assert torch.allclose(s*torch.tensor([1., 3.])[:, None], S, rtol=1e-5) and not s.requires_grad
    assert singular_values(A[0, 0], B)[0].shape == (3, 2, 4)
    assert torch.allclose(singular_values(np.array([[3, 0], [0, 4]]), np.eye(2, dtype=int))[0],
        torch.tensor([4., 3.]).double())

def test_items_of_a_batch_do_not_touch_each_other():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(5, 4, 30, generator=g), torch.randn(5, 20, 4, generator=g)
    alone, _ = singular_values(A, B)
    B[1], A[2, 0, 0], B[3] = 0, torch.nan, B[3, :, :1]
    S, error = singular_values(A, B)
    assert torch.allclose(S[[0, 4]], alone[[0, 4]], rtol=1e-6) and (S[1] == 0).all() and error[1] == 0
    assert S[2].isnan().all() and error[2].isnan() and (S[3, 1:] < 1e-12*S[3, 0]).all()

@settings(deadline=None, max_examples=60, derandomize=True)
@given(m=st.integers(8, 60), n=st.integers(8, 60), r=st.integers(1, 8), condition=st.sampled_from([1., 10., 1e4]),
    s=st.floats(0.01, 100), seed=st.integers(0, 2**31))
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

# --- singular vectors ------------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=150, derandomize=True)
@given(kind=st.sampled_from(KINDS), dtype=st.sampled_from(["float32", "float64", "bfloat16"]), m=st.integers(1, 60),
    n=st.integers(1, 60), r=st.integers(1, 12), scaling=st.sampled_from([1., 0.25, -1.5]), seed=st.integers(0, 2**31))
def test_singular_vectors_are_a_decomposition(kind, dtype, m, n, r, scaling, seed):
    A, B = (X.to(DTYPES[dtype]) for X in make(kind, m, n, r, torch.Generator().manual_seed(seed)))
    U, S, V = singular_vectors(A, B, scaling)
    W, k = scaling*B.double() @ A.double(), min(m, n, r)
    assert U.shape == (m, r) and S.shape == (r,) and V.shape == (n,
        r) and U.dtype == S.dtype == V.dtype == torch.float64
    size = B.double().norm()*A.double().norm()*abs(scaling)
    assert (U*S @ V.mT - W).norm() <= 1e-13*size*(r + 1)
    for X in (U, V): assert (X[:, :k].mT @ X[:, :k] - torch.eye(k)).abs().max() < 1e-12 and (X[:, k:] == 0).all()
    assert (S.diff() <= 0).all() and (S >= 0).all()
    if size: assert (S - dense(A, B, scaling)).abs().max() <= 1e-13*size*(r + 1)

def test_of_nan_nothing_is_known():
    for bad in (torch.nan, torch.inf):
        S, error = singular_values(torch.full((4, 8), bad), torch.randn(8, 4))
        assert S.isnan().all() and error.isnan()


def test_singular_vectors_in_batches_and_with_nan():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(3, 2, 4, 30, generator=g), torch.randn(20, 4, generator=g)
    U, S, V = singular_vectors(A, B, torch.tensor([1., -3.]))
    assert U.shape == (3, 2, 20, 4) and torch.allclose(U*S[..., None, :] @ V.mT,
        torch.tensor([1., -3.]).double()[:, None, None]*(B.double() @ A.double()))
    A[0, 1, 0, 0] = torch.nan
    again = singular_vectors(A, B, torch.tensor([1., -3.]))
    assert again[1][0, 1].isnan().all() and torch.allclose(again[1][0, 0], S[0, 0]) and not again[0][1:].isnan().any()
    with pytest.raises(RecipeError, match="do not fit together"): singular_vectors(A, B[:, :2])

# --- sums and differences --------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=80, derandomize=True)
@given(m=st.integers(2, 40), n=st.integers(2, 40), r=st.integers(1, 6), r0=st.integers(1, 6),
    size=st.sampled_from([1., 1e-3, 1e-6]), s=st.sampled_from([1., 2., -0.5]), seed=st.integers(0, 2**31))
def test_concatenated_factors_are_sums_and_differences(m, n, r, r0, size, s, seed):
    g = torch.Generator().manual_seed(seed)
    f = Factors("x", torch.randn(r, n, generator=g), torch.randn(m, r, generator=g), s)
    h = Factors("x", torch.randn(r0, n, generator=g), torch.randn(m, r0, generator=g), 3.)
    total = sum_factors([f, h])
    assert total.r == r + r0 and torch.allclose(total.delta(), f.delta() + h.delta(), atol=1e-12)
    near = Factors("x", f.A + size*torch.randn(r, n, generator=g), f.B + size*torch.randn(m, r, generator=g), s)
    for before in (f, h):
        learned, true = difference(near, before), near.delta() - before.delta()
        assert (learned.delta() - true).norm() <= 1e-13*(near.delta().norm()
            + before.delta().norm()) + 1e-12*true.norm()
        S, spectra = torch.linalg.svdvals(true)[:learned.r].numpy(), Spectra.of([learned])
        k = min(len(S), learned.r)
        assert np.abs(spectra[0][:k] - S[:k]).max() <= (spectra.error[0] + 1e-9)*S[0] and spectra.error[0] <= TOLERANCE

def test_inner_product_and_frobenius_identities():
    g = torch.Generator().manual_seed(0)
    A1, B1, A2, B2 = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((3, 20), (30, 3), (5, 20), (30, 5)))
    inner = ((B1 @ A1)*(B2 @ A2)).sum()
    assert torch.isclose(inner, ((B1.T @ B2)*(A1 @ A2.T)).sum(), rtol=1e-12)
    one, two = Factors("x", A1, B1, 1.), Factors("x", A2, B2, 1.)
    size = np.linalg.norm(Spectra.of([sum_factors([one, two])])[0])**2
    assert math.isclose(size, one.delta().norm()**2 + two.delta().norm()**2 + 2*inner, rel_tol=1e-9)

# --- ranks -----------------------------------------------------------------------------------------------------------------------------------

spectrum = st.lists(st.floats(0, 1e3), min_size=1, max_size=12).map(lambda s: np.sort(np.array(s))[::-1])

@settings(deadline=None, derandomize=True)
@given(sigma=spectrum, share=st.floats(0.01, 1), s=st.floats(1e-3, 1e3))
def test_ranks_lie_between_one_and_r(sigma, share, s):
    sigma = np.where(sigma > 1e-6, sigma, 0)
    nonzero = (sigma > 0).sum()
    for f in (entropy_rank, energy_entropy_rank, nuclear_rank, stable_rank, participation_ratio):
        assert (f(sigma) == 0) if nonzero == 0 else (1 - 1e-9 <= f(sigma) <= nonzero + 1e-9)
        assert np.isclose(f(s*sigma), f(sigma))
    k, e = int(rank_for_energy(sigma, share)), sigma**2
    if nonzero:
        assert e[:k].sum() >= share*e.sum()*(1 - 1e-9) and (k == 1 or e[:k - 1].sum() < share*e.sum())
        ordered = [float(f(sigma)) for f in (stable_rank, participation_ratio, energy_entropy_rank, entropy_rank)]
        assert all(a <= b + 1e-6 for a, b in zip(ordered,
            ordered[1:])) and nuclear_rank(sigma) <= entropy_rank(sigma) + 1e-6
        assert np.isclose(energy(sigma).sum(), 1)

def test_ranks_by_hand():
    sigma = np.array([[2., 1., 0.], [1., 1., 1.], [0., 0., 0.]])
    p = np.array([2/3, 1/3])
    assert np.allclose(entropy_rank(sigma), [np.exp(-(p*np.log(p)).sum()), 3, 0])
    assert np.allclose(stable_rank(sigma), [5/4, 3, 0])
    assert np.allclose(participation_ratio(sigma), [25/17, 3, 0])
    assert rank_for_energy(sigma, 0.8).tolist() == [1, 3, 0] and rank_for_energy(sigma, 0.81).tolist() == [2, 3, 0]
    assert rank_for_energy(sigma, 1.).tolist() == [2, 3, 0]
    q = np.array([4/5, 1/5])
    assert np.allclose(energy_entropy_rank(sigma),
        [np.exp(-(q*np.log(q)).sum()), 3, 0]) and np.allclose(nuclear_rank(sigma), [9/5, 3, 0])
    assert abs(entropy_rank([2, 1]) - energy_entropy_rank([2, 1])) > 0.2

@settings(deadline=None, derandomize=True)
@given(sigma=spectrum, t=st.floats(0, 1))
def test_ranks_grow_when_a_spectrum_is_mixed_with_a_flat_one(sigma, t):
    "Entropies on what they are entropies of: sigma for the one, sigma^2 for the other"
    if sigma.sum() < 1e-3: return
    flat = np.full_like(sigma, sigma.mean())
    assert entropy_rank((1 - t)*sigma + t*flat) >= entropy_rank(sigma) - 1e-9
    mixed = np.sqrt((1 - t)*energy(sigma) + t/len(sigma))
    assert energy_entropy_rank(mixed) >= energy_entropy_rank(sigma) - 1e-9 and participation_ratio(mixed) >= participation_ratio(sigma) - 1e-9

@settings(deadline=None, derandomize=True)
@given(r=st.integers(1, 32), e=st.sampled_from([1e-6, 1e-4, 1e-3]), decay=st.floats(0, 5), seed=st.integers(0, 2**31))
def test_the_stated_errors_of_ranks_hold(r, e, decay, seed):
    rng = np.random.default_rng(seed)
    sigma = np.exp(-decay*np.arange(r)/r)
    off = np.sort(np.abs(sigma + e*sigma[0]*rng.uniform(-1, 1, r)))[::-1]
    for f, bound in ((stable_rank, 2*e*(1 + r**0.5)), (participation_ratio, 4*e*(r**0.5 + r**0.25)),
            (nuclear_rank, 2*e*(r + r**0.5))):
        assert abs(f(off)/f(sigma) - 1) <= bound*1.1

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
@pytest.mark.parametrize("steps, lr, shape", [(1, 1e-3, "constant"), (5, 1e-3, "constant"), (30, 5e-4, "linear"),
    (150, 1e-3, "linear"), (150, 3e-4, "constant")])
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

@pytest.mark.parametrize("m, n, r", [(256, 256, 16), (512, 256, 8), (256, 1024, 32)])
def test_noise_looks_full_rank(m, n, r):
    g = torch.Generator().manual_seed(0)
    S, _ = singular_values(torch.randn(30, r, n, generator=g), torch.randn(30, m, r, generator=g))
    null = noise_ranks(m, n, r)
    assert abs(participation_ratio(S).mean()/participation_null(m, n, r) - 1) < 0.01
    for f in (entropy_rank, energy_entropy_rank, nuclear_rank): assert abs(f(S).mean()/null[f.__name__] - 1) < 0.01
    # the edge is reached from below
    assert abs(stable_rank(S).mean()/null["stable_rank"] - 1) < 0.2 and stable_rank(S).mean() > null["stable_rank"]
    assert abs((1/energy(S)[:, 0].mean())/(1/null["top1_share"]) - 1) < 0.2 and math.isclose(null["utilization"]*r,
        null["stable_rank"])

def test_published_nulls():
    assert abs(participation_null(4096, 4096, 64) - 62.06) < 0.005 and abs(participation_null(4096, 4096, 16)
        - 15.876) < 0.001 and abs(participation_null(1024, 1024, 64) - 56.89) < 0.005
    assert np.allclose(a_init_band(4096, 16), (0.541, 0.613), atol=5e-4) and np.allclose(a_init_band(4096, 64),
        (0.505, 0.650), atol=5e-4)

@pytest.mark.parametrize("r, n", [(4, 512), (16, 2048), (64, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_A_at_its_start(r, n, dtype):
    def drawn():
        A = torch.empty(r, n)
        torch.nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        return A.to(dtype)
    torch.manual_seed(0)
    A = torch.stack([drawn() for _ in range(50)])
    assert a_at_start(A).all() and a_at_start(A[0]).shape == ()
    moved = A.float() + 0.05/n**0.5*torch.randn(50, r, n).sign()
    assert not a_at_start(moved.to(dtype)).any()
    assert not a_at_start(torch.randn(r, n)/r) and not a_at_start(0.9*A).any() and not a_at_start(torch.zeros(r, n))
    low, high = a_init_band(n, r)
    S = torch.linalg.svdvals(A.float())
    assert 0.97*low < S.min() and S.max() < 1.03*high

def test_A_notices_the_stated_step():
    r, n = 16, 4096
    torch.manual_seed(0)
    step = 4/(r*n**1.5)
    noticed = [not a_at_start((torch.rand(r, n)*2 - 1)/64 + 3*step*torch.randn(r, n).sign()) for _ in range(20)]
    assert sum(noticed) > 8

def test_gavish_and_donoho():
    known, median = gavish_donoho(1)
    assert math.isclose(known, 4/math.sqrt(3)) and abs(median - 2.858) < 1e-3
    for beta, omega in ((0.5, 2.171), (0.25, 1.837), (0.1, 1.609), (1e-4, math.sqrt(2))):
        assert abs(gavish_donoho(beta)[1] - omega) < 0.01
    for beta in (0.2, 0.5, 0.9, 1):
        assert abs(gavish_donoho(beta)[1] - (0.56*beta**3 - 0.95*beta**2 + 1.82*beta + 1.43)) < 0.02
    g = torch.Generator().manual_seed(0)
    noise = torch.linalg.svdvals(0.7*torch.randn(200, 300, generator=g, dtype=torch.float64))
    assert abs(hard_threshold(noise, 200, 300)/hard_threshold(noise, 200, 300, noise=0.7)
        - 1) < 0.02 and noise[0] < hard_threshold(noise, 200, 300)
    for bad in (0, 1.5, -1):
        with pytest.raises(RecipeError, match="beta="): gavish_donoho(bad)

def test_the_trap_of_the_median_is_refused():
    S, _ = singular_values(torch.randn(16, 256), torch.randn(256, 16))
    with pytest.raises(RecipeError, match="do not tell its noise"): hard_threshold(S, 256, 256)
    with pytest.raises(RecipeError, match="do not tell its noise"): hard_threshold(np.pad(S, (0, 240)), 256, 256)
    assert hard_threshold(S, 256, 256, noise=1.) > 0

def test_after_one_step_the_update_lies_in_the_rows_of_A():
    g = torch.Generator().manual_seed(0)
    A = (torch.rand(4, 64, generator=g)*2 - 1)/8
    A0, B = A.clone(), torch.nn.Parameter(torch.zeros(32, 4))
    A = torch.nn.Parameter(A)
    adam = torch.optim.AdamW([A, B], lr=1e-3)
    (torch.randn(10, 64, generator=g) @ A.T @ B.T).square().add(torch.randn(10, 32, generator=g)).sum().backward()
    B.grad = torch.randn(32, 4, generator=g)
    adam.step()
    _, S, V = singular_vectors(A, B)
    Q = torch.linalg.qr(A0.double().T).Q
    assert torch.isclose((S[:, None]*V.T @ Q).square().sum()/S.square().sum(), torch.tensor(1.).double())

# --- Spectra ---------------------------------------------------------------------------------------------------------------------------------

def parts(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = [("model.layers.0.self_attn.q_proj", 32, 32, 4, 2.), ("model.layers.0.mlp.down_proj", 32, 48, 4, 2.),
        ("model.layers.1.self_attn.q_proj", 32, 32, 8, 0.5), ("model.layers.1.mlp.down_proj", 32, 48, 4, 1.),
        ("lm_head<b>", 64, 32, 4, 1.)]
    return [Factors(name, torch.randn(r, n, generator=g).to(dtype), torch.randn(m, r, generator=g).to(dtype), s)
        for name, m, n, r, s in shapes]

@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_spectra_keep_the_order_and_the_scaling(dtype):
    spectra = Spectra.of(parts(dtype))
    assert spectra.names == [f.name for f in parts()] and len(spectra) == 5
    for f, s, o in zip(parts(dtype), spectra.sigma, spectra.modules):
        T = torch.linalg.svdvals(f.delta())[:f.r].numpy()
        assert np.abs(s - T).max() <= o["error"]*s[0] and (o["m"], o["n"], o["r"], o["scaling"]) == (f.m, f.n, f.r,
            f.scaling)
    assert spectra["model.layers.1.self_attn.q_proj"] is spectra.sigma[2] is spectra[2]

def test_frame_and_summary():
    spectra = Spectra.of(parts())
    frame, table = spectra.frame(), spectra.summary()
    assert list(frame) == ["module", "index", "sigma", "scaling"] and len(frame) == 4 + 4 + 8 + 4 + 4
    assert frame[frame.module == "model.layers.1.self_attn.q_proj"]["index"].tolist() == list(range(8))
    assert list(table) == ["module", "shape", "r", "scaling", "method", "frobenius", "spectral", "nuclear",
        "energy_share", "k90", "k95", "k99", "entropy_rank", "energy_entropy_rank", "participation_ratio",
        "participation_null", "stable_rank", "nuclear_rank", "utilization", "top1_share", "sigma1_over_sigma2",
        "condition", "error"]
    assert all(table[k].dtype == int for k in ("k90", "k95", "k99", "r")) and math.isclose(table.energy_share.sum(), 1)
    for row, f in zip(table.itertuples(), parts()):
        assert math.isclose(row.frobenius, f.delta().norm(), rel_tol=1e-6) and math.isclose(row.spectral,
            torch.linalg.matrix_norm(f.delta(), 2), rel_tol=1e-6)
        T = torch.linalg.svdvals(f.delta())[:f.r]
        assert math.isclose(row.nuclear, T.sum(), rel_tol=1e-6) and math.isclose(row.condition, T[0]/T[-1],
            rel_tol=1e-4) and math.isclose(row.sigma1_over_sigma2, T[0]/T[1], rel_tol=1e-5)
        assert row.shape == (f.m, f.n) and math.isclose(row.utilization,
            row.stable_rank/f.r) and math.isclose(row.top1_share, 1/row.stable_rank)
        assert math.isclose(row.participation_null,
            participation_null(f.m, f.n, f.r)) and row.error == row.error and row.method == "LoRA"
        assert row.k90 <= row.k95 <= row.k99 <= f.r and math.isclose(row.stable_rank, (row.frobenius/row.spectral)**2,
            rel_tol=1e-9)

def test_arrays_and_back():
    spectra = Spectra.of(parts())
    modules, sigma = spectra.to_arrays()
    assert sigma.shape == (5, 8) and sigma.dtype == np.float32 and (sigma[0, 4:] == 0).all()
    again = Spectra.from_arrays(json.loads(json.dumps(modules)),
        np.frombuffer(sigma.tobytes(), np.float32).reshape(sigma.shape))
    assert again.parts is None and spectra.parts is not None and again.others == []
    # recordings of earlier versions
    old = Spectra.from_arrays([{k: v for k, v in o.items() if k != "method"} for o in modules], sigma)
    assert old.summary().participation_null.equals(again.summary().participation_null) and repr(old) == repr(again)
    assert again.names == spectra.names and all(np.allclose(a, b, rtol=1e-6) and len(a) == len(b) for a,
        b in zip(again.sigma, spectra.sigma))
    assert np.allclose(again.noise_band([1e-4]*10),
        spectra.noise_band([1e-4]*10)) and again.noise_band([1e-4]).shape == (5, 2)

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
    table = spectra.summary()
    assert table.entropy_rank[0] == 0 and table.k99[0] == 0 and np.isnan(table.sigma1_over_sigma2[0]) and "<svg" in spectra._repr_html_()
    assert len(Spectra.of([]).summary()) == 0 and spectra.parts[2] is fs[2]

def test_ranks_beyond_the_sides_have_no_part_in_the_condition():
    g = torch.Generator().manual_seed(0)
    row = Spectra.of([Factors("x", torch.randn(8, 5, generator=g), torch.randn(6, 8, generator=g), 1.),
        Factors("y", torch.randn(1, 5, generator=g), torch.randn(6, 1, generator=g), 1.)]).summary()
    assert 1 < row.condition[0] < 1e3 and row.condition[1] == 1 and np.isnan(row.sigma1_over_sigma2[1])
