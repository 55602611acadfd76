"""Aligned tables of text."""

from spe_dist.utils.tables import aligned, display_width, markdown, padded_cells


def test_names_stand_left_and_numbers_right():
    assert aligned([["", "count", "share"], ["Person", "1,200", "7%"], ["Org", "3", "12.5%"]]) == [
        "        count  share",
        "Person  1,200     7%",
        "Org         3  12.5%",
    ]


def test_last_sign_stands_for_all_further_columns():
    assert aligned([["a", "b", "c"], ["aaa", "bbb", "ccc"]], columns="<") == ["a    b    c", "aaa  bbb  ccc"]


def test_rule_follows_the_first_row():
    lines = aligned([["rank", "host"], ["0", "node-1"]], columns="><", rule=True)
    assert lines == ["rank  host", "----  ------", "   0  node-1"]


def test_short_rows_and_no_rows_are_taken():
    assert aligned([["types"], ["a", "1"]]) == ["types", "a      1"]
    assert aligned([]) == []


def test_wide_letters_take_two_places_and_combining_marks_none():
    assert display_width("人物") == 4
    assert display_width("cafe\u0301") == 4
    assert padded_cells([["人物", "1"], ["Person", "22"]]) == [["人物  ", " 1"], ["Person", "22"]]


def test_markdown_rule_marks_columns_of_numbers():
    assert markdown([["model", "F1"], ["SPE", "68.2"]]) == ["| model |   F1 |", "| ----- | ---: |", "| SPE   | 68.2 |"]
