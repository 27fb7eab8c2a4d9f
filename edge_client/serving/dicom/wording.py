"""An answer in a few lines for a person, in English."""

from fedmedclip.edge_client.inference.regions import LEAST_LOSS, SAYS_LITTLE
from fedmedclip.edge_client.serving.answer import NOTICE, Answer, Result

_MOST_CLASSES = 8


def words_of(result: Result, answer: Answer) -> list[str]:
    """Return lines that say the answer, how sure it is, where it comes from, and what it is not for."""
    lines = [f"Frame {result.frame}"] if result.frame is not None else []
    lines += _verdict(result)
    if result.prediction_set is not None and result.outcome == "answered":
        named = ", ".join(result.prediction_set) or "none of the classes"
        level = "" if answer.level is None else f" at level {answer.level:.0%}"
        lines.append(f"Prediction set{level}: {named}")
    if result.explanation is not None and result.explanation.largest_loss < LEAST_LOSS:
        lines.append(SAYS_LITTLE)
    return [*lines, origin_in_words(answer), answer.notice or NOTICE]


def origin_in_words(answer: Answer) -> str:
    """Return which bundle, heads and software answered."""
    return answer.provenance.in_words()


def _verdict(result: Result) -> list[str]:
    if result.outcome == "unreadable":
        return [f"No answer: {result.reason or 'unreadable'}"]
    if result.outcome != "answered":
        return ["No answer: unlike the training images"]
    shares = sorted((result.probabilities or {}).items(), key=lambda item: -item[1])
    lines = [f"Answer: {result.label}"]
    lines += [f"{name}: {share:.3f}" for name, share in shares[:_MOST_CLASSES]]
    if len(shares) > _MOST_CLASSES:
        lines.append(f"and {len(shares) - _MOST_CLASSES} classes more, each below")
    return lines
