"""Registries, and arguments from a config checked against a signature."""

from functools import partial

import pytest

from nrcg.errors import NrcgError
from nrcg.registry import Registry, call, load_module


@pytest.fixture
def shapes():
    registry = Registry("shape")

    @registry.register("ring")
    def ring(radius, width=1):
        return radius, width

    registry.register("any")(lambda **options: options)
    return registry


def test_a_section_names_a_thing_and_its_arguments(shapes):
    assert list(shapes) == ["ring", "any"] and "ring" in shapes and len(shapes) == 2
    assert shapes.build({"ring": {"radius": 2}}) == (2, 1)
    assert shapes.build("any") == shapes.build({"any": None}) == {} and shapes.build({"any": {"x": 1}}) == {"x": 1}
    assert shapes.choose("ring", given=1) is shapes["ring"]
    assert shapes.choose({"ring": {"width": 3}}, given=1)(7) == (7, 3)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("rink", "shape 'rink': unknown; use one of ring, any"),
        ("ring", "shape ring: no key radius; add it"),
        ({"ring": {"radius": 1, "widht": 2}}, "shape ring: unknown key widht; nearest are width"),
        ({"ring": [1]}, r"shape ring: \[1\]: give an object"),
        ({"ring": {}, "any": {}}, "shape .*: write a name, or"),
        ({"any": {1: 2}}, "shape any: unknown key 1"),
        ({("ring",): {}}, r"shape \('ring',\): unknown"),
        (None, "shape None: write a name"),
    ],
)
def test_a_section_that_cannot_be_is_one_line(shapes, section, message):
    with pytest.raises(NrcgError, match=f"^{message}"):
        shapes.build(section)


def test_a_name_is_taken_once(shapes):
    with pytest.raises(ValueError, match="'ring' is registered already"):
        shapes.register("ring")


def test_what_the_caller_gives_is_not_the_configs(shapes):
    assert call(shapes["ring"], "here", {"width": 2}, 5) == (5, 2)
    assert call(shapes["ring"], "here", {"radius": 5}, width=2) == (5, 2)
    for given in (
        partial(call, shapes["ring"], "here", {"radius": 1}, 5),
        partial(call, shapes["any"], "here", {"radius": 1}, radius=5),
    ):
        with pytest.raises(NrcgError, match=r"^here: unknown key radius"):
            given()


def test_a_file_is_imported_once_and_may_hold_dataclasses(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom nrcg.guidance import objectives\n"
        "@dataclass\nclass Thing:\n    x: int = 0\n"
        "@objectives.register('of_a_file')\ndef mine(logits, target):\n    return logits[:, 0]\n"
    )
    from nrcg.guidance import objectives

    monkeypatch.delitem(objectives, "of_a_file", raising=False)
    load_module(str(tmp_path / "mine.py"))
    monkeypatch.chdir(tmp_path)
    load_module("mine.py")
    assert "of_a_file" in objectives


@pytest.mark.parametrize(
    ("text", "reason"),
    [("1 / 0", "ZeroDivisionError"), ("import nowhere", "ModuleNotFoundError"), ("(", "SyntaxError")],
)
def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, text, reason):
    (tmp_path / "bad.py").write_text(text)
    for _ in range(2):
        with pytest.raises(NrcgError, match=rf"bad\.py: cannot be imported \({reason}"):
            load_module(str(tmp_path / "bad.py"))
    with pytest.raises(NrcgError, match="no such file"):
        load_module(str(tmp_path / "none.py"))
    with pytest.raises(NrcgError, match="module no_such_module: cannot"):
        load_module("no_such_module")
