"""`multipart/form-data`: the same files however the body is cut, and nothing but a refusal for the rest."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.edge_client.serving.http.multipart import (
    FileBegins,
    FileEnds,
    MultipartError,
    MultipartReader,
    boundary_of,
    media_type,
)

HEAD = b'Content-Disposition: form-data; name="file"; filename="DOE^JANE.png"\r\n\r\n'


def body_of(files, boundary=b"xyz", preamble=b""):
    parts = [b"--" + boundary + b"\r\n" + HEAD + content + b"\r\n" for content in files]
    return preamble + b"".join(parts) + b"--" + boundary + b"--\r\n"


def files_in(pieces, boundary=b"xyz"):
    """Return the files of a body that comes in pieces."""
    reader, files, whole = MultipartReader(boundary), [], 0
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, FileBegins):
                files.append(b"")
            elif isinstance(event, FileEnds):
                whole += 1
            else:
                files[-1] += event
    reader.finish()
    assert whole == len(files)
    return files


def cut(data, places):
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(ends)]


CONTENTS = st.lists(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"--xyz", b"\r\n--xy", b"a", b"\0"]), max_size=8
    ).map(b"".join).filter(lambda content: b"\r\n--xyz" not in b"\r\n" + content),
    min_size=1, max_size=4,
)  # fmt: skip


@given(CONTENTS, st.lists(st.integers(0, 1 << 16), max_size=12))
def test_files_come_out_as_they_went_in_however_the_body_is_cut(contents, places):
    assert files_in(cut(body_of(contents, preamble=b"before\r\n"), places)) == contents


@given(
    st.lists(
        st.sampled_from([b"--xyz", b"\r\n", b"--", HEAD, b"\r\n\r\n", b"-", b" ", b"data", b":", b"\xff"]),
        max_size=20,
    ).map(b"".join),
    st.lists(st.integers(0, 1 << 16), max_size=12),
)
def test_hostile_bodies_are_read_the_same_in_one_piece_and_in_many(data, places):
    def outcome(pieces):
        try:
            return files_in(pieces)
        except MultipartError as error:
            return str(error)

    assert outcome(cut(data, places)) == outcome([data])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (body_of([b"x"])[:-6], "not whole"),
        (b"", "not whole"),
        (b"no boundary at all", "not whole"),
        (b"--xyz junk\r\n", "followed by something else"),
        (b'--xyz\r\nContent-Disposition: form-data; name="explain"\r\n\r\n1\r\n--xyz--', "no file"),
        (b"--xyz\r\n\r\nx\r\n--xyz--", "no file"),
        (b"--xyz\r\nContent-Disposition\r\n\r\nx\r\n--xyz--", "without a colon"),
        (b"--xyz\r\n" + b"a" * 9000, "longer than"),
        (
            b"--xyz\r\nContent-Transfer-Encoding: base64\r\n" + HEAD + b"eA==\r\n--xyz--",
            "Content-Transfer-Encoding",
        ),
    ],
)
def test_what_is_no_list_of_files_is_refused(data, words):
    with pytest.raises(MultipartError, match=words):
        files_in([data])


def test_little_is_held_of_a_large_file():
    reader = MultipartReader(b"xyz")
    list(reader.feed(b"--xyz\r\n" + HEAD))
    for _ in range(100):
        (data,) = reader.feed(b"\r" * 10_000)
        assert len(data) > 9_900
    assert len(reader._held) < 100


@pytest.mark.parametrize(
    ("header", "kind", "parameters"),
    [
        ("image/png", "image/png", {}),
        ("Image/PNG ; a=b", "image/png", {"a": "b"}),
        ('multipart/form-data; boundary="a \\"b;c"', "multipart/form-data", {"boundary": 'a "b;c'}),
        ("multipart/form-data; boundary=a; boundary=b", "multipart/form-data", {"boundary": "a"}),
        ("nonsense", "", {}),
        ("", "", {}),
    ],
)
def test_a_media_type_is_read(header, kind, parameters):
    assert media_type(header) == (kind, parameters)


@given(st.text(max_size=80))
def test_a_boundary_is_refused_or_can_stand_in_a_body(text):
    try:
        boundary = boundary_of({"boundary": text})
    except MultipartError:
        return
    assert files_in([body_of([b"", b"x"], boundary)], boundary) == [b"", b"x"]
