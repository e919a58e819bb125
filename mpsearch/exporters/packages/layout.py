"""`mpsearch export --package`: the C files as a library of an ecosystem, by its own rules.

A package is one folder: the C files in `src/`, the ecosystem's manifests, an example, a README.
What stands in them is in `templates/`; here is which goes where.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError, did_you_mean

PACKAGE_FORMAT = "mpsearch.c_package"
SOURCES = "src"
_LONGEST = 50
# Targets that CMake has itself, and names of the examples.
_TAKEN = frozenset(
    "all clean depend edit_cache help install list_install_components m main package "
    "package_source rebuild_cache run test".split()
)


@dataclass(frozen=True)
class Package:
    """title: of the ecosystem. files: path in the package -> template. how: lines of the README.
    main: the head of the example's main function; returns: whether it ends with a number."""

    title: str
    files: Mapping[str, str]
    how: str
    main: str = "int main(void)"
    returns: bool = True


PACKAGES: Mapping[str, Package] = {
    "arduino": Package(
        "the Arduino IDE",
        {
            "library.properties": "arduino/library.properties",
            "examples/run/run.ino": "arduino/run.ino",
        },
        """Copy this folder as `@NAME@` into the `libraries` folder of your sketchbook (or zip it
and take Sketch > Include Library > Add .ZIP Library); the example is `run`. Before you publish it,
write your name and address into `library.properties`.
""",
    ),
    "esp-idf": Package(
        "ESP-IDF",
        {
            "CMakeLists.txt": "esp-idf/CMakeLists.txt",
            "idf_component.yml": "esp-idf/idf_component.yml",
            "examples/run/CMakeLists.txt": "esp-idf/example.CMakeLists.txt",
            "examples/run/main/CMakeLists.txt": "esp-idf/main.CMakeLists.txt",
            "examples/run/main/idf_component.yml": "esp-idf/main.idf_component.yml",
            "examples/run/main/main.c": "example.c.template",
        },
        """A component: copy this folder as `components/@NAME@` of your project, or name it in
`main/idf_component.yml` with `override_path`, as the example does:

    idf.py -C examples/run set-target esp32s3 build flash monitor
""",
        "void app_main(void)",
        returns=False,
    ),
    "zephyr": Package(
        "Zephyr",
        {
            "zephyr/module.yml": "zephyr/module.yml",
            "CMakeLists.txt": "zephyr/CMakeLists.txt",
            "Kconfig": "zephyr/Kconfig",
            "samples/run/CMakeLists.txt": "zephyr/sample.CMakeLists.txt",
            "samples/run/prj.conf": "zephyr/prj.conf",
            "samples/run/sample.yaml": "zephyr/sample.yaml",
            "samples/run/src/main.c": "example.c.template",
        },
        """A module: name this folder in `EXTRA_ZEPHYR_MODULES`, or as a project of your west
manifest, and set `CONFIG_@SYMBOL@=y`:

    west build -b YOUR_BOARD samples/run -- -DEXTRA_ZEPHYR_MODULES=$PWD
""",
    ),
    "platformio": Package(
        "PlatformIO",
        {
            "library.json": "platformio/library.json",
            "examples/run/platformio.ini": "platformio/platformio.ini",
            "examples/run/src/main.cpp": "arduino/run.ino",
        },
        """A library: copy this folder as `lib/@NAME@` of your project, or name it in `lib_deps`, as
the example does:

    pio run -d examples/run
""",
    ),
    "cmake": Package(
        "CMake",
        {
            "CMakeLists.txt": "cmake/CMakeLists.txt",
            "example/CMakeLists.txt": "cmake/example.CMakeLists.txt",
            "example/main.c": "example.c.template",
        },
        """A package: `add_subdirectory` of this folder, or `FetchContent`, or installed:

    cmake -S . -B build && cmake --build build
    cmake --install build --prefix build/installed
    cmake -S example -B build/example -DCMAKE_PREFIX_PATH=$PWD/build/installed
    cmake --build build/example && build/example/run

and in your `CMakeLists.txt` `find_package(@NAME@ REQUIRED)` and
`target_link_libraries(YOURS PRIVATE @NAME@::@NAME@)`.
""",
    ),
}


def check_package(package: str, *of_firmware: object) -> None:
    """Raise InputError for an ecosystem that is not known, and for what is of firmware alone."""
    if package not in PACKAGES:
        close = did_you_mean(package, PACKAGES)
        known = ", ".join(PACKAGES)
        raise InputError(f"got the package {package!r}{close}; expected one of {known}")
    if any(value is not None for value in of_firmware):
        raise InputError(
            "--board, --flash and --ram are of a firmware project, and --package writes a library; "
            "leave them out"
        )


def package_name(folder: Path, contents: Iterable[str]) -> str:
    """The folder's own name in small letters, digits and underscores, as every ecosystem takes it.

    `My-Network 2` -> `my_network_2`; `2nd` -> `network_2nd`; `network`, as a file of `contents` and
    a target of CMake may be called, -> `network_library`.
    """
    name = re.sub(r"[^a-z0-9]+", "_", folder.absolute().name.lower()).strip("_")
    name = name if name[:1].isalpha() else f"network_{name}".rstrip("_")
    taken = {Path(each).stem for each in contents} | _TAKEN
    return f"{name}_library" if name in taken else name[:_LONGEST].rstrip("_")


def arrange(
    package: str,
    name: str,
    contents: Mapping[str, bytes],
    compiled: Iterable[str],
    flags: Iterable[str],
    document: Mapping[str, Any],
) -> dict[str, bytes]:
    """The files of a package by path: those of `contents` that are C, and the ecosystem's own.

    compiled: the C files of a firmware, without a main function. flags: of the compiler.
    """
    compiled = sorted(compiled)
    kept = [each for each in contents if each in compiled or each.endswith(".h")]
    words = _words(name) | {
        "SOURCES": "\n".join(f"    {SOURCES}/{each}" for each in compiled),
        "FLAGS": " ".join(flags),
        "DESCRIPTION": f"Made by mpsearch {document['mpsearch']}: "
        f"{sum(document['constant_bytes'].values())} bytes of constants, "
        f"{document['arena']['peak_bytes']} bytes of tensors.",
        "MAIN": PACKAGES[package].main,
        "RETURN": "    return 0;\n" if PACKAGES[package].returns else "",
    }
    found = {f"{SOURCES}/{each}": contents[each] for each in kept}
    written = {f"{SOURCES}/{name}.h": "wrapper.h.template", **PACKAGES[package].files}
    for path, template in written.items():
        found[path] = _filled(_template(template), words).encode()
    return found


def how_to_take(package: Mapping[str, str]) -> str:
    """The README's lines about the ecosystem, for `package` of export.json."""
    kind = PACKAGES[package["kind"]]
    return f"## In {kind.title}\n\n{_filled(kind.how, _words(package['name']))}\n"


def _words(name: str) -> dict[str, str]:
    symbol = name.upper()
    return {"NAME": name, "SYMBOL": symbol, "GUARD": f"{symbol}_H"}


def _template(name: str) -> str:
    return (files("mpsearch.exporters.packages") / "templates" / name).read_text("utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
