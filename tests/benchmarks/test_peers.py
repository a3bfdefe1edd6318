import json
import sys

import peer_report
import peers
import pytest
from drivers import common
from peer_environments import Environments, cmake_args, named_packages
from peer_settings import ISAS, PEERS, RESTRICTIONS, WIDTHS, settings_for

HEADING = peer_report.Heading("a processor", "124M", 2, "", {"gpt2lab": {"gpt2lab": "1"}})
LIMITS = {
    "setting": "limits",
    "round": 0,
    "buffers": {"8-bit": 100},
    "figures": {"read_gb_s_100": [20.0], "float32_gflop_s": [400.0], "int8_gop_s": [1000.0]},
}


def measured(peer, round, workload="decode", setting="", **figures):
    key = {"peer": peer, "setting": f"{peer} {setting}", "width": "8-bit", "round": round, "workload": workload}
    return key | figures


def reported(capsys, *records, settings=("gpt2lab ", "openvino ", "openvino other")):
    peer_report.report([LIMITS, *records], settings, HEADING)
    lines = capsys.readouterr().out.splitlines()
    return lines, json.loads(lines[-1])["widths"].get("8-bit")


def test_a_ratio_above_1_means_more_tokens_than_the_best_setting_of_a_peer(capsys):
    records = [measured("gpt2lab", 0, tokens_s=90.0), measured("openvino", 0, tokens_s=50.0)]
    records.append(measured("openvino", 0, setting="other", tokens_s=60.0))
    _, found = reported(capsys, *records)
    assert found["ratios"]["decode"] == 1.5
    assert found["rows"]["decode"]["openvino"]["setting"] == "openvino other"


def test_a_ratio_above_1_means_less_time_and_less_memory(capsys):
    ours = measured("gpt2lab", 0, "cold", seconds=0.2, peak_mb=100)
    _, found = reported(capsys, ours, measured("openvino", 0, "cold", seconds=0.3, peak_mb=50))
    assert found["ratios"] == {"cold": 1.5, "memory": 0.5}


def test_all_programs_of_a_row_count_with_the_same_rounds(capsys):
    ours = [measured("gpt2lab", round, tokens_s=speed) for round, speed in enumerate([10.0, 30.0, 100.0])]
    _, found = reported(capsys, *ours, measured("openvino", 0, tokens_s=20.0), measured("openvino", 1, tokens_s=20.0))
    assert found["rows"]["decode"]["gpt2lab"]["median"] == 20.0
    assert {entry["rounds"] for entry in found["rows"]["decode"].values()} == {2}


def test_a_ratio_is_the_median_of_the_rounds_ratios(capsys):
    ours = [measured("gpt2lab", round, tokens_s=speed) for round, speed in enumerate([10.0, 30.0, 100.0])]
    theirs = [measured("openvino", round, tokens_s=speed) for round, speed in enumerate([5.0, 30.0, 10.0])]
    _, found = reported(capsys, *ours, *theirs)
    assert found["ratios"]["decode"] == 2.0


def test_settings_that_were_not_requested_do_not_count(capsys):
    records = [measured("gpt2lab", 0, tokens_s=90.0), measured("openvino", 0, tokens_s=50.0)]
    records.append(measured("openvino", 0, "batch_8", error="a crash"))
    lines, found = reported(capsys, *records, settings=("gpt2lab ",))
    assert found["ratios"]["decode"] is None
    assert not any("a crash" in line for line in lines)


def test_a_setting_that_failed_is_named_with_its_last_line(capsys):
    lines, _ = reported(capsys, measured("openvino", 0, error="a trace\nno such kernel"))
    assert "openvino  failed: no such kernel" in lines


def test_a_share_stands_beside_every_speed(capsys):
    lines, found = reported(
        capsys, measured("gpt2lab", 0, tokens_s=80.0), measured("gpt2lab", 0, "cold", seconds=1, peak_mb=1)
    )
    assert 0.3 < found["shares_of_limit"]["decode"] < 0.7  # of 20 GB/s, about 130 MB a token
    assert found["shares_of_limit"]["cold"] is None
    assert any(line.startswith("CPU: a processor") for line in lines)


def test_a_restricted_comparison_says_which_peer_it_could_not_restrict():
    heading = peer_report.Heading("a processor", "124M", 2, "avx2", {"openvino": {"openvino": "1"}})
    assert "restricted to avx2" in heading.lines()
    assert any(line.startswith("OpenVINO") for line in heading.lines())


@pytest.mark.parametrize("isa", ISAS)
def test_every_peer_is_restricted_by_its_environment_or_by_its_build(isa):
    assert all(RESTRICTIONS[peer].get(isa) or peer == "llama_cpp" for peer in PEERS)
    assert "GGML_NATIVE=OFF" in cmake_args(isa, tiles=True)


def test_a_restricted_setting_keeps_its_own_variables():
    setting = next(s for s in settings_for("avx2") if s.peer == "ctranslate2")
    assert setting.environment["CT2_FORCE_CPU_ISA"] == "AVX2"
    assert setting.environment["OMP_PROC_BIND"] == "true"


@pytest.mark.parametrize("isa", ["", *ISAS])
def test_settings_have_names_of_their_own_and_cover_every_width(isa):
    settings = settings_for(isa)
    assert len({setting.name for setting in settings}) == len(settings)
    assert {s.width for s in settings if s.peer == "openvino"} == set(WIDTHS)


def test_llama_cpp_has_an_environment_for_each_instruction_set(tmp_path):
    plain, restricted = Environments(tmp_path), Environments(tmp_path, "avx2")
    assert plain.python("llama_cpp") != restricted.python("llama_cpp")
    assert plain.python("openvino") == restricted.python("openvino")


def test_packages_named_before_the_dependencies_have_their_versions_reported(tmp_path):
    (tmp_path / "peer.txt").write_text(
        "# A peer.\nsome-peer[extra]==1.0\ntorch==2.0\n\n# and their dependencies\nnumpy==1\n"
    )
    assert named_packages(tmp_path / "peer.txt") == ["some-peer", "torch"]


def test_an_unknown_peer_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers.py", "--peers", "gpt2lab,nobody"])
    with pytest.raises(SystemExit):
        peers.parse()
    assert "'nobody' is none of gpt2lab, transformers" in capsys.readouterr().err


def test_a_prompts_time_is_that_of_several_different_prompts():
    asked = []
    common.tokens_per_second(lambda prompts, new: asked.append(prompts[0]) or 1, common.Workload(1, 8, 1))
    assert len({tuple(prompt) for prompt in asked}) == len(asked) == common.PROMPTS > 1
