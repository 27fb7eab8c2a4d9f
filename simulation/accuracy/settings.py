"""What `fedmedclip bench accuracy` is asked to do, and what that means for every row."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import USUAL_CODEC
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.privacy import NO_DEMAND, read_privacy
from fedmedclip.simulation.accuracy.cases import Named
from fedmedclip.simulation.accuracy.row_names import DEFAULT_METHOD
from fedmedclip.simulation.federation.dealing import Dealing, read_fractions
from fedmedclip.simulation.federation.experiment import USUAL_ROUNDS, Experiment, Selection, with_codec
from fedmedclip.simulation.federation.run_loop import at_least_one
from fedmedclip.simulation.federation.source import Source
from fedmedclip.simulation.federation.virtual_sites import check_dealing


@dataclass(frozen=True)
class AccuracySettings:
    """What the command is asked to do; see its `--help`. `command` is what was typed, for the report."""

    out: Path
    source: Source
    methods: str = "all"
    training: Path | None = None
    reference: str | None = None
    codec: str | None = None
    rounds: int | None = None
    seeds: str = "0,1,2"
    leave_one_out: bool | None = None
    ablations: bool = True
    command: str = "fedmedclip bench accuracy"
    floors: bool = True
    sites: int | None = None
    alpha: float = 0.5
    sites_per_round: int | None = None
    fractions: str = "70/10/20"
    rule: str | None = None
    select: str = "last"
    privacy: str | None = None

    @property
    def named(self) -> Named:
        """What somebody asked for that methods have their own usual values of."""
        return Named(self.rounds, self.codec)

    def common(self) -> Experiment:
        """Return what all rows share. Raises InvalidInputError for options that cannot be used."""
        at_least_one("--rounds", self.rounds)
        at_least_one("--sites-per-round", self.sites_per_round)
        if self.sites is not None:
            check_dealing(self.sites, self.alpha)
            if self.leave_one_out:
                raise InvalidInputError(
                    "--leave-one-out is for hospitals as they are: a site that is dealt out is another one "
                    "under every seed; leave out --sites, or give --no-leave-one-out"
                )
        if self.select not in get_args(Selection):
            known = get_args(Selection)
            raise InvalidInputError(f"--select: {unknown_name('selection', self.select, known)}")
        experiment = Experiment(
            method=DEFAULT_METHOD,
            rounds=self.rounds or USUAL_ROUNDS,
            rule=self.rule,
            floors=DEFAULT_FLOORS if self.floors else NO_FLOORS,
            dealing=Dealing(self.sites, self.alpha, read_fractions(self.fractions)),
            sites_per_round=self.sites_per_round,
            select=cast(Selection, self.select),
            privacy=NO_DEMAND if self.privacy is None else read_privacy("--privacy", self.privacy),
        )
        return with_codec(experiment, self.codec or USUAL_CODEC)
