"""Reports and secondary captures: what they say, whose they are, and that a viewer's library reads them."""

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from fedmedclip.edge_client.serving.answer import Explanation, Result
from fedmedclip.edge_client.serving.dicom.report import class_code, write_report
from fedmedclip.edge_client.serving.dicom.secondary_capture import write_secondary_capture
from fedmedclip.edge_client.serving.dicom.source import read_source, take_over
from fedmedclip.edge_client.serving.outlet import DeliveryError
from tests.conftest import missing
from tests.edge_client.images.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from tests.edge_client.serving.dicom.examples import answer_of, glioma, image_file

UNLIKE = Result(outcome="unlike the training images", distance=1.75)
UNREADABLE = Result(outcome="unreadable", frame=2, reason="truncated")
OF_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
)
TAKEN_OVER = (*OF_TYPE_2, "AccessionNumber", "ReferringPhysicianName", "StudyInstanceUID")


@pytest.fixture
def source_of(tmp_path):
    def read(content):
        path = tmp_path / "source.dcm"
        path.write_bytes(content)
        return read_source(path)

    return read


def read(content):
    return pydicom.dcmread(io.BytesIO(content))


def written_again(source):
    """What is left of patient and study when they were taken over, written and read."""
    target = pydicom.Dataset()
    take_over(source, target)
    with io.BytesIO() as file:
        target.save_as(file, implicit_vr=False, little_endian=True)
        return pydicom.dcmread(io.BytesIO(file.getvalue()), force=True)


def items(report, kind=None):
    """All content items below the root, depth first."""
    found = []
    for item in report.get("ContentSequence", []):
        found += [item] if kind in (None, item.ValueType) else []
        found += items(item, kind)
    return found


def numbers(report):
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in items(report, "NUM")
    }


def codes(report):
    return [
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.ConceptCodeSequence[0].CodeMeaning)
        for item in items(report, "CODE")
    ]


def texts(report):
    return "\n".join(item.TextValue for item in items(report, "TEXT"))


def test_an_answer_is_a_measurement_report_in_the_same_study(source_of):
    content = image_file()
    original, report = read(content), read(write_report(source_of(content), answer_of()))
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    for keyword in TAKEN_OVER:
        assert report[keyword].value == original[keyword].value, keyword
    assert report.SeriesInstanceUID != original.SeriesInstanceUID
    assert numbers(report) == {
        "Probability of glioma": 0.875,
        "Probability of healthy": 0.125,
        "Level of the prediction set": 0.9,
        "Distance from the training images over its limit": 0.5,
    }
    measured = [item.MeasuredValueSequence[0] for item in items(report, "NUM")]
    units = {value.MeasurementUnitsCodeSequence[0].CodeValue for value in measured}
    assert units == {"1"}
    assert ("Answer", "glioma") in codes(report)
    assert ("In the prediction set", "glioma") in codes(report)
    [image] = items(report, "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
    said = texts(report)
    for words in ("Research use only; not for diagnosis", "head version 12", "abababababab", "ViT-B-16"):
        assert words in said
    assert report.VerificationFlag == "UNVERIFIED"


def test_what_is_unlike_the_training_images_has_no_probabilities(source_of):
    report = read(write_report(source_of(image_file()), answer_of(UNLIKE)))
    assert list(numbers(report)) == ["Distance from the training images over its limit"]
    assert ("Outcome", "No answer: unlike the training images") in codes(report)
    assert not [value for name, value in codes(report) if name == "Answer"]
    assert "No answer: unlike the training images" in texts(report)


def test_each_frame_that_was_read_is_a_group_and_what_was_not_read_is_no_report(source_of):
    source = source_of(image_file(NumberOfFrames="3"))
    report = read(write_report(source, answer_of(glioma(frame=1), UNREADABLE, glioma(frame=3))))
    frames = [int(item.ReferencedSOPSequence[0].ReferencedFrameNumber) for item in items(report, "IMAGE")]
    assert frames == [1, 3]
    assert write_report(source, answer_of(UNREADABLE)) is None


def test_of_very_many_frames_a_report_holds_the_first_and_says_so(source_of, monkeypatch):
    monkeypatch.setattr("fedmedclip.edge_client.serving.dicom.report.MOST_GROUPS", 2)
    answer = answer_of(*(glioma(frame=number) for number in range(1, 6)))
    report = read(write_report(source_of(image_file(NumberOfFrames="5")), answer))
    assert len(items(report, "IMAGE")) == 2
    assert "3 frames more were answered" in texts(report)


def test_the_same_answer_gives_the_same_bytes_and_another_other_uids(source_of):
    source, answer = source_of(image_file()), answer_of()
    assert write_report(source, answer) == write_report(source, answer)
    pixels = np.zeros((24, 32, 3), np.uint8)
    assert write_secondary_capture(source, answer, pixels) == write_secondary_capture(source, answer, pixels)
    first, second = (read(write_report(source, one)) for one in (answer, answer_of()))
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_reports_on_a_series_are_one_series_and_stand_where_their_images_do(source_of):
    pixels = np.zeros((24, 32, 3), np.uint8)

    def made(number, write=write_report, **changed):
        source = source_of(image_file(number=number, InstanceNumber=f"{number} ", **changed))
        return read(write(source, answer_of(), *[pixels][: write is not write_report]))

    reports = [made(3), made(4)]
    assert [report.InstanceNumber for report in reports] == [3, 4]
    assert len({report.SeriesInstanceUID for report in reports}) == 1
    others = [made(3, SeriesInstanceUID="1.2.9"), made(3, StudyInstanceUID="1.2.8")]
    others.append(made(3, write_secondary_capture))
    assert len({report.SeriesInstanceUID for report in (*reports, *others)}) == 4
    assert made(5, SeriesInstanceUID="1.2.9").StudyInstanceUID == reports[0].StudyInstanceUID


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_the_header_is_read_in_every_native_syntax(source_of, syntax):
    assert source_of(image_file(syntax)).PatientName == "PLANTED^Zyxwvut"


@pytest.mark.parametrize(
    ("character_set", "written", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
    ],
)
def test_names_in_other_character_sets_arrive_as_utf_8(source_of, character_set, written, name):
    source = source_of(image_file(SpecificCharacterSet=character_set, PatientName=written))
    taken = written_again(source)
    assert taken.SpecificCharacterSet == "ISO_IR 192"
    assert str(taken.PatientName) == name


@pytest.mark.parametrize(
    "changed",
    [
        {"PatientID": None, "PatientName": None, "PatientBirthDate": None, "PatientSex": None},
        {"PatientID": "", "PatientName": "", "PatientSex": "X", "PatientBirthDate": "1947-08-15"},
        {"SpecificCharacterSet": "NO_SUCH_SET", "PatientName": b"\xff\xfe^\x80"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": b"\xff\xfe^\x80"},
        {"StudyDate": "yesterday", "StudyTime": "25h", "PatientSex": "MALE"},
        {"PatientID": "A" * 200, "PatientName": "B" * 300, "StudyDescription": "C" * 500},
        {"PatientName": "A\\B", "PatientID": "1\\2"},
        {"StudyDate": None, "StudyTime": None, "StudyID": None, "AccessionNumber": None},
        {"PatientName": ("UN", b"Odd^Name"), "PatientAge": "??", "PatientWeight": "heavy"},
        {"PatientName": b"\x1b$)C\x00\x01\x02=x"},
    ],
)
def test_an_odd_header_is_taken_over_as_far_as_it_goes(source_of, changed):
    taken = written_again(source_of(image_file(**changed)))
    assert taken.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.77"
    assert all(keyword in taken for keyword in OF_TYPE_2), "of type 2: there, if empty"
    if identifier := changed.get("PatientID"):
        assert "\\".join(np.atleast_1d(taken["PatientID"].value)) == identifier


def test_what_highdicom_thinks_of_a_name_is_not_asked(source_of, recwarn):
    source = source_of(image_file(PatientName="PLANTED", ReferringPhysicianName="A\\B"))
    assert str(read(write_report(source, answer_of())).PatientName) == "PLANTED"
    assert not [warning for warning in recwarn if "PLANTED" in str(warning.message)]


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_without_a_uid_to_refer_to_the_report_is_put_aside_with_the_reason(source_of, keyword):
    with pytest.raises(DeliveryError, match=f"the image has no {keyword}") as raised:
        source_of(image_file(**{keyword: None}))
    assert raised.value.permanent


def test_a_file_that_is_none_is_put_aside_without_its_words(source_of):
    with pytest.raises(DeliveryError, match="header") as raised:
        source_of(b"\x08\0\x05\0PLANTED")
    assert "PLANTED" not in str(raised.value)


def test_any_class_name_has_a_code(source_of):
    names = ["glioma", "a\\b", "x" * 100, "腫瘍", "line\nbreak", "\udcff", "=^", " "]
    for value, meaning in map(class_code, names):
        assert len(value) == 16
        assert 0 < len(meaning) <= 64
    shares = dict.fromkeys(names, 0.125)
    result = Result(outcome="answered", label=names[3], probabilities=shares, prediction_set=names)
    report = read(write_report(source_of(image_file()), answer_of(result)))
    assert ("Answer", "腫瘍") in codes(report)
    assert len(numbers(report)) == len(names) + 1


def test_highdicom_reads_the_report_as_it_would_have_written_it(source_of):
    from highdicom.sr import ComprehensiveSR

    report = ComprehensiveSR.from_dataset(read(write_report(source_of(image_file()), answer_of())))
    [group] = report.content.get_image_measurement_groups()
    assert {one.name.meaning: one.value for one in group.get_measurements()}["Probability of glioma"] == 0.875
    assert [evidence[2] for evidence in report.get_evidence()] == ["1.2.826.0.1.3680043.8.498.1"]


def test_dcmtk_reads_the_report_without_a_complaint(source_of, tmp_path):
    if (dsrdump := shutil.which("dsrdump")) is None:
        missing("no dsrdump: apt-get install dcmtk")
    path = tmp_path / "report.dcm"
    path.write_bytes(write_report(source_of(image_file()), answer_of(glioma(frame=2), UNLIKE)))
    done = subprocess.run([dsrdump, "-Er", "-Ev", path], capture_output=True, text=True, check=True)
    faults = [line for line in done.stderr.splitlines() if "VR checker" not in line]
    assert not faults
    assert '"Probability of glioma")="0.875"' in done.stdout


def test_the_secondary_capture_shows_image_answer_and_regions(source_of):
    pixels = np.full((24, 32, 3), 128, np.uint8)
    regions = Explanation("occlusion", [[0.0, 1.0], [0.0, 0.0]], 1.0)
    source = source_of(image_file())
    plain = read(write_secondary_capture(source, answer_of(), pixels))
    shown = read(write_secondary_capture(source, answer_of(glioma(explanation=regions)), pixels))
    for picture in (plain, shown):
        assert picture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert picture.StudyInstanceUID == source.StudyInstanceUID
        assert picture.PatientName == "PLANTED^Zyxwvut"
        assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    array = plain.pixel_array
    side = plain.Columns * 24 // 32
    assert (array[: side - 5, : plain.Columns - 5] == 128).all()
    assert (array[side:] > 200).any(), "writing"
    heat = shown.pixel_array
    assert shown.Columns == 2 * plain.Columns
    upper_right = heat[5, -5].astype(int)
    lower_left = heat[side - 5, plain.Columns + 5].astype(int)
    assert upper_right[0] - upper_right[1] > 80
    assert abs(lower_left[0] - lower_left[1]) < 20
