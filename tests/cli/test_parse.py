"""Values of options."""

from ranp.cli._parse import parse_arguments, parse_budget, parse_inputs


def test_inputs_are_zeros_of_the_shapes() -> None:
    assert [tuple(zeros.shape) for zeros in parse_inputs("nets.py:build", ["2,3,9,9", "1,4"])] == [(2, 3, 9, 9), (1, 4)]
    assert [tuple(zeros.shape) for zeros in parse_inputs("nets.py:build", ["1,1,64,64,64"])] == [(1, 1, 64, 64, 64)]


def test_limits_are_fractions_or_percentages() -> None:
    assert dict(parse_budget(["macs=5%", "params=0.1"]).given()) == {"macs": 0.05, "params": 0.1}


def test_arguments_are_json_python_literals_or_strings() -> None:
    found = parse_arguments(["width=16", "widths=[8, 16]", "bias=false", "norm=None", "act=relu"])
    assert found == {"width": 16, "widths": [8, 16], "bias": False, "norm": None, "act": "relu"}
