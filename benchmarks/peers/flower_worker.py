"""Runs in Flower's own environment: one server or one client of a federation of the same FAM.

    flower_worker.py server PORT SITES ROUNDS WORK
    flower_worker.py client PORT WORK SITE

WORK holds `head.npz` (version 0, arrays in order) and, per site, `SITE.npz` and `SITE.json`; the server
leaves `round-N.npz` there. Flower sends whole heads in float32, its default.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def serve(port: int, sites: int, rounds: int, work: Path) -> None:
    """Run FedAvg over all sites in every round."""
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerConfig, start_server
    from flwr.server.strategy import FedAvg

    with np.load(work / "head.npz") as file:
        names = list(file)
        first = [file[name] for name in names]

    def keep(round_number: int, arrays: list[Any], _: dict[str, Any]) -> None:
        np.savez(work / f"round-{round_number}.npz", **dict(zip(names, arrays, strict=True)))

    strategy = FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=sites,
        min_available_clients=sites,
        initial_parameters=ndarrays_to_parameters(first),
        evaluate_fn=keep,
        on_fit_config_fn=lambda round_number: {"round": round_number},
    )
    start_server(
        server_address=f"127.0.0.1:{port}", config=ServerConfig(num_rounds=rounds), strategy=strategy
    )


def train(port: int, work: Path, site: str) -> None:
    """Take part as one site, with the same local training as ours."""
    from flwr.client import NumPyClient
    from flwr.compat.client.app import start_client

    from fedmedclip.edge_client.heads.heads import initial_private_head
    from fedmedclip.edge_client.learning.settings import TrainingSettings
    from fedmedclip.edge_client.learning.training import train_round
    from fedmedclip.protocol.seeds import derive_seed

    about = json.loads((work / f"{site}.json").read_text())
    with np.load(work / "head.npz") as file:
        names = list(file)
    with np.load(work / f"{site}.npz") as file:
        embeddings, labels, captions = file["embeddings"], file["labels"], file["class_embeddings"]
    method, seed = about["method"], about["seed"]

    class Site(NumPyClient):  # type: ignore[misc]  # Flower is not in the environment that is checked.
        private = initial_private_head(method, embeddings.shape[1], len(captions), seed, site)

        def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
            round_number = int(config["round"])
            trained = train_round(
                method,
                dict(zip(names, parameters, strict=True)),
                self.private,
                embeddings,
                labels,
                captions,
                about["logit_scale"],
                TrainingSettings(),
                round_number=round_number,
                seed=derive_seed(seed, site=site, round_number=round_number, purpose="training"),
            )
            self.private = trained.private
            return [trained.shared[name] for name in names], len(labels), {}

    start_client(server_address=f"127.0.0.1:{port}", client=Site().to_client())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", port, sites, rounds, work]:
            serve(int(port), int(sites), int(rounds), Path(work))
        case ["client", port, work, site]:
            train(int(port), Path(work), site)
        case _:
            sys.exit(__doc__)
