"""`mpsearch export --package`: libraries that the ecosystems' own tools read, and that compile."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import small_network

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import write_folder
from mpsearch.exporters.c.targets import find_target
from mpsearch.exporters.formats import export
from mpsearch.exporters.packages.layout import PACKAGES, package_name
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.inference import quantize_input
from mpsearch.integer.inference import run as run_integers
from mpsearch.integer.lowering import lower
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized_file import save_quantized

NAME = "my_network_2"
GCC, GXX, ARM = (shutil.which(name) for name in ("gcc", "g++", "arm-none-eabi-gcc"))
STRICT = "-O1 -Wall -Wextra -Werror".split()
needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or GCC is None, reason="there is no cmake or no gcc"
)


@pytest.fixture(scope="module")
def network() -> tuple[QuantizedNetwork, Data, IntegerGraph]:
    quantized, data = small_network()
    return quantized, data, lower(quantized, data)


@pytest.fixture(scope="module")
def packages(
    network: tuple[QuantizedNetwork, Data, IntegerGraph], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    quantized, data, graph = network
    found = {}
    for kind in PACKAGES:
        found[kind] = tmp_path_factory.mktemp(kind) / "My-Network 2"
        write_folder(graph, quantized, data, found[kind], package=kind)
    return found


@pytest.fixture(scope="module")
def zeros(network: tuple[QuantizedNetwork, Data, IntegerGraph]) -> list[int]:
    """The output's integers for the sample of every example."""
    _, data, graph = network
    inputs = [np.zeros((1, *x.shape[1:]), np.float32) for x in data.inputs]
    codes = [quantize_input(inputs[entry.index], entry.tensor) for entry in graph.inputs]
    return [int(code) for code in np.asarray(run_integers(graph, *codes)).reshape(-1)]


def _named(folder: Path, kind: str) -> set[str]:
    """The files that the manifests name, read with a few lines of our own."""

    def text(name: str) -> str:
        return (folder / name).read_text()

    match kind:
        case "arduino":
            fields = dict(each.split("=", 1) for each in text("library.properties").splitlines())
            return {f"src/{fields['includes']}"}
        case "platformio":
            manifest = json.loads(text("library.json"))
            (example,) = manifest["examples"]
            files = {f"{example['base']}/{name}" for name in example["files"]}
            return files | {f"{manifest['build']['srcDir']}/{manifest['headers']}"}
        case "esp-idf":
            main = "examples/run/main"
            override = re.search(r'override_path: "(.*)"', text(f"{main}/idf_component.yml"))
            assert override is not None
            assert (folder / main / override[1]).resolve() == folder.resolve()
            (source,) = re.findall(r"SRCS (\S+)\)", text(f"{main}/CMakeLists.txt"))
            return {*re.findall(r"src/\S+\.c", text("CMakeLists.txt")), f"{main}/{source}"}
        case "zephyr":
            module = text("zephyr/module.yml")
            cmake, kconfig = re.findall(r"^  (?:cmake|kconfig): (.+)$", module, re.MULTILINE)
            assert cmake == "."
            (samples,) = re.findall(r"^  - (.+)$", module, re.MULTILINE)
            (sample,) = (folder / samples).iterdir()
            assert (sample / "prj.conf").read_text() == "CONFIG_MY_NETWORK_2=y\n"
            return {
                *re.findall(r"src/\S+\.c", text("CMakeLists.txt")),
                kconfig,
                str((sample / "src/main.c").relative_to(folder)),
            }
        case _:
            return set(re.findall(r"src/[\w.]+\.[ch]", text("CMakeLists.txt"))) | {"example/main.c"}


@pytest.mark.parametrize("kind", PACKAGES)
def test_what_the_manifests_name_is_there_and_the_other_way_round(
    packages: dict[str, Path], kind: str
) -> None:
    folder = packages[kind]
    named = _named(folder, kind)
    assert named
    assert [name for name in named if not (folder / name).is_file()] == []
    compiled = {name for name in named if name.startswith("src/") and name.endswith(".c")}
    if kind in ("esp-idf", "zephyr", "cmake"):  # the others compile the whole of src/
        assert compiled == {f"src/{path.name}" for path in (folder / "src").glob("*.c")}
    words = " ".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert re.findall(r"@[A-Z]+@", words) == []  # a word of a template that nobody filled
    listed = json.loads((folder / "export.json").read_text())["files"]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*listed, "export.json"}
    assert f"## In {PACKAGES[kind].title}" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def objects(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sources of a package, compiled with its include path alone; they are the same in all."""
    if GCC is None:
        pytest.skip("there is no gcc")
    source = packages["cmake"] / "src"
    sources = sorted(map(str, source.glob("*.c")))
    for kind, folder in packages.items():
        for path in source.iterdir():
            assert (folder / "src" / path.name).read_bytes() == path.read_bytes(), (kind, path)
    if ARM is not None:
        flags = "-mcpu=cortex-m4 -mthumb -std=c99 -fsyntax-only".split()
        subprocess.run([ARM, *flags, *STRICT, f"-I{source}", *sources], check=True)
    place = tmp_path_factory.mktemp("objects")
    words = [GCC, "-std=c99", *STRICT, f"-I{source}", "-c", *sources]
    subprocess.run(words, cwd=place, check=True)
    return [str(path) for path in place.glob("*.o")]


@pytest.mark.parametrize("kind", PACKAGES)
def test_the_examples_compile_and_give_what_the_reference_gives(
    packages: dict[str, Path], kind: str, tmp_path: Path, objects: list[str], zeros: list[int]
) -> None:
    folder = packages[kind]
    (example,) = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".ino", ".cpp") or path.name == "main.c"
    ]
    if example.suffix == ".c":
        start = "-Dapp_main=main" if kind == "esp-idf" else "-DNOTHING"
        warnings = [] if kind == "esp-idf" else STRICT  # void main
        words = [str(GCC), "-std=c99", start, *warnings, f"-I{folder}/src", str(example), *objects]
    else:
        if GXX is None:
            pytest.skip("there is no g++")
        (tmp_path / "Arduino.h").write_text(ARDUINO)
        words = [GXX, "-std=c++11", *STRICT, "-include", "Arduino.h", "-I.", f"-I{folder}/src"]
        words += ["-x", "c++", str(example), "-x", "none", *objects]
    subprocess.run([*words, "-o", "run", "-lm"], cwd=tmp_path, check=True)
    printed = subprocess.run(["./run"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert _outputs(printed, folder) == pytest.approx(zeros, abs=0.51)


# What stands for Arduino's core: one loop, and what it prints.
ARDUINO = r"""
#pragma once
#include <cstdio>
#include <cstdlib>
void setup();
void loop();
static unsigned long micros() { static unsigned long now; return now += 5; }
static void delay(unsigned long) { std::exit(0); }
static struct {
    void begin(long) {}
    void println(double x, int) { std::printf("real %.17g\n", x); }
    void println(const char *s) { std::puts(s); }
    void print(unsigned long n) { std::printf("%lu", n); }
} Serial;
int main() { setup(); for (;;) loop(); }
"""


def _outputs(printed: str, folder: Path) -> list[float]:
    """Integers as they were printed, or of the numbers that they stand for."""
    output = json.loads((folder / "export.json").read_text())["output"]
    reals = re.findall(r"^real (\S+)$", printed, re.MULTILINE)
    if reals:
        assert printed.endswith("5 us\n")
        return [float(x) / output["scale"] + output["zero_point"] for x in reals]
    return [float(x) for x in re.findall(r"^output \d+: (-?\d+)$", printed, re.MULTILINE)]


@needs_cmake
def test_cmake_installs_and_finds_the_package(
    packages: dict[str, Path], tmp_path: Path, zeros: list[int]
) -> None:
    """The commands of its README."""
    folder = tmp_path / "my_network_2"
    shutil.copytree(packages["cmake"], folder)
    readme = (folder / "README.md").read_text()
    commands = re.findall(r"^    (cmake .*)$", readme, re.MULTILINE)
    assert len(commands) == 4
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert _outputs(done.stdout, folder) == zeros


# What IDF and Zephyr give to the CMakeLists.txt of a component and of a module.
STAND_INS = """
function(idf_component_register)
  cmake_parse_arguments(G "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
  set(COMPONENT_LIB component PARENT_SCOPE)
  add_library(component STATIC ${G_SRCS})
  target_include_directories(component PUBLIC ${G_INCLUDE_DIRS})
endfunction()
macro(zephyr_library_named name)
  add_library(component STATIC)
endmacro()
macro(zephyr_library_sources)
  target_sources(component PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(component PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  target_include_directories(component PUBLIC ${ARGN})
endmacro()
"""


@needs_cmake
@pytest.mark.parametrize("kind", ["esp-idf", "zephyr"])
def test_cmake_reads_the_components_of_others(
    packages: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(all C)\n"
        f"{STAND_INS}set(CONFIG_MY_NETWORK_2 y)\n"
        f'add_subdirectory("{packages[kind]}" component)\n'
        "get_target_property(options component COMPILE_OPTIONS)\n"
        "get_target_property(sources component SOURCES)\n"
        'message(STATUS "found ${options} ${sources}")\n'
    )
    done = subprocess.run(
        ["cmake", "-S", ".", "-B", "build"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"^-- found -O2 (.*)$", done.stdout, re.MULTILINE)
    assert len(found.split(";")) == len(list((packages[kind] / "src").glob("*.c")))


def test_platformio_s_own_parser_takes_both_manifests(packages: dict[str, Path]) -> None:
    reason = "the package platformio is not installed"
    parser = pytest.importorskip("platformio.package.manifest.parser", reason=reason)
    schema = pytest.importorskip("platformio.package.manifest.schema", reason=reason)
    for kind in ("platformio", "arduino"):
        parsed = parser.ManifestParserFactory.new_from_dir(str(packages[kind])).as_dict()
        assert schema.ManifestSchema().load_manifest(parsed)["name"] == NAME


def test_idf_s_component_manager_takes_the_manifests(packages: dict[str, Path]) -> None:
    reason = "the package idf-component-manager is not installed"
    manager = pytest.importorskip("idf_component_tools.manager", reason=reason)
    for folder in (packages["esp-idf"], packages["esp-idf"] / "examples/run/main"):
        assert manager.ManifestManager(str(folder), NAME).validate().load()


def test_kconfig_takes_the_module_s_option(packages: dict[str, Path]) -> None:
    library = pytest.importorskip("kconfiglib", reason="the package kconfiglib is not installed")
    config = library.Kconfig(str(packages["zephyr"] / "Kconfig"))
    assert [symbol.name for symbol in config.unique_defined_syms] == ["MY_NETWORK_2"]
    assert config.warnings == []


@pytest.mark.parametrize("kind", PACKAGES)
def test_yaml_and_arduino_s_rules(packages: dict[str, Path], kind: str) -> None:
    """Arduino: https://docs.arduino.cc/arduino-cli/library-specification"""
    for path in packages[kind].rglob("*.y*ml"):
        yaml = pytest.importorskip("yaml", reason="the package PyYAML is not installed")
        assert yaml.safe_load(path.read_text())
    if kind == "arduino":
        text = (packages[kind] / "library.properties").read_text()
        fields = dict(line.split("=", 1) for line in text.splitlines())
        needed = "name version author maintainer sentence paragraph category url architectures"
        assert set(needed.split()) <= set(fields)
        assert re.fullmatch(r"[A-Za-z0-9][\w. -]{0,62}", fields["name"])
        assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
        assert fields["category"] == "Data Processing"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My-Network 2", NAME), ("2nd", "network_2nd"), ("network", "network_library"),
        ("test", "test_library"), ("Ärger", "rger"), ("--", "network_library"),
        ("a" * 99, "a" * 50),
    ],
)  # fmt: skip
def test_a_package_is_named_after_its_folder(folder: str, name: str) -> None:
    assert package_name(Path(folder), ["network.h", "network.c", "steps.c"]) == name


def test_a_target_leaves_out_what_its_processor_does_not_need(
    network: tuple[QuantizedNetwork, Data, IntegerGraph], tmp_path: Path
) -> None:
    quantized, data, graph = network
    target = find_target("cortex-m4")
    place = tmp_path / "m4"
    written = write_folder(graph, quantized, data, place, target=target, package="cmake")
    assert written.document["target"] == "cortex-m4"
    assert " ".join(target.flags) in (place / "CMakeLists.txt").read_text()
    assert not (place / "startup.c").exists()
    if ARM is not None:
        sources = map(str, (place / "src").glob("*.c"))
        words = [ARM, *target.flags, "-std=c99", "-fsyntax-only", *STRICT, f"-I{place}/src"]
        subprocess.run([*words, *sources], check=True)


def test_the_command_and_its_errors(
    network: tuple[QuantizedNetwork, Data, IntegerGraph],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    quantized, data, _ = network
    save_quantized(quantized, tmp_path / "quantized.pt")
    arrays: Any = {f"x{place}": x.numpy() for place, x in enumerate(data.inputs)}
    np.savez("data.npz", **arrays)
    command = "export quantized.pt --calibration data.npz -o out --package".split()
    assert run([*command, "zephyr"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "next: out/README.md says how to take it into Zephyr"

    def refused(*options: str) -> str:
        assert run([*command, *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "--board, --flash and --ram are of a firmware project" in refused(
        "cmake", "--ram", "9KB"
    )
    assert "--format tflm has no --package; it goes with c" in refused("cmake", "--format", "tflm")
    assert run([*command, "zephyr"]) == 0  # nothing was changed in it
    capsys.readouterr()
    Path("out/Kconfig").write_text("mine")
    assert "out/Kconfig was changed after the export" in refused("zephyr")
    assert run(["device", "run", "out", "--host", "local"]) == 2
    assert "export.json" in capsys.readouterr().err
    with pytest.raises(InputError, match="got the package 'conan'; expected one of arduino, "):
        export(quantized, "other", data=data, package="conan")
