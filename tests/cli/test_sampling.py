"""Options of the command that say what a sample is: as they are written, and as they are refused."""

from __future__ import annotations

import json

import pytest
from files import numbers, run_python, write_hdf5

from globidx import GlobalIndexManager
from globidx.cli import main


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command in this process."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["--window", "-1,0"], (-1, 0)),
        (["--window=-1,0"], (-1, 0)),
        (["--window", "-3"], -3),
        (["--window", "3"], 3),
        (["--window", "+2,5"], (2, 5)),
        (["--window", "-3:1"], (-3, -2, -1, 0)),
        (["--window", "0:7:3"], (0, 3, 6)),
        (["--window", "2:-1:-1"], (2, 1, 0)),
        (["--window", "x=-1,0"], {"x": (-1, 0)}),
        (["--window", "all"], "all"),
    ],
)
def test_offsets_as_they_are_written(tmp_path, capsys, options, offsets):
    """Numbers, lists and ranges, with minus signs, before the files or behind them."""
    path = write_hdf5(tmp_path / "a.h5", numbers(9))
    expected = GlobalIndexManager(path, key="x", sequences="file", window=offsets)
    rest = [path, "--key", "x", "--sequences", "file"]
    for arguments in ([*options, *rest], [*rest, *options]):
        value = json.loads(run(capsys, "index", "info", "--json", *arguments)[1])
        assert value["fingerprint"] == expected.fingerprint
        assert value["window"] == json.loads(json.dumps(expected.window.describe()))


def test_ids_behind_two_dashes_are_no_offsets(tmp_path, capsys):
    """What stands there belongs to no option."""
    path = write_hdf5(tmp_path / "a.h5", numbers(9))
    given = [path, "--sequences", "file", "--", "--window", "-1"]
    with pytest.raises(SystemExit) as exit_:
        main(["index", "locate", *given])
    assert exit_.value.code == 2 and "invalid int value: '--window'" in capsys.readouterr().err
    assert run(capsys, "index", "locate", path, "--sequences", "file", "--", "-1")[0] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "0:0"], "'0:0' has 0"),
        (["--window", "0:9:0"], "'0:9:0' has 0"),
        (["--window", "0:999999999999"], "from 1 to 1048576 rows"),
        (["--window", "0:1:2:3"], "rows are written 3, -1,0, 0:16, 0:16:2 or all, got '0:1:2:3'"),
        (["--window", "1,"], "got '1,'"),
        (["--window", "x=one"], "got 'one'"),
        (["--window", "=3"], "FIELD=VALUE, got '=3'"),
        (["--window", "x="], "FIELD=VALUE, got 'x='"),
        (["--window", "1", "--window", "2"], "--window: is given twice; give it once, or"),
        (["--window", "x=1", "--window", "x=2"], "--window: is given twice for field 'x'"),
        (["--window", "x=1", "--window", "2"], "--window: is given with a field and without"),
        (["--window", "1", "--window", "x=2"], "--window: is given with a field and without"),
        (["--window"], "--window: expected one argument"),
        (["--key", "x", "--key", "y=x"], "--key: is given with a field and without"),
        (["--key", "y=x", "--key", "y=z"], "--key: is given twice for field 'y'"),
        (["--axis", "x=one"], "--axis: must be an integer, got 'one'"),
        (["--axis", "1", "--axis", "0"], "--axis: is given twice"),
        (["--stride", "0"], "--stride: must be in [1, 1099511627776], got 0"),
        (["--stride", "two"], "--stride: must be an integer, got 'two'"),
        (["--pad", "wrap"], "invalid choice: 'wrap'"),
        (["--before", "-1"], "--before: must be in [0, 1099511627776], got -1"),
        (["--sequences", "a,b,c"], "STARTS,LENGTHS, as ep_offset,ep_len, got 'a,b,c'"),
        (["--sequences", "a,"], "STARTS,LENGTHS, as ep_offset,ep_len, got 'a,'"),
        (["--chain-by", "name"], "invalid choice: 'name'"),
    ],
)
@pytest.mark.parametrize("command", [["index", "info"], ["estimate", "--batch-size", "2"]])
def test_a_wrong_value_is_a_usage_error(tmp_path, capsys, command, options, said):
    """Exit code 2, the usage and one line on stderr, nothing on stdout."""
    path = write_hdf5(tmp_path / "a.h5", numbers(9))
    with pytest.raises(SystemExit) as exit_:
        main([*command, path, "--sequences", "file", *options])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and out == ""
    assert err.startswith("usage: globidx") and said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "0:2"], "is about sequences"),
        (["--only", "mask"], "is about sequences"),
        (["--sequences", "file", "--before", "2"], "before and after are for padded windows"),
        (["--sequences", "file", "--window", "y=1"], "the fields are ('x',)"),
        (["--sequences", "file", "--key", "z=x", "--window", "x=1"], "the fields are ('z',)"),
        (["--sequences", "file", "--window", "x=all"], "'all' is for all fields alike"),
        (["--sequences", "file", "--window", "all", "--stride", "2"], "takes each sequence as one"),
        (["--sequences", "file", "--axis", "y=1"], "axis names 'y', which is no field"),
        (["--sequences", "file", "--chain-by", "parent"], "chain_by is for sequences='chain'"),
        (["--sequences", "file", "--only", "mask"], "lists sequences inside a file"),
        (["--sequences", "match"], "there is no key: write data/*/name"),
        (["--sequences", "ends"], "ends"),
    ],
)
def test_options_that_do_not_fit_are_told_in_a_line(tmp_path, capsys, options, said):
    """Exit code 1 and the library's own words, whether the fields are named or found in the files."""
    path = write_hdf5(tmp_path / "a.h5", numbers(9))
    code, out, err = run(capsys, "index", "info", path, *options)
    assert (code, out) == (1, "") and said in err and "Traceback" not in err


def test_a_parser_needs_no_numpy():
    """``--help`` answers at once: arithmetic is imported by the command that needs it."""
    code = "import sys; from globidx import cli; cli._parser(); print('numpy' in sys.modules)"
    assert run_python(code).stdout == "False\n"
