"""Federated training of small heads on a frozen CLIP, for hospitals with small machines and thin links.

    import fedmedclip

    with fedmedclip.load("bundle", "heads.safetensors") as classifier:
        for prediction in classifier.predict("scans/"):
            print(prediction.path, prediction.label, prediction.probabilities)
        explanation = classifier.explain("scans/00.png")
        print(explanation.label, explanation.probability, explanation.regions.map.round(1))

Whole federations in this process, for a notebook:

    result = fedmedclip.simulate("hospitals/", "bundle", method="fedmedclip", rounds=30)
    print(result.rounds[-1].ensemble, result.total_bytes)

What is in `__all__` is public and kept; everything else may change from one version to the next.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedmedclip.edge_client.inference.classifier import Classifier, Explanation, Prediction, load
    from fedmedclip.edge_client.inference.regions import Regions
    from fedmedclip.protocol.errors import FedMedClipError
    from fedmedclip.simulation.federation.simulate import SimulationResult, simulate

__version__ = "0.2.0"

__all__ = [
    "Classifier",
    "Explanation",
    "FedMedClipError",
    "Prediction",
    "Regions",
    "SimulationResult",
    "load",
    "simulate",
]

_HOMES = {
    "Classifier": "edge_client.inference.classifier",
    "Explanation": "edge_client.inference.classifier",
    "FedMedClipError": "protocol.errors",
    "Prediction": "edge_client.inference.classifier",
    "Regions": "edge_client.inference.regions",
    "SimulationResult": "simulation.federation.simulate",
    "load": "edge_client.inference.classifier",
    "simulate": "simulation.federation.simulate",
}


def __getattr__(name: str) -> object:
    # Imported when asked for, so that `fedmedclip --help` needs neither numpy nor ONNX Runtime.
    if name not in _HOMES:
        raise AttributeError(f"module 'fedmedclip' has no attribute {name!r}")
    return getattr(import_module(f"fedmedclip.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
