"""Tables of pixel sizes: which file a line means, and which lines are refused."""

import unicodedata

import pytest

from hypervlad.data import ImageFolderError, ImageFolderWarning, load_image_folder, load_pixel_sizes


@pytest.fixture
def folder(tmp_path):
    for name in ("fibre/a.png", "fibre/b.png", "tube/ä.png", "tube/c d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def sizes_of(folder, text):
    (folder / "sizes.csv").write_text(text, encoding="utf-8")
    return load_pixel_sizes(folder / "sizes.csv")


@pytest.mark.parametrize("path", ["fibre/a.png", "fibre\\a.png", "./fibre/../fibre/a.png"])
def test_a_path_is_relative_to_the_table(folder, path):
    text = f"path,pixel_size,bar_length_px,bar_error_px\n{path},2.5,200,1\nfibre/b.png,\n"
    sizes = sizes_of(folder, f"{text}{path},2.50\n")
    assert len(sizes) == 1
    assert [sizes.error_of(folder / "fibre" / "a.png", used) for used in (2.5, 3)] == [0.01, 0]
    assert sizes.of(folder / "fibre" / "a.png") == 2.5
    assert sizes.of(str(folder / "tube" / ".." / "fibre" / "a.png")) == 2.5
    assert sizes.of(folder / "fibre" / "b.png") is None
    assert sizes.of(folder / "other" / "a.png") is None


def test_absolute_paths_links_and_accents(folder):
    (folder / "link").symlink_to(folder / "tube")
    name = unicodedata.normalize("NFD", "ä.png")
    sizes = sizes_of(folder, f"path,pixel_size\n{folder / 'tube' / 'c d.png'},1\nlink/{name},2\n")
    assert sizes.of(folder / "link" / "c d.png") == 1
    assert sizes.of(folder / "tube" / "ä.png") == 2


BAD = [
    ("", ": its columns are none; expected path and pixel_size"),
    ("path,size\nfibre/a.png,2", ": its columns are path, size; expected path and pixel_size"),
    ("path,pixel_size\nfibre/a.png,1\nfibre/b.png,two", ", line 3: 'two' is no pixel size"),
    *(
        (f"path,pixel_size\nfibre/a.png,{size}", f", line 2: '{size}' is no pixel size")
        for size in ("-1", "0", "nan", "0.0009", "1000001")
    ),
    ('path,pixel_size\nfibre/a.png,"2,5"', ", line 2: '2,5' is no pixel size; expected nano"),
    ("path,pixel_size\n,1", ", line 2: no path"),
    (
        "path,pixel_size,bar_length_px,bar_error_px\nfibre/a.png,1,2,1",
        r", line 2: \['2', '1'\] are no length of a bar",
    ),
    (
        "path,pixel_size\nfibre/a.png,1\ntube/../fibre/a.png,2",
        r", line 3: tube/\.\./fibre/a\.png has another pixel size in line 2",
    ),
    ("path,pixel_size\nx.png,1", ": no line is of a file that exists. Paths are relative to the"),
]


def test_what_is_refused_with_its_line(folder):
    for text, words in BAD:
        with pytest.raises(ImageFolderError, match=f"^{folder / 'sizes.csv'}{words}"):
            sizes_of(folder, text)
    assert len(sizes_of(folder, "path,pixel_size\nfibre/a.png,0.001\nfibre/b.png,1000000")) == 2


def test_sizes_that_are_not_used_are_named(folder):
    text = "path,pixel_size,proposed_pixel_size\nfibre/a.png,2.5,\nfibre/b.png,,3\nx.png,1,\n"
    with pytest.warns(ImageFolderWarning) as warned:
        sizes_of(folder, text)
    missing, proposed = (str(each.message) for each in warned)
    assert "1 line is of no file that exists: x.png (line 4)" in missing
    assert "1 pixel size is only proposed, and not used" in proposed
    sizes_of(folder, "path,pixel_size\nfibre/a.png,2.5\n")
    data = load_image_folder(folder, pixel_sizes=folder / "sizes.csv")
    assert [data.pixel_sizes.of(image) for image in data.images] == [2.5, None, None, None]
    assert load_image_folder(folder).pixel_sizes is None
    with pytest.warns(ImageFolderWarning):
        load_pixel_sizes(folder / "sizes.csv", [folder / "fibre" / "b.png"])
