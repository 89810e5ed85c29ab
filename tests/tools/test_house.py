"""The house stays as it is: numbers of its structure have limits, a little above what they are."""

from tests.tools import house

#: A number that grows past its limit says where the code becomes harder to read; raise a limit only
#: with a reason.
LIMITS = {
    # The words of the language, scripts, sets as values, pictures and the store brought both; so
    # did notes, with the voices that imp's renderer had, echo, room and ducking, and the doors for
    # editors and agents.
    "files": 250,
    "lines": 60_500,
    "class_names_twice": 0,
    "import_circles": 0,
    "package_circles": 0,
    # Two with over a dozen parameters, each explained on a line of its own.
    "long_functions": 2,
    # The table of controls and the mixer are among them.
    "long_files": 16,
    "readme_bytes": 10_000,
    # An edit and a session are of several files, each short enough to read.
    "apply_files": 38,
    "apply_functions": 235,
    "way_files": 70,
    "way_functions": 672,
}


def test_no_number_of_the_structure_is_past_its_limit():
    found = house.counts(house.HERE)
    assert found.keys() == LIMITS.keys()
    past = {name: (value, LIMITS[name]) for name, value in found.items() if value > LIMITS[name]}
    assert not past


def test_circles_are_components_of_more_than_one_node():
    graph = {
        "a": {"b"},
        "b": {"c"},
        "c": {"a", "d"},
        "d": {"e"},
        "e": set(),
        "f": {"g"},
        "g": {"f"},
    }
    assert sorted(house.circles(graph)) == [["a", "b", "c"], ["f", "g"]]


def test_imports_inside_functions_and_for_types_count(tmp_path):
    package = tmp_path / "demon_live"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from demon_live import b\n")
    (package / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from demon_live.a import f\n"
        "class X: ...\nclass X: ...\n"
    )
    of = house.modules(tmp_path)
    assert house.circles(house.import_graph(of)) == [["demon_live.a", "demon_live.b"]]
    assert house.twice(of) == {"X": ["demon_live.b", "demon_live.b"]}
