"""`embedding_linear` and the fused bfloat16 loss against plain float64."""

import pytest
import torch

import kernels
from kernels.embedding import embedding_linear
from kernels.precision import multiplies_bfloat16, multiplies_pairs


def case(rows=37, reads=5, vocabulary=50, width=12, hidden=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (rows, reads), generator=generator)
    ids[torch.rand(rows, reads, generator=generator) < 0.3] = vocabulary - 1
    floats = [
        torch.randn(*size, generator=generator, requires_grad=True)
        for size in ((rows, reads), (vocabulary, width), (reads, width, hidden))
    ]
    return ids, floats


def results(ids, floats, **how):
    answer = embedding_linear(ids, *floats, padding=len(floats[1]) - 1, **how)
    toward = torch.cos(torch.arange(answer.numel(), dtype=answer.dtype)).reshape(answer.shape)
    return [answer.detach(), *torch.autograd.grad((answer * toward).sum(), floats)]


def distance(got, want):
    return float((got.double() - want).norm() / want.norm().clamp(min=1e-30))


@pytest.mark.parametrize("size", [{}, {"width": 48, "hidden": 64}, {"width": 1, "reads": 1}, {"rows": 1}])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_agrees_with_float64(size, precision):
    ids, floats = case(**size)
    want = results(ids, [t.detach().double().requires_grad_() for t in floats])
    bound = 2e-6 if precision == "float32" else 1.2e-2  # bfloat16 has 8 bits: one rounding is at most 0.4 %
    for got, exact in zip(results(ids, floats, precision=precision, backend="cpu"), want, strict=True):
        assert distance(got, exact) < bound


def test_bfloat16_is_used_where_the_processor_has_it():
    ids, floats = case()
    low, full = (results(ids, floats, precision=p)[0] for p in ("bfloat16", "float32"))
    assert torch.equal(low, full) != multiplies_bfloat16()


def test_padding_gives_and_gets_nothing():
    ids, floats = case()
    last = len(floats[1]) - 1
    with torch.no_grad():
        floats[1][-1] = torch.nan  # would show in every sum it took part in
    for backend in ("cpu", "torch"):
        if backend == "torch":
            with torch.no_grad():
                floats[1][-1] = 3.0
        answer, d_scale, d_table, _ = results(ids, floats, backend=backend)
        assert bool(answer.isfinite().all())
        assert not d_scale[ids == last].any() and not d_table[last].any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_is_bitwise_the_same_with_any_number_of_threads(precision):
    ids, floats = case(rows=300, reads=8, width=48)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(results(ids, floats, precision=precision)[:3])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_zero_rows():
    _, floats = case()
    scale = floats[0][:0]
    assert embedding_linear(torch.zeros(0, 5, dtype=torch.int64), scale, *floats[1:]).shape == (0, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.full((37, 5), 50)}, "out of range"),
        ({"ids": torch.zeros(37, 5)}, "integer"),
        ({"scale": torch.ones(37, 4)}, "scale must be"),
        ({"weight": torch.ones(5, 11, 9)}, "weight must be"),
        ({"scale": torch.ones(37, 5, dtype=torch.float64)}, "use one dtype"),
        ({"precision": "half"}, "precision"),
        ({"padding": 50}, "padding"),
        ({"backend": "triton"}, "Fix: use torch"),
        ({"backend": "numba"}, "no kernel backend 'numba'"),
    ],
)
def test_says_what_is_wrong(change, message):
    ids, (scale, table, weight) = case()
    given = {"ids": ids, "scale": scale, "table": table, "weight": weight} | change
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        embedding_linear(**given)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="neither AVX512-BF16 nor AMX")
@pytest.mark.parametrize(("rows", "tokens", "width"), [(1, 3, 1), (25, 70, 7), (61, 1000, 64), (300, 500, 64)])
def test_fused_loss_rounds_operands_only(rows, tokens, width):
    """Against float64 on the rounded operands the loss is exact to float32, whatever the sizes are."""
    generator = torch.Generator().manual_seed(rows)
    hidden, output = (torch.randn(n, width, generator=generator) for n in (rows, tokens))
    bias, targets = torch.randn(tokens, generator=generator), torch.arange(rows) % tokens
    plan = kernels.route(torch.zeros(rows, dtype=torch.int64), n_modules=1)
    vocabulary = kernels.Vocabulary.own([tokens])
    low = kernels.ragged_softmax_xent(
        hidden, targets, output, bias, vocabulary, plan, precision="bfloat16", backend="cpu"
    )

    def exact(a, b):
        return torch.nn.functional.cross_entropy(a.double() @ b.double().T + bias.double(), targets, reduction="none")

    rounded, given = exact(hidden.bfloat16(), output.bfloat16()), exact(hidden, output)
    # With AMX the products are torch's, which multiplies small matrices as they are.
    assert torch.allclose(low.double(), rounded, atol=1e-5) or (
        not multiplies_pairs() and rows < 32 and torch.allclose(low.double(), given, atol=1e-5)
    )
