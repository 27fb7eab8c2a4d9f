"""Clipping around where the round before went."""

import numpy as np

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, mean_of_few
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Remark, Rule, RuleState, Updates
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions


def centred_clipping(name: NameWithOptions) -> Aggregate:
    """Move the centre by the mean of what sites differ from it, each difference cut to a radius.

    Karimireddy et al. 2021, "Learning from history for Byzantine robust optimization", algorithm 2; the
    centre of the first pass is the delta of the round before, zero in the first round. The radius is that of
    the paper where `radius` gives one, and the lower median of the sites' distances otherwise. `passes` (3)
    repeats it. Sites count alike.

    Bears fewer than half of the sites; each moves the step by at most passes * radius / sites. Memory: three
    heads and what it keeps, one head in float32; each update is read twice a pass. Where all are honest and
    have different data, those that are farther from the others than the median count for less.
    """
    fixed = name.take_number("radius", None, 1e-9, 1e9)
    passes = name.take_integer("passes", 3, range(1, 21))

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            found = mean_of_few(updates, specification)
            return Aggregated(found.delta, dict(found.delta), found.remarks)
        centre = arithmetic.zeros(specification)
        for tensor_name, array in state.items():
            centre[tensor_name] += array
        remarks: list[Remark] = []
        for _ in range(passes):
            away = [arithmetic.distance(update.delta(), centre, specification) for update in updates]
            radius = arithmetic.lower_median(away) if fixed is None else fixed
            moved = {tensor_name: array.copy() for tensor_name, array in centre.items()}
            for update, far in zip(updates, away, strict=True):
                share = (min(1.0, radius / far) if far > 0.0 else 1.0) / len(updates)
                delta = update.delta()
                for tensor_name, array in moved.items():
                    array += share * (delta[tensor_name].astype(np.float64) - centre[tensor_name])
            centre = moved
            remarks = [
                Remark(update.site, "clipped", f"it is {far:.3g} from the centre, counted as {radius:.3g}")
                for update, far in zip(updates, away, strict=True)
                if far > radius
            ]
        delta = arithmetic.rounded(centre)
        return Aggregated(delta, dict(delta), tuple(remarks))

    return aggregate


RULE = Rule(centred_clipping)
