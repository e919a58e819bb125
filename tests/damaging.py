"""Damaging good files at random, by what they are: bytes, JSON values, CSV cells, zip members."""

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 0.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 2**64, 10**40,
    -(10**40), "", "x", "\x1b[31m\n", "w4a8", "1", "sha256:0", [], {}, [1], [[]], ["a"], {"a": 1},
    [None], [1] * 50,
)  # fmt: skip
TEXTS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 5000, '"\\ud800"', "[" * 3000,
         '{"a":' * 3000, "[" * 90 + "]" * 90, "", "01", "'x'", "{", "\x00")  # fmt: skip
CELLS = ("", "-1", "nan", "inf", "1e400", "-0", "1e-320", "1e308", "9" * 30, "9" * 400, "9" * 5000,
         "x", "w4a8", '"', "\x00", "\u202e", "\x1b[31m", "=1+1", "1_0", " 5 ", "٣", "a\nb",
         "x" * 200_000)  # fmt: skip


def in_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, a piece cut out, doubled, zeroed or cut off."""
    data = bytearray(content)
    kind = rng.randrange(6)
    start = rng.randrange(len(data)) if data else 0
    length = rng.choice((1, 2, 8, 64, 1000))
    if kind == 0:
        for _ in range(rng.choice((1, 2, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        del data[start : start + length]
    elif kind == 3:
        data[start:start] = data[start : start + length]
    elif kind == 4:
        data[start : start + length] = bytes(len(data[start : start + length]))
    else:
        data[start : start + length] = rng.randbytes(length)
    return bytes(data)


def in_json(content: bytes, rng: random.Random) -> bytes:
    """A value replaced, doubled, moved or taken out, somewhere in the document."""
    document = json.loads(content)
    places = _places(document)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 2:
        holder[key] = copy.deepcopy(_value(rng.choice(places)))
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice(("a", "", "layers", "\x1b", "x" * 3000))] = holder.pop(key)
    elif kind == 4 and type(holder[key]) in (int, float):
        holder[key] = rng.choice(
            (-holder[key], holder[key] + 1, holder[key] * 1e9, holder[key] / 3)
        )
    elif kind == 5:
        holder[key] = "MARK"
        text = rng.choice(TEXTS)
        return json.dumps(document).replace('"MARK"', text, 1).encode("utf-8", "replace")
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(document).encode()


def in_csv(content: bytes, rng: random.Random) -> bytes:
    """A cell replaced, a line doubled or taken out, a column's name changed."""
    lines = content.decode().splitlines()
    line = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[line]
    elif kind == 1:
        lines.insert(line, rng.choice(lines))
    else:
        cells = lines[line].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(CELLS)
        lines[line] = ",".join(cells)
    return "\n".join(lines).encode() + b"\n"


def in_toml(content: bytes, rng: random.Random) -> bytes:
    """A value replaced, or a line doubled or taken out."""
    lines = content.decode().splitlines()
    line = rng.randrange(len(lines))
    values = ("-1", "nan", "inf", "1e400", "1e999999999", '""', "[]", "{}", "true", "9" * 400,
              '"\\u0000"', "1979-05-27", "[" * 2000, '"x"', "{ a = 1 }", "'''")  # fmt: skip
    if rng.random() < 0.2 or "=" not in lines[line]:
        lines[line : line + 1] = rng.choice(([], [lines[line]] * 2, ["[a"], ["x = 1"]))
    else:
        lines[line] = f"{lines[line].partition('=')[0]}= {rng.choice(values)}"
    return "\n".join(lines).encode() + b"\n"


def in_zip(inner: dict[str, Mutator]) -> Mutator:
    """Flags, names, kinds and contents of members; `inner` by the end of a member's name."""

    def damage(content: bytes, rng: random.Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(list(members))
        kind = rng.randrange(8)
        if kind == 0:
            del members[name]
        elif kind == 1:
            members[rng.choice(("../x.npy", "x", "y.npy", "\u202e.npy"))] = members[name]
        elif kind == 2:
            members[rng.choice(list(members))] = members[name]
        elif kind == 3:
            return _in_directory(content, rng)
        elif members[name]:
            ending = next((end for end in inner if name.endswith(end)), None)
            mutator = inner[ending] if ending is not None else in_bytes
            members[name] = mutator(members[name], rng)
        return packed(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))

    return damage


def packed(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of members by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _in_directory(content: bytes, rng: random.Random) -> bytes:
    """One field of an entry of the central directory, which is what readers believe."""
    data = bytearray(content)
    places = [at for at in range(len(data) - 46) if data[at : at + 4] == b"PK\x01\x02"]
    at = rng.choice(places)
    field, width = rng.choice(
        ((8, "H"), (8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H"), (42, "I"))
    )
    values = (0, 1, 9, 12, 14, 99, 0x800, 0x801, 0xFFFF)
    struct.pack_into(f"<{width}", data, at + field, rng.choice(values))
    if rng.random() < 0.3:
        struct.pack_into("<H", data, at + 8, 0x800)
        data[at + 46] = 0xFF  # a name that says it is UTF-8 and is not
    return bytes(data)


def in_npy(content: bytes, rng: random.Random) -> bytes:
    """The header of an array: another shape or type, or no literal at all."""
    if rng.random() < 0.3:
        return in_bytes(content, rng)
    length = struct.unpack_from("<H", content, 8)[0]
    header = content[10 : 10 + length].decode("latin-1")
    old = rng.choice(("'shape': (", "'descr': '", "'fortran_order': "))
    new = rng.choice(("9" * 30 + ", ", "-1, ", "(" * 200, "1e400, ",
                      "0, " * 40, "<U9999999", "|O", "<f16",
                      ">f4", "|V9", "<M8[s]", "True", "__import__('os'), ", "9999999999, 0, ",
                      "<c8", "<f2", "<i8", "|b1"))  # fmt: skip
    changed = header.replace(old, old + new, 1).encode("latin-1")
    return content[:8] + struct.pack("<H", len(changed)) + changed + content[10 + length :]


def in_lines(content: bytes, rng: random.Random) -> bytes:
    """A line of a journal replaced by something that was never written."""
    lines = content.splitlines(keepends=True)
    line = rng.randrange(len(lines))
    lines[line] = rng.choice((b"\n", b"1\n", b"[1, 2, 3]\n", b'["a", null]\n', b"[" * 3000 + b"\n",
                              b"x", b"\x00\n", lines[line][1:], lines[line] * 2))  # fmt: skip
    return b"".join(lines)


def in_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Its header is JSON with its length before it."""
    length = struct.unpack_from("<Q", content)[0]
    if rng.random() < 0.3:
        return struct.pack("<Q", rng.choice((0, 1, 2**40, 2**63, length + 8))) + content[8:]
    header = in_json(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        holder = todo.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        for key in keys[:40]:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                todo.append(holder[key])
    return found


def _value(place: tuple[Any, Any]) -> Any:
    holder, key = place
    return holder[key]
