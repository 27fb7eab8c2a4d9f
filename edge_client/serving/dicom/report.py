"""An answer as a DICOM Structured Report: Comprehensive SR with TID 1500, Measurement Report.

Comprehensive SR rather than Comprehensive 3D SR: it holds all that is said here, and more archives take it.
highdicom makes the content, and is imported when the first report is written: 20 MB that a service without
reports does without. What is around the content it could make as well, for 70 MB more, in twice the time, and
with warnings that quote the patient's name.
"""

import hashlib
import re
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from fedmedclip.edge_client.serving.answer import NOTICE, Answer, Result
from fedmedclip.edge_client.serving.dicom import quiet as quiet
from fedmedclip.edge_client.serving.dicom.identifiers import derived_uid, device_name, uid_of
from fedmedclip.edge_client.serving.dicom.instance import MANUFACTURER, SERIES_NUMBER, as_file, new_instance
from fedmedclip.edge_client.serving.dicom.wording import words_of

# The private coding scheme of class names and of what DICOM has no code for.
SCHEME = "99FEDMEDCLIP"
_LONGEST_MEANING = 64
# Each takes 10 ms and 4 kB; a cine may have thousands of frames.
MOST_GROUPS = 500
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")


def write_report(source: Dataset, answer: Answer) -> bytes | None:
    """Return the report as a file (PS3.10); `source` is what `read_source` returns.

    One measurement group for each image or frame that could be read; None where none could. The same answer
    gives the same bytes.
    """
    import highdicom.sr as sr
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    results = [result for result in answer.results if result.outcome != "unreadable"]
    if not results:
        return None
    groups = [_group(sr, source, answer, result) for result in results[:MOST_GROUPS]]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(sr, answer)),
        procedure_reported=CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
    )
    if len(results) > MOST_GROUPS:
        more = f"{len(results) - MOST_GROUPS} frames more were answered, which are not in this report"
        content[0].ContentSequence.append(_comment(sr, more))
    report = new_instance(
        source,
        answer,
        "report",
        sop_class=ComprehensiveSRStorage,
        modality="SR",
        series_number=SERIES_NUMBER,
    )
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ReferencedPerformedProcedureStepSequence = []
    report.PerformedProcedureCodeSequence = []
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence(source)]
    report.CodingSchemeIdentificationSequence = [_scheme()]
    report.update(content[0])
    return as_file(report)


def class_code(name: str) -> tuple[str, str]:
    """Return the code value and the meaning of a class name: 16 and at most 64 characters (SH and LO).

    The value is of the name's SHA-256, so it is the same wherever the class is called the same.
    """
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16], _meaning(name)


def _group(sr: Any, source: Dataset, answer: Answer, result: Result) -> Any:
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    def own(value: str, meaning: str) -> Any:
        return CodedConcept(value, SCHEME, meaning)

    evaluations = [sr.QualitativeEvaluation(own("outcome", "Outcome"), _outcome(own, result))]
    measurements = []
    if result.outcome == "answered":
        if result.label is not None:
            evaluations.append(
                sr.QualitativeEvaluation(own("answer", "Answer"), own(*class_code(result.label)))
            )
        for name in result.prediction_set or []:
            member = own("prediction-set", "In the prediction set")
            evaluations.append(sr.QualitativeEvaluation(member, own(*class_code(name))))
        for name, share in (result.probabilities or {}).items():
            # Not the class's own code: what is measured is its probability.
            value = f"P{class_code(name)[0][:15]}"
            concept = own(value, _meaning(f"Probability of {name}"))
            measurements.append(sr.Measurement(concept, round(share, 6), codes.UCUM.NoUnits))
        if result.prediction_set is not None and answer.level is not None:
            level = own("level", "Level of the prediction set")
            measurements.append(sr.Measurement(level, round(answer.level, 6), codes.UCUM.NoUnits))
    if result.distance is not None:
        distance = own("distance", "Distance from the training images over its limit")
        measurements.append(sr.Measurement(distance, round(result.distance, 6), codes.UCUM.NoUnits))
    what = "image" if result.frame is None else f"frame {result.frame}"
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid_of(answer, f"tracking {what}"), what),
        algorithm_id=_algorithm(sr, answer),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[
            sr.SourceImageForMeasurementGroup(
                source.SOPClassUID,
                source.SOPInstanceUID,
                None if result.frame is None else [result.frame],
            )
        ],
    )
    group[0].ContentSequence.append(_comment(sr, "\n".join(words_of(result, answer))))
    return group


def _comment(sr: Any, words: str) -> Any:
    from pydicom.sr.codedict import codes

    return sr.TextContentItem(codes.DCM.Comment, _text(words), sr.RelationshipTypeValues.CONTAINS)


def _outcome(own: Any, result: Result) -> Any:
    if result.outcome == "answered":
        return own("answered", "Answered")
    return own("unlike", "No answer: unlike the training images")


def _algorithm(sr: Any, answer: Answer) -> Any:
    """TID 4019: what answered, in a version that no other answers as."""
    source = answer.provenance
    heads = "zero-shot" if source.heads is None else f"heads {source.heads[:12]}"
    if source.head_version is not None:
        heads += f", head version {source.head_version}"
    parameters = {
        "model": source.model,
        "precision": source.precision,
        "bundle": source.bundle[:12],
        "method": source.method,
        "federation": source.federation,
        "site": source.site,
        "software": source.software,
        "notice": answer.notice or NOTICE,
    }
    return sr.AlgorithmIdentification(
        name=_text(f"fedmedclip-edge {source.model}"),
        version=_text(f"{heads}, bundle {source.bundle[:12]}, {source.software}"),
        parameters=[_text(f"{name} = {value}") for name, value in parameters.items() if value],
    )


def _observer(sr: Any, answer: Answer) -> Any:
    return sr.ObserverContext(
        observer_type=_device_type(),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid(device_name(answer)),
            name="FEDMEDCLIP",
            manufacturer_name=MANUFACTURER,
            model_name=_text(answer.provenance.software),
        ),
    )


def _device_type() -> Any:
    from pydicom.sr.codedict import codes

    return codes.DCM.Device


def _evidence(source: Dataset) -> Dataset:
    """The image, as a document names what it is about."""
    instance = Dataset()
    instance.ReferencedSOPClassUID = source.SOPClassUID
    instance.ReferencedSOPInstanceUID = source.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedSOPSequence = [instance]
    study = Dataset()
    study.StudyInstanceUID = source.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    return study


def _scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Classes and outcomes of fedmedclip-edge"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def _meaning(text: str) -> str:
    return _FORBIDDEN.sub("_", text)[:_LONGEST_MEANING].strip() or "_"


def _text(text: str) -> str:
    """A text of several lines as DICOM has it; a name of a class or a site may hold anything."""
    return "\r\n".join(_FORBIDDEN.sub("_", line) for line in text.split("\n"))
