"""Sizes, seconds, counts, choices and dates: read whole, and refused by name. Text that is safe to print."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.units import (
    GiB,
    KiB,
    MiB,
    format_seconds,
    format_size,
    parse_choice,
    parse_count,
    parse_date,
    parse_seconds,
    parse_size,
    shorten,
)

SOURCE = "--gpu-leak-threshold"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1KB", 1000),
        ("1KiB", KiB),
        ("64MiB", 64 * MiB),
        ("64 mib", 64 * MiB),
        ("  64MIB ", 64 * MiB),
        ("1.5GB", 1_500_000_000),
        ("1.5GiB", 3 * GiB // 2),
        ("2TB", 2 * 10**12),
        ("1TiB", 1024 * GiB),
        ("0.5B", 0),
        ("9007199254740993", 9007199254740993),  # not by way of a float
        (17, 17),
        (0, 0),
    ],
)
def test_a_size_is_read_with_its_unit(text, size_bytes):
    assert parse_size(text, SOURCE) == size_bytes


MALFORMED_SIZES = [
    "",
    " ",
    "MiB",
    "10MBananas",
    "10 MiB extra",
    "-1",
    "-4MiB",
    "+4MiB",
    "1e3",
    "0x10",
    "1,5GB",
    "1.GB",
    ".5GB",
    "1..5GB",
    "1 000",
    "10iB",
    "10M",
    "inf",
    "nan",
    "10MiB\n10MiB",
    "٣MiB",
    -1,
    1.5,
    True,
    None,
    [],
    b"64MiB",
]


@pytest.mark.parametrize("value", MALFORMED_SIZES, ids=repr)
def test_what_is_no_size_is_refused_with_its_value_and_source(value):
    with pytest.raises(InputError) as refused:
        parse_size(value, SOURCE)
    assert str(refused.value).startswith(f"{SOURCE}: {value!r} is no size; write a number with B, KB, KiB")


@given(st.integers(0, 10**15), st.sampled_from(["", "B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_whole_sizes_are_read_exactly(number, unit):
    factor = parse_size(f"1{unit}", SOURCE)
    assert parse_size(f"{number}{unit}", SOURCE) == number * factor
    assert parse_size(f" {number} {unit.lower()} ", SOURCE) == number * factor


@given(st.integers(0, 2**50))
def test_a_written_size_reads_back_to_within_its_rounding(size_bytes):
    written = format_size(size_bytes)
    unit = parse_size("1" + written.split()[1], SOURCE)
    assert abs(parse_size(written, SOURCE) - size_bytes) <= 0.05 * unit + 1


@given(st.text())
def test_any_text_is_a_size_or_refused_by_name(text):
    try:
        assert parse_size(text, SOURCE) >= 0
    except InputError as error:
        assert SOURCE in str(error)
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KiB, "1.0 KiB"),
        (-3277, "-3.2 KiB"),
        (64 * MiB, "64.0 MiB"),
        (GiB, "1.0 GiB"),
        (-GiB, "-1.0 GiB"),
        (2048 * GiB, "2048.0 GiB"),
    ],
)
def test_sizes_are_written_for_people(size_bytes, text):
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "seconds"), [("10", 10.0), ("0.5", 0.5), ("2s", 2.0), (" 3 ", 3.0), ("0", 0.0), (4, 4.0), (0.25, 0.25)]
)
def test_seconds_are_read(value, seconds):
    assert parse_seconds(value, "--gpu-settle") == seconds


@pytest.mark.parametrize(
    "value", ["", "s", "ten", "-1", "inf", "nan", "1m", "1s s", "2ss", True, None, -0.5, []], ids=repr
)
def test_what_is_no_time_is_refused_with_its_value_and_source(value):
    with pytest.raises(InputError) as refused:
        parse_seconds(value, "--gpu-settle")
    assert str(refused.value) == f"--gpu-settle: {value!r} is no time; write seconds from 0 upwards, such as 10"


@given(st.floats(0, 1e6, allow_nan=False))
def test_seconds_read_back_as_they_were_written(seconds):
    assert parse_seconds(repr(seconds), "here") == seconds
    assert parse_seconds(f"{seconds!r}s", "here") == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.24, "1.24 s"), (61, "61.00 s"), (0.018, "18 ms"), (0.0004, "0.4 ms"), (0, "0.0 ms"), (0.9994, "999 ms")],
)
def test_seconds_are_written_for_people(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("value", "count"), [("0", 0), ("3", 3), (" 12 ", 12), (5, 5)])
def test_a_count_is_read(value, count):
    assert parse_count(value, "--gpu-leak-confirm") == count


@pytest.mark.parametrize("value", ["", "-1", "1.0", "two", "²", "٣", "1 2", -1, 1.0, True, None], ids=repr)
def test_what_is_no_count_is_refused_with_its_value_and_source(value):
    with pytest.raises(InputError) as refused:
        parse_count(value, "--gpu-leak-confirm")
    assert str(refused.value) == f"--gpu-leak-confirm: {value!r} is no count; write a whole number from 0 upwards"


@given(st.integers(0))
def test_counts_read_back_as_they_were_written(count):
    assert parse_count(str(count), "here") == count


def test_a_choice_is_one_of_its_words():
    assert parse_choice(" quick ", ("off", "quick"), "--gpu-clean") == "quick"


@pytest.mark.parametrize("value", ["", "Quick", "quick off", "fast", True, None, 1], ids=repr)
def test_what_is_no_choice_is_refused_with_its_value_source_and_the_choices(value):
    with pytest.raises(InputError) as refused:
        parse_choice(value, ("off", "quick"), "--gpu-clean")
    assert str(refused.value) == f"--gpu-clean: {value!r} is not one of off, quick"


@pytest.mark.parametrize(
    "value", ["2027-01-31", " 2027-01-31 ", dt.date(2027, 1, 31), dt.datetime(2027, 1, 31, 23, 59)], ids=repr
)
def test_a_date_is_read(value):
    day = parse_date(value, "until")
    assert (day, type(day)) == (dt.date(2027, 1, 31), dt.date)


@pytest.mark.parametrize(
    "value",
    ["", "2027-02-30", "2027-1-31", "20270131", "31.01.2027", "2027-W05-1", "2027-01-31T00:00", 2027, None],
    ids=repr,
)
def test_what_is_no_date_is_refused_with_its_value_and_source(value):
    with pytest.raises(InputError) as refused:
        parse_date(value, "until")
    assert str(refused.value) == f"until: {value!r} is no date; write year-month-day, such as 2027-01-31"


@given(st.dates())
def test_dates_read_back_as_they_were_written(day):
    assert parse_date(day.isoformat(), "until") == day


def test_what_a_terminal_would_obey_is_written_out():
    assert shorten("a\x1b[31m\r\n\tb\udc80\u202e\x7f", 100) == r"a\x1b[31m\r\n\tb\udc80\u202e\x7f"
    assert shorten("größe 模型", 100) == "größe 模型"
