"""Keys of files with many images, from what their metadata list."""

from __future__ import annotations

import json

import pytest
import zarr
from files import numbers

from globidx import GlobalIndexManager
from globidx.disk.stores.ome import key_of, level_0


def image(level="0"):
    return {"multiscales": [{"datasets": [{"path": level}, {"path": "half"}]}]}


def well(*fields):
    return {"well": {"images": [{"path": field} for field in fields]}}


def plate(*wells):
    return {"plate": {"wells": [{"path": path} for path in wells]}}


#: Two wells of a plate, and one that was left out by its microscope.
PLATE = {
    "": plate("C/3", "A/1", "B/12"),
    "C/3": well(),
    "A/1": well("0", "7"),
    "B/12": well("0"),
    "A/1/0": image(),
    "A/1/7": image(),
    "B/12/0": image(),
}
SERIES = {"": {"bioformats2raw.layout": 3}, "OME": {}, "0": image(), "1": image()}


def key(groups, version="0.4", absent=()):
    """The key of a file with these attributes by group, whose images have all arrays but the ``absent``."""
    told = groups if version == "0.4" else {path: {"ome": one} for path, one in groups.items()}
    return key_of(lambda path: told.get(path, {}), lambda path: path not in absent)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_all_images_have_one_key(version):
    """As deep as a plate or a file of series goes, to their full resolution."""
    assert key(PLATE, version) == "*/*/*/0"
    assert key(SERIES, version) == "*/0"
    assert key(SERIES | {"OME": {"series": ["0", "1"]}}, version) == "*/0"
    renamed = {path: image("s0") if path.count("/") == 2 else one for path, one in PLATE.items()}
    assert key(renamed, version) == "*/*/*/s0"


@pytest.mark.parametrize("attributes", [image(), {}, {"plate": 5}, {"ome": "0.5"}, {"well": {}}])
def test_other_files_have_none(attributes):
    """One image, a group of anything, a well by itself."""
    assert key({"": attributes}) is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"": {"plate": {}}}, "does not lead to wells with images"),
        ({"": {"plate": {"wells": 5}}}, "does not lead to wells with images"),
        ({"": plate("gone")}, "does not lead to wells with images"),
        ({"A/1": {"well": {"images": [{}]}}}, "does not lead to wells with images"),
        ({"": plate()}, "without any image"),
        ({"": plate("C/3")}, "without any image"),
        ({"": {"bioformats2raw.layout": 3}, "0": {}}, "without any image"),
        ({"A/1": well("0", "8")}, "it has no image 'A/1/8', which its metadata list"),
        ({"B/12/0": {}}, "it has no image 'B/12/0'"),
        ({"B/12/0": image("s0")}, "differently: '0' in 'A/1/0', 's0' in 'B/12/0'"),
        ({"": plate("A"), "A": well("0"), "A/0": image()}, "'A/0' does not lie 3 groups deep"),
    ],
)
def test_a_file_that_lists_what_one_key_does_not_find(version, changes, message):
    """Refused, whichever image it is: none is left out in silence."""
    with pytest.raises(ValueError, match=message):
        key(PLATE | changes, version)


def test_an_image_whose_array_is_gone():
    """Its metadata are there alone."""
    with pytest.raises(ValueError, match="it has no image 'A/1/7'"):
        key(PLATE, absent={"A/1/7/0"})


@pytest.mark.parametrize(
    "scales", [5, [], [{}], [{"datasets": []}], [{"datasets": [{"path": 5}]}], "x", {"a": 1}]
)
def test_what_is_no_image_has_no_level(scales):
    """Whatever stands in its attributes."""
    assert level_0({"multiscales": scales}) is None
    assert level_0({"ome": {"multiscales": scales}}) is None


def test_a_damaged_plate_is_told_with_its_file(tmp_path):
    """As any file that cannot be indexed."""
    (tmp_path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (tmp_path / ".zattrs").write_text(json.dumps(plate("A/1")))
    with pytest.raises(ValueError, match=f"{tmp_path}.*does not lead to wells with images"):
        GlobalIndexManager([tmp_path], layout="ome")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_plate_with_the_metadata_of_all_its_groups_in_one_file(tmp_path):
    """Consolidated, as zarr 3 does it: of megabytes."""
    root = zarr.create_group(tmp_path / "p.zarr")
    for path, attributes in PLATE.items():
        group = root.require_group(path) if path else root
        group.attrs.update({"ome": attributes, "notes": "." * 300_000})
        if level_0(attributes):
            group.create_array("0", data=numbers(2))
    zarr.consolidate_metadata(tmp_path / "p.zarr")
    assert (tmp_path / "p.zarr/zarr.json").stat().st_size > 2**20
    manager = GlobalIndexManager(tmp_path / "p.zarr", layout="ome")
    assert list(manager.sequences.names) == ["A/1/0", "A/1/7", "B/12/0"]
