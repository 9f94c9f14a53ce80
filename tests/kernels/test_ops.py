"""The registered operations: opcheck, gradcheck in float64, and one graph under torch.compile."""

# pyright: reportArgumentType=false, reportCallIssue=false
# (lists of tensors are unpacked into arguments)
from __future__ import annotations

import pytest
import torch

from kernels import (
    AdamState,
    MLPStack,
    Vocabulary,
    embedding_linear,
    ops,
    ops_embedding,
    ops_train,
    ragged_linear,
    ragged_mlp,
    ragged_softmax_xent,
    route,
    train_step_,
    training,
)

GENERATOR = torch.Generator().manual_seed(0)


def _normal(*sizes, dtype=torch.float64):
    return torch.randn(*sizes, generator=GENERATOR, dtype=torch.float64).to(dtype).requires_grad_()


def _mlp_args(backend, dtype, choice, n_modules):
    plan = route(choice, n_modules=n_modules)
    x = _normal(choice.shape[0], 4, dtype=dtype)
    params = [
        _normal(n_modules, 4, 5, dtype=dtype),
        _normal(n_modules, 5, 3, dtype=dtype),
        _normal(n_modules, 3, dtype=dtype),
    ]
    places = plan.order, plan.inverse, plan.offsets
    return (x, params, [0, 1], *places, plan.n_choices, "silu", backend)


def _xent_args(backend, dtype, shared=True, has_bias=True):
    vocabulary = Vocabulary.of([[0, 3, 2], [1, 2], [4]], 5) if shared else Vocabulary.own([3, 2, 1])
    plan = route(torch.tensor([1, 0, 1, 0, 2]), n_modules=3)
    bias = _normal(6, dtype=dtype) if has_bias else None
    tables = (
        _normal(5, 4, dtype=dtype),
        torch.tensor([1, 2, 0, 0, 0]),
        _normal(vocabulary.n_tokens, 4, dtype=dtype),
        bias,
    )
    return (*tables, vocabulary.offsets, vocabulary.ids, plan.order, plan.inverse, plan.offsets, False, backend)


def _embedding_args(padding, low, rows=7, dtype=torch.float32):
    ids = torch.randint(0, 11, (rows, 3), generator=GENERATOR)
    return (
        ids,
        _normal(rows, 3, dtype=dtype),
        _normal(11, 4, dtype=dtype),
        _normal(3, 4, 5, dtype=dtype),
        padding,
        low,
    )


CHOICES = [torch.tensor([2, 0, 2, 2]), torch.tensor([[2, 0], [1, 1], [0, 2]]), torch.zeros(0, dtype=torch.int64)]


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float32)])
@pytest.mark.parametrize("choice", CHOICES[:2])
def test_opcheck_mlp(backend, dtype, choice):
    args = _mlp_args(backend, dtype, choice, 4)
    torch.library.opcheck(ops.mlp, args)
    x, params, *rest = args
    grad = _normal(choice.numel(), 3, dtype=dtype).detach()
    plain = x.detach(), [p.detach() for p in params]
    torch.library.opcheck(ops.mlp_backward, (grad, *plain, *rest))


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float32)])
@pytest.mark.parametrize(("shared", "has_bias"), [(True, True), (False, False)])
def test_opcheck_xent(backend, dtype, shared, has_bias):
    args = _xent_args(backend, dtype, shared, has_bias)
    torch.library.opcheck(ops.xent, args)
    plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
    torch.library.opcheck(ops.xent_backward, (torch.ones(5, dtype=dtype), *plain))


@pytest.mark.parametrize(("padding", "low"), [(-1, False), (10, False), (10, True)])
def test_opcheck_embedding(padding, low):
    args = _embedding_args(padding, low)
    torch.library.opcheck(ops_embedding.layer, args)
    plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
    torch.library.opcheck(ops_embedding.layer_backward, (torch.ones(7, 5), *plain))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_gradcheck(choice, backend):
    gate = _normal(*choice.shape)
    x, weight, second = _normal(len(choice), 4), _normal(4, 4, 5), _normal(4, 5, 3)
    bias = _normal(4, 5)

    def linear(x, weight, bias):
        return ragged_linear(x, weight, bias, route(choice, n_modules=4), backend=backend)

    def mlp(x, gate, weight, bias, second):
        plan = route(choice, gate, 4)
        return ragged_mlp(x, [weight, second], [bias, None], plan, "gelu", backend=backend)

    assert torch.autograd.gradcheck(linear, (x, weight, bias))
    assert torch.autograd.gradcheck(mlp, (x, gate, weight, bias, second))
    if backend == "torch":
        args = _mlp_args("torch", torch.float64, choice, 4)
        assert torch.autograd.gradcheck(lambda x, *params: ops.mlp(x, list(params), *args[2:]), (args[0], *args[1]))


@pytest.mark.parametrize("padding", [None, 10])
@pytest.mark.parametrize("backend", [None, "torch", "reference"])
def test_gradcheck_embedding(backend, padding):
    ids, *floats, _, _ = _embedding_args(-1, False, dtype=torch.float64)

    def layer(scale, table, weight):
        return embedding_linear(ids, scale, table, weight, padding=padding, backend=backend)

    assert torch.autograd.gradcheck(layer, floats)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck_xent(backend, shared):
    hidden, targets, output, bias, starts, ids, *places, low, _ = _xent_args("torch", torch.float64, shared)
    vocabulary = Vocabulary(starts, ids, output.shape[0])
    plan = route(torch.tensor([1, 0, 1, 0, 2]), n_modules=3)

    def loss(hidden, output, bias):
        return ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, backend=backend)

    assert torch.autograd.gradcheck(loss, (hidden, output, bias))
    if backend == "torch":
        assert torch.autograd.gradcheck(
            lambda h, o, b: ops.xent(h, targets, o, b, starts, ids, *places, low, "torch"), (hidden, output, bias)
        )


@pytest.mark.parametrize("choice", [torch.tensor([2, 0, 2, 2]), torch.tensor([[2, 0], [1, 1], [0, 2], [0, 0]])])
@pytest.mark.parametrize("gated", [False, True])
def test_compiles_into_one_graph(choice, gated):
    """aot_eager: the graph is captured and differentiated as for the compiler, and run without generating code."""
    gate = torch.rand(choice.shape, generator=GENERATOR) if gated else None
    plan = route(choice, gate, 4)
    x = _normal(4, 4, dtype=torch.float32)
    weights = [_normal(4, 4, 6, dtype=torch.float32), _normal(4, 6, 3, dtype=torch.float32)]
    biases = [_normal(4, 6, dtype=torch.float32), None]

    def run(x, w0, w1, b0):
        y = ragged_linear(x * 2, w0, b0, plan).sum()
        return ragged_mlp(x, [w0, w1], [b0, None], plan, "relu").square().sum() + y

    inputs = [x, *weights, biases[0]]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    want, got = run(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_the_loss_compiles_into_one_graph_and_still_looks_at_the_targets():
    hidden, targets, output, bias, starts, ids, *_ = _xent_args("torch", torch.float32)
    vocabulary = Vocabulary(starts, ids, 5)
    plan = route(torch.tensor([1, 0, 1, 0, 2]), n_modules=3)

    def run(hidden, output, bias, targets):
        return ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan).mean()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    inputs = [hidden, output, bias]
    want, got = run(*inputs, targets), compiled(*inputs, targets)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(IndexError, match="target 2 of row 0 is out of range"):
        compiled(*inputs, torch.tensor([2, 2, 0, 0, 0]))


@pytest.mark.parametrize("padding", [None, 10])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_embedding_layer_compiles_into_one_graph_and_still_looks_at_the_ids(precision, padding):
    """Bit for bit what runs without the compiler: inside it is the same code, in either precision of products."""
    ids, *floats, _, _ = _embedding_args(-1, False)

    def run(ids, *floats):
        return torch.cos(embedding_linear(ids, *floats, padding=padding, precision=precision)).sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    want, got = run(ids, *floats), compiled(ids, *floats)
    assert torch.equal(got, want)
    for a, b in zip(torch.autograd.grad(got, floats), torch.autograd.grad(want, floats), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(IndexError, match="id 11 is out of range: the table has 11 rows"):
        compiled(torch.full_like(ids, 11), *floats)


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float32), (None, torch.float64)])
def test_the_plain_embedding_layer_compiles_into_one_graph(backend, dtype):
    ids, *floats, _, _ = _embedding_args(-1, False, dtype=dtype)

    def run(*floats):
        return torch.cos(embedding_linear(ids, *floats, padding=10, backend=backend)).sum()

    want, got = run(*floats), torch.compile(run, fullgraph=True, backend="aot_eager")(*floats)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, floats), torch.autograd.grad(want, floats), strict=True):
        torch.testing.assert_close(a, b)


def _stacked(dtype):
    weights = [_normal(4, 3, 5, dtype=dtype).detach(), _normal(4, 5, 2, dtype=dtype).detach()]
    return MLPStack(weights, [None, _normal(4, 2, dtype=dtype).detach()], "silu")


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float32)])
def test_opcheck_training_step(backend, dtype):
    stacked = _stacked(dtype)
    plan, state = route(torch.tensor([2, 0, 2, 2]), n_modules=4), AdamState.of(stacked.params)
    x, targets = _normal(4, 3, dtype=dtype).detach(), torch.tensor([0, 1, 1, 0])
    torch.library.opcheck(
        ops_train.train_step,
        (x, targets, stacked.params, state.first, state.second, state.step, torch.full((4,), 0.1, dtype=torch.float64),
         [0, 1], plan.order, plan.inverse, plan.offsets, "silu", "softmax", [0.9, 0.99, 1e-8, 0.1], backend),
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["mse", "logistic", "softmax"])
def test_gradient_of_a_loss_without_autograd(loss):
    plan = route(torch.tensor([2, 0, 2, 2]), n_modules=4)
    answers = _normal(4, 3)
    targets = torch.tensor([0, 2, 1, 0]) if loss == "softmax" else torch.rand(4, 3, dtype=torch.float64)
    share = torch.tensor([1 / 3, 1, 1 / 3, 1 / 3], dtype=torch.float64)
    (want,) = torch.autograd.grad((training.row_losses(answers, targets, loss) * share).sum(), [answers])
    torch.testing.assert_close(training.loss_gradient(answers.detach(), targets, loss, plan), want)


def test_training_step_compiles_into_one_graph():
    plan = route(torch.tensor([2, 0, 2, 2]), n_modules=4)
    x, targets = torch.randn(4, 3, generator=GENERATOR), torch.tensor([0, 1, 1, 0])
    plain = _stacked(torch.float32)
    other = MLPStack([w.clone() for w in plain.weights], [None, plain.params[2].clone()], "silu")
    found = []
    for stacked, compiled in ((plain, False), (other, True)):
        state = AdamState.of(stacked.params)

        def run(x, targets, stacked=stacked, state=state):
            return train_step_(x * 2, targets, stacked, plan, state, 0.1, loss="softmax").sum()

        step = torch.compile(run, fullgraph=True, backend="aot_eager") if compiled else run
        losses = [step(x, targets) for _ in range(2)]
        found.append([*losses, *stacked.params, *state.first, *state.second, state.step])
        with pytest.raises(IndexError, match="a target is out of range"):
            step(x, targets + 2)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][-1].tolist() == [2, 0, 2, 0]


@pytest.mark.slow
def test_inductor_compiles_a_training_loss():
    plan = route(torch.tensor([2, 0, 2, 2]), n_modules=4)
    x, weights = _normal(4, 4, dtype=torch.float32), [_normal(4, 4, 6, dtype=torch.float32) for _ in range(1)]
    second = _normal(4, 6, 3, dtype=torch.float32)

    def run(x, w0, w1):
        return torch.tanh(ragged_mlp(torch.sin(x), [w0, w1], [None, None], plan, "gelu")).square().sum()

    compiled = torch.compile(run, fullgraph=True)
    inputs = [x, weights[0], second]
    want, got = run(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
