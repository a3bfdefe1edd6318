"""A wheel is complete, fits its tag and asks for no newer C library than it promises."""

import pytest
from audit_wheel import PARTS, faults, needed

ELF = b"\x7fELF\0GLIBC_2.17\0GLIBC_2.28\0GLIBCXX_3.4.11\0CXXABI_1.3\0NOT_GLIBC_2.99\0"
PLAIN = "gpt2lab/_native.cpython-311-x86_64-linux-gnu.so"
NAME = "gpt2lab-0.1.0-cp311-cp311-manylinux_2_28_x86_64.whl"


def contents(library: str = PLAIN, elf: bytes = ELF) -> dict[str, bytes]:
    return {**{f"gpt2lab/{part}": b"" for part in PARTS}, library: elf}


def test_versions_of_symbols_are_found_by_family():
    assert needed(ELF) == {"GLIBC": {(2, 17), (2, 28)}, "GLIBCXX": {(3, 4, 11)}, "CXXABI": {(1, 3)}}


@pytest.mark.parametrize(
    ("name", "library"),
    [
        (NAME, PLAIN),
        ("gpt2lab-0.1.0-cp312-abi3-manylinux_2_28_x86_64.whl", "gpt2lab/_native.abi3.so"),
        ("gpt2lab-0.1.0-cp312-abi3-macosx_11_0_arm64.whl", "gpt2lab/_native.abi3.so"),
        ("gpt2lab-0.1.0-cp311-cp311-win_amd64.whl", "gpt2lab/_native.cp311-win_amd64.pyd"),
        ("gpt2lab-0.1.0-cp312-abi3-win_amd64.whl", "gpt2lab/_native.pyd"),
    ],
)
def test_a_sound_wheel_has_no_fault(name, library):
    assert list(faults(name, contents(library))) == []


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({k: v for k, v in contents().items() if "vocab" not in k}, "gpt2lab/assets/vocab.bpe is missing"),
        (contents("gpt2lab/other.so"), "there is not one library gpt2lab/_native, but 0"),
        (contents("gpt2lab/_native.abi3.so"), "gpt2lab/_native.abi3.so does not fit the wheel's tag"),
        (contents(elf=ELF + b"GLIBC_2.34\0"), "needs GLIBC 2.34, and promises 2.28"),
    ],
)
def test_a_fault_is_reported(files, fault):
    assert list(faults(NAME, files)) == [fault]
