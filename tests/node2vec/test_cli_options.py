from __future__ import annotations

import argparse
import inspect
from dataclasses import fields

import pytest

from node2vec import cli_options, corpus_job, skipgram_job
from node2vec.cli_options import FOREIGN, Parser
from node2vec.edge_cleaning import Policy
from node2vec.estimator import Node2Vec
from node2vec.walk_request import WalkRequest


@pytest.fixture
def parser() -> Parser:
    made = Parser(prog="x")
    cli_options.add_root(made)
    cli_options.add_foreign(made)
    cli_options.add_seed(made)
    cli_options.add_edges(made)
    cli_options.add_graph(made)
    cli_options.add_walk(made)
    cli_options.add_corpus(made)
    cli_options.add_training(made)
    return made


REQUIRED = ["--root", "r", "--input", "e.csv"]
NAMES = (*cli_options.GRAPH, *cli_options.WALK, *cli_options.CORPUS, *cli_options.TRAINING, "seed")


def test_every_setting_is_an_option_with_the_same_default(parser: Parser) -> None:
    parsed = parser.parse_args(REQUIRED)
    assert cli_options.chosen(parsed, NAMES) == {field.name: field.default for field in fields(Node2Vec)}


def test_the_groups_are_what_the_stages_take() -> None:
    assert set(cli_options.GRAPH) == {field.name for field in fields(Policy)}
    assert {*cli_options.WALK, "seed"} == {field.name for field in fields(WalkRequest)}
    assert set(cli_options.CORPUS) == set(inspect.signature(corpus_job.check).parameters)
    assert {*cli_options.TRAINING, "seed"} == set(inspect.signature(skipgram_job.check).parameters)


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--window", "3"], "window", 3),
        (["--window-size", "3"], "window", 3),
        (["--ns-exponent", "0.5"], "ns_exponent", 0.5),
        (["--directed"], "directed", True),
        (["--undirected"], "directed", False),
        (["--extend"], "extend", True),
        (["--negatives", "pair"], "negatives", "pair"),
        (["--max-degree", "7"], "max_degree", 7),
        (["--partitions", "4"], "partitions", 4),
        (["--seed", "9"], "seed", 9),
    ],
)
def test_what_is_given_is_what_is_chosen(parser: Parser, flags: list[str], name: str, value: object) -> None:
    assert getattr(parser.parse_args([*REQUIRED, *flags]), name) == value


@pytest.mark.parametrize("flag", sorted(FOREIGN))
def test_options_of_other_programs_say_what_to_use(
    parser: Parser, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([*REQUIRED, flag, "4"])
    assert caught.value.code == 2
    assert f"there is no {flag}: {FOREIGN[flag]}." in capsys.readouterr().err
    assert flag not in parser.format_help()


def test_the_hints_name_options_that_there_are(parser: Parser) -> None:
    known = {option for action in parser._actions for option in action.option_strings} | {"--home"}
    named = {word for hint in FOREIGN.values() for word in hint.replace(",", " ").split() if word.startswith("--")}
    assert {word.strip("`;") for word in named} <= known


@pytest.mark.parametrize(
    "flags", [["--dim", "3"], ["--weighted", "--unweighted"], ["--directed", "--undirected"], ["--p", "x"]]
)
def test_abbreviated_and_contradicting_options_are_wrong_usage(parser: Parser, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([*REQUIRED, *flags])
    assert caught.value.code == 2


def test_the_help_tells_defaults(parser: Parser) -> None:
    def wants_default(action: argparse.Action) -> bool:
        return action.default not in (None, False, True, argparse.SUPPRESS) and bool(action.help)

    silent = [action.dest for action in parser._actions if wants_default(action) and "default" not in str(action.help)]
    assert silent == []
