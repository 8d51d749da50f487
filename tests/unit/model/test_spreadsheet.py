"""CSV files as spreadsheet programs, pandas and people write them."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ManifestInvalid
from model.spreadsheet import MAX_CELL, MAX_COLUMNS, column_name, names_classes, read_sheet
from tests.support.photos import KOREAN

CELLS = {"path": "a/1.jpg", "class": "Kia", "price": "19999"}
TABLE = "path,class,price\na/1.jpg,Kia,19999\n"


def cells(content: str | bytes) -> list[dict[str, str]]:
    data = content if isinstance(content, bytes) else content.encode()
    return [row.cells for row in read_sheet(data, "set.csv").rows]


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        "sep=;\n" + TABLE.replace(",", ";"),
        '"sep=,"\r\n' + TABLE.replace("\n", "\r\n"),
        "SEP=|\n" + TABLE.replace(",", "|"),
        "\ufeff" + TABLE,
        ("\ufeff" + TABLE).encode("utf-16-le"),
        ("\ufeff" + TABLE).encode("utf-16-be"),
        ("\ufeff" + TABLE.replace(",", "\t")).encode("utf-16-le"),
        " Path , CLASS,Price \n a/1.jpg , Kia , 19999 \n",
        TABLE + ",,\n ,\t, \n\n",
        ",,\n" + TABLE,
        "path,class,price,,\na/1.jpg,Kia,19999,,,,\n",
        ",path,class,price\n0,a/1.jpg,Kia,19999\n",
        '"path","class","price"\n"a/1.jpg","Kia","19999"\n',
        TABLE.rstrip("\n"),
        TABLE.replace("\n", "\r"),
    ],
    ids=[
        "commas", "semicolons", "tabs", "sep=;", "sep=, in quotes", "SEP=|", "BOM", "UTF-16", "UTF-16 big-endian",
        "Excel's Unicode text", "case and blanks", "empty rows at the end", "an empty row before the header",
        "delimiters at the end", "pandas' row numbers", "quotes", "no line end", "old line ends",
    ],
)  # fmt: skip
def test_every_dialect_gives_the_same_cells(content: str | bytes) -> None:
    assert cells(content) == [CELLS]


def test_cells_may_hold_delimiters_quotes_and_line_ends() -> None:
    (row,) = read_sheet(b'path;note\r\na.jpg;"one; two\r\nthree ""four"""\r\n', "set.csv").rows
    assert (row.line, row.cells) == (3, {"path": "a.jpg", "note": 'one; two\r\nthree "four"'})


def test_short_rows_are_filled_and_a_header_in_semicolons_may_hold_commas() -> None:
    assert cells("path;size, metres\na.jpg\nb.jpg;4,5\n") == [
        {"path": "a.jpg", "size,_metres": ""},
        {"path": "b.jpg", "size,_metres": "4,5"},
    ]


@pytest.mark.parametrize(
    ("headers", "path", "class_"),
    [
        ("path,class", "path", "class"),
        ("Filename,Label", "filename", "label"),
        ("image", "image", None),
        ("path,image,class,label", "path", "class"),
    ],
)
def test_the_columns_of_paths_and_classes_have_several_names(headers: str, path: str, class_: str | None) -> None:
    sheet = read_sheet(f"{headers}\n".encode(), "set.csv")
    assert (sheet.path_column, sheet.class_column) == (path, class_)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (" Price (EUR) ", "price_eur"),
        ("0-100 km/h", "0-100_km/h"),
        ("a=b", "a_b"),
        (KOREAN, KOREAN),
        ("कीमत", "कीमत"),
        ("()", ""),
    ],
)
def test_a_column_is_named_as_a_filter_can_write_it(header: str, name: str) -> None:
    assert column_name(header) == name


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (f"path,class\n{KOREAN}/1.jpg,{KOREAN}\n".encode("cp949"), 'it looks like cp949: save it as "CSV UTF-8"'),
        ("path,class\n日産/1.jpg,スカイライン\n".encode("cp932"), "it looks like cp932"),
        (TABLE.encode("utf-16-le"), "line 1: a NUL character"),
        (("\ufeff" + TABLE).encode("utf-16-le")[:-1], "is damaged or cut off"),
        (TABLE.encode() + b"b\0.jpg,Kia,5\n", "line 3: a NUL character"),
        (zipped("[Content_Types].xml", b"<Types/>"), r"is a spreadsheet \(.xlsx, .xls or .ods\) and no CSV file; save"),
        (zipped("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), "is a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "is a spreadsheet"),
        (zipped("a/1.jpg", b"x"), "is a zip and no CSV file; unpack it"),
        ("file name,make\n", 'has the columns "file name", "make"; it needs "path"'),
        ("a.jpg;Kia\nb.jpg;Kia\n", 'has the columns "a.jpg", "Kia"; it needs "path"'),
        ("file,image\n", 'has the columns "file", "image"; rename the one with the paths to "path"'),
        ("path,Price,price \n", 'has the column "price" twice'),
        ("path" + ",x" * MAX_COLUMNS, f"has {MAX_COLUMNS + 1} columns; the most are {MAX_COLUMNS}"),
        ("path,note\na.jpg," + "x" * (MAX_CELL + 1), f"line 2: a cell has more than {MAX_CELL} characters"),
        ("path,note\na.jpg," + "x" * 200_000, "line 2: field larger than field limit"),
        ("path,note\na.jpg,b,c\n", "line 2: 3 cells for 2 columns"),
        ('path,note\n\na.jpg,"b', "line 3: unexpected end of data"),
        ("sep=;\npath;note\na.jpg;b;c\n", "line 3: 3 cells for 2 columns"),
        ("", "has no columns"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(content: str | bytes, sentence: str) -> None:
    with pytest.raises(ManifestInvalid, match=rf"^set\.csv(,)? .*{sentence}"):
        cells(content)


@given(data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"path,{text}".encode()))
def test_any_bytes_are_a_sheet_or_refused(data: bytes) -> None:
    try:
        sheet = read_sheet(data, "set.csv")
    except ManifestInvalid:
        return
    assert all(row.cells.keys() == sheet.rows[0].cells.keys() for row in sheet.rows)


@pytest.mark.parametrize(
    ("content", "does"),
    [
        ("sep=;\nFile;Label\nnot;a;row\n".encode("utf-16"), True),
        ("Klasse;Bild\n".encode("cp949", "ignore"), False),
        (b"path,class\n\xff", True),
        (b"path,price\n", False),
        (b'"path,class', False),
        (b"", False),
    ],
)
def test_a_sheet_that_names_classes_is_known_by_its_header(content: bytes, does: bool) -> None:
    assert names_classes(content) is does


def test_a_sheet_may_be_bounded_in_rows() -> None:
    content = b"path\na\n\nb\n"
    assert len(read_sheet(content, "set.csv", max_rows=2).rows) == 2
    with pytest.raises(ManifestInvalid, match=r"^set\.csv has more than 1 rows"):
        read_sheet(content, "set.csv", max_rows=1)


@given(
    rows=st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2)),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_program_writes_is_read_back(rows: list[list[str]], delimiter: str, encoding: str) -> None:
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in [["path", "note"], *rows]]
    text = "\r\n".join(delimiter.join(row) for row in quoted)
    expected = [[cell.strip() for cell in row] for row in rows]
    assert [list(row.values()) for row in cells(text.encode(encoding))] == [row for row in expected if any(row)]
