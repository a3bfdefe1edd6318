"""The declaration of a sampling stage reaches every interface: a copy of the package gets one more stage."""

from __future__ import annotations

import json
from pathlib import Path

import docs_tables
import pytest

import needs
from gpt2lab.generation.options import GenerationArguments, SamplingArguments
from gpt2lab.sampling import rules
from gpt2lab.sampling.declaration import PARAMETERS, STAGES
from new_stage import copy_with_new_stage, python

MODEL = f"gpt2lab.load({str(Path(__file__).parent / 'golden' / 'tiny')!r}, device='reference')"


@pytest.fixture(scope="module")
def with_floor(tmp_path_factory):
    """Provide ``with_floor(code)``: what the code prints where there is a stage ``floor``."""
    folder = tmp_path_factory.mktemp("copy")
    environment = copy_with_new_stage(folder)
    return lambda code: python(code, environment, folder)


def test_a_new_stage_is_an_option_of_every_command_that_samples(with_floor):
    code = """
from gpt2lab.cli.main import main
for command in ("generate", "interactive", "next", "explore next", "explore sweep", "explore compare"):
    try:
        main([*command.split(), "--help"])
    except SystemExit:
        print("<end>")
"""
    *texts, _ = with_floor(code).split("<end>")
    assert len(texts) == 6
    for text in texts:
        assert "--floor FLOAT Drop tokens below this probability. [default: 0.0]" in " ".join(text.split())


def test_a_new_stage_is_in_the_signatures_of_the_python_api(with_floor):
    code = """
import inspect
from gpt2lab import LanguageModel as Model
for method in (Model.generate, Model.stream, Model.pieces, Model.next_token):
    print(inspect.signature(method))
"""
    assert with_floor(code).count("floor: 'float' = 0.0") == 4


def test_a_new_stage_is_in_the_help_of_the_python_api(with_floor):
    code = "import gpt2lab; print(gpt2lab.LanguageModel.generate.__doc__, gpt2lab.SamplingParams.__doc__)"
    assert with_floor(code).count("floor: Drop tokens below this probability.") == 2


def test_a_new_stage_is_drawn_with_and_checked(with_floor):
    code = f"""
import gpt2lab
model = {MODEL}
probabilities = [c.probability for c in model.next_token("The cat", top=2).candidates]
floor = sum(probabilities) / 2
greedy = model.generate("The cat", length=3, temperature=0).tokens
print(all(model.generate("The cat", length=1, floor=floor, seed=s).tokens == greedy[:1] for s in range(5)))
try:
    model.generate("The cat", floor=2)
except gpt2lab.Gpt2LabError as error:
    print(error)
"""
    assert with_floor(code) == "True\nfloor must be between 0 (off) and 1, got 2\n"


def test_a_new_stage_is_shown_by_next(with_floor):
    code = f"import gpt2lab; print([s.name for s in {MODEL}.next_token('The cat', min_p=0.1, floor=1e-9).stages])"
    assert with_floor(code) == "['model', 'min_p', 'floor']\n"


def test_a_stage_of_ones_own_may_stand_beside_a_new_stage(with_floor):
    code = "import gpt2lab; print(gpt2lab.CustomStage(print, after='floor').place)"
    assert with_floor(code) == "draw\n"


@needs.mark("fastapi")
def test_a_new_stage_is_a_field_of_the_server_s_requests(with_floor):
    code = """
import json
from gpt2lab.serving.completions import _SAMPLING
from gpt2lab.serving.protocol import CompletionRequest
field = CompletionRequest.model_json_schema()["properties"]["floor"]
print(json.dumps([field, CompletionRequest(floor=0.25).floor, "floor" in _SAMPLING]))
"""
    field, value, reaches_the_model = json.loads(with_floor(code))
    assert field["description"] == "Drop tokens below this probability. Default 0."
    assert {"type": "number", "minimum": 0, "maximum": 1} in field["anyOf"]
    assert (value, reaches_the_model) == (0.25, True)


@needs.mark("fastapi")
def test_a_new_stage_is_in_the_page_s_data(with_floor):
    module = with_floor("from gpt2lab.serving.page_files import stages_module; print(stages_module())")
    assert '"floor": "the floor"' in module
    assert '"hint": "drop what is below"' in module


def test_a_new_stage_is_in_the_tables_of_the_docs(with_floor):
    code = f"""
import sys
sys.path.insert(0, {str(Path(docs_tables.__file__).parent)!r})
import docs_tables
print(*(make() for make in (docs_tables.stages, docs_tables.arguments, docs_tables.names, docs_tables.order)))
"""
    printed = with_floor(code)
    assert "| 7 | the floor | `floor` (0) | between 0 (off) and 1 | Drop tokens below this probability. |" in printed
    assert "| 8 | draw |" in printed
    assert "| `floor` | 0.0 | Drop tokens below this probability. |" in printed
    assert "`min_p`, `floor`, `repetition_penalty`" in printed
    assert "top-p, min-p, the floor" in printed


# ---- the declaration itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", docs_tables.PAGES)
def test_the_tables_of_the_docs_are_those_of_the_declaration(page):
    text = (docs_tables.DOCS / page).read_text(encoding="utf-8")
    assert docs_tables.MADE.search(text), "no list in it"
    assert docs_tables.made(text) == text, "run tools/docs_tables.py"


def test_every_stage_has_a_rule_and_every_parameter_a_stage():
    assert list(rules._RULES) == list(STAGES)
    assert {p.stage for p in PARAMETERS.values()} == set(STAGES) - {"logit_bias"}


def test_type_checkers_know_every_parameter():
    for arguments in (SamplingArguments, GenerationArguments):
        typed = arguments.__annotations__
        assert {name: typed[name].__forward_arg__ for name in PARAMETERS} == {
            name: type(p.default).__name__ for name, p in PARAMETERS.items()
        }
