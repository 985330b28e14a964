"""Rules are found by namespace and name, and users pass their own as arguments."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from helpers.oracles import random_plan
from ranp.errors import InputError
from ranp.graph import ChannelGraph
from ranp.tracing import RULES, Call, Rule, Tracer, pointwise

X = image(2, 3, 7, 7)()


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Operators of another namespace, two of which have names that torch has too."""
    library = torch.library.Library("ranp_rules", "DEF")
    library.define("sort(Tensor x) -> Tensor")
    library.define("tanh(Tensor x) -> Tensor")
    library.define("scale(Tensor x, Tensor factors) -> Tensor")
    library.define("double_(Tensor(a!) x) -> Tensor(a!)")

    def scale(x: Tensor, factors: Tensor) -> Tensor:
        return torch.empty_like(x) if x.is_meta else x * factors[:, None, None]

    library.impl("sort", lambda x: x.clone(), "CompositeExplicitAutograd")
    library.impl("tanh", lambda x: torch.empty_like(x) if x.is_meta else x.tanh(), "CompositeExplicitAutograd")
    library.impl("scale", scale, "CompositeExplicitAutograd")
    library.impl("double_", lambda x: x, "CompositeExplicitAutograd")
    yield
    library._destroy()


def model(name: str) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        operator = getattr(torch.ops.ranp_rules, name)
        y = net.body(x)
        return net.head(operator(y, net.factors) if name == "scale" else operator(y))

    net = Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Conv2d(6, 2, 1))
    net.factors = nn.Parameter(torch.rand(6))
    return net


def widths(graph: ChannelGraph) -> list[int]:
    return [group.width for group in graph.groups]


def scale(tracer: Tracer, call: Call) -> None:
    source, factors = call.args
    tracer.meet(tracer.vector(source, 1), tracer.vector(factors, 0))
    tracer.set(call.out, tracer.labels(source))


@pytest.mark.parametrize("name", ["sort", "tanh", "scale", "double_"])
def test_operators_of_other_namespaces_have_no_rule(name: str) -> None:
    graph = ranp.trace(model(name), X)
    assert not graph.groups
    assert (name, "has no rule") in {(entry.operator, entry.reason) for entry in graph.unprunable}


def test_a_rule_is_an_argument_and_changes_no_table() -> None:
    before = dict(RULES)
    net = model("scale")
    graph = ranp.trace(net, X, rules={"ranp_rules::scale": scale})
    plan = random_plan(graph, 0, 0.5)
    assert widths(graph) == [6]
    assert ranp.apply(net, plan).factors.shape == (len(plan.keep["body"]),)
    assert ranp.verify(net, plan, X).status == "exact"
    assert dict(RULES) == before
    assert not ranp.trace(net, X).groups


def test_elementwise_operators_need_no_function() -> None:
    assert widths(ranp.trace(model("tanh"), X, rules={"ranp_rules::tanh": pointwise})) == [6]


ACTIVATIONS = (
    "relu relu6 leaky_relu elu celu selu hardtanh hardswish hardsigmoid silu mish gelu softplus logsigmoid rrelu"
)


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_channels_pass_through_activations_of_every_version_of_torch(name: str) -> None:
    function = getattr(torch.nn.functional, name)
    for options in ({}, {"inplace": True}):
        if options and name in ("gelu", "softplus", "logsigmoid"):
            continue

        def run(net: Any, x: Tensor, options: Any = options) -> Tensor:
            return net.head(function(net.body(x), **options))

        assert widths(ranp.trace(Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Conv2d(6, 2, 1)), X)) == [6]


@pytest.mark.parametrize("name", ["ranp_rules::double", "ranp_rules::double_"])
def test_an_in_place_variant_has_the_rule_of_its_operator_or_its_own(name: str) -> None:
    assert widths(ranp.trace(model("double_"), X, rules={name: pointwise})) == [6]


def test_a_rule_of_the_user_takes_precedence() -> None:
    def refuse(tracer: Tracer, call: Call) -> None:
        tracer.mark_unprunable(tracer.vector(call.args[0], 1), "must keep its channels")

    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softmax(2), nn.Conv2d(6, 2, 1))
    assert widths(ranp.trace(net, X)) == [6]
    graph = ranp.trace(net, X, rules={"aten::_softmax": refuse})
    assert not graph.groups
    assert "must keep its channels" in {entry.reason for entry in graph.unprunable}


def test_a_name_without_a_namespace_is_refused() -> None:
    with pytest.raises(InputError, match="rules: got 'scale'; expected an operator with its namespace"):
        ranp.trace(model("scale"), X, rules={"scale": scale})


def test_the_table_cannot_be_written() -> None:
    table: Any = RULES
    with pytest.raises(TypeError):
        table["aten::relu"] = pointwise
    rule: Rule = RULES["aten::sort"]
    assert callable(rule)
    assert {name.split("::")[0] for name in RULES} == {"aten", "c10d", "_c10d_functional"}


def test_the_old_name_of_marking_channels_warns() -> None:
    def refuse(tracer: Tracer, call: Call) -> None:
        tracer.freeze(tracer.vector(call.args[0], 1), "must keep its channels")

    with pytest.warns(DeprecationWarning, match="mark_unprunable"):
        assert not ranp.trace(model("tanh"), X, rules={"ranp_rules::tanh": refuse}).groups
