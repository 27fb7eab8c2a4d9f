"""`fedmedclip demo` and `fedmedclip bench`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible


def demo_command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of sites, each a folder of classes, with optional global_test/ and classes.toml. "
            "Default: generated phantoms.",
            callback=checked("--data", "folder"),
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="CLIP to export, as for `fedmedclip export`. Default: a small one.")
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="Tag or path of its weights.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Use this bundle instead of exporting a model.", callback=checked("--bundle", "bundle")
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="How the heads train.")] = "fedmedclip",
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds. Default: 10, or as many as the method needs.")
    ] = None,
    broker: Annotated[
        str, typer.Option(help="embedded, mosquitto (started for the demo), or HOST:PORT of a running one.")
    ] = "embedded",
    codec: Annotated[
        str | None, typer.Option(help="How heads are encoded, both ways. Default: the federation's default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    out: Annotated[
        Path,
        typer.Option(
            help="Where everything is written; an earlier demo there is replaced.",
            callback=checked("--out", "new folder"),
        ),
    ] = Path("demo-output"),
    page: Annotated[
        bool, typer.Option(help="Let the aggregator have its page, to watch the federation in a browser.")
    ] = True,
) -> None:
    """Run a whole federation on this machine: export, broker, aggregator, sites, rounds, offline predictions.

    Every part is the real command in a process of its own; its log and its state lie in the output folder.
    """
    # Read when numpy is imported: on few cores, threads for tiny products only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from rich.console import Console

    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.simulation.demo.demo import run_demo
    from fedmedclip.simulation.demo.settings import DemoSettings

    if bundle is not None and (model is not None or pretrained is not None):
        raise InvalidInputError("give either --bundle or --model with --pretrained, not both")
    console = Console()
    settings = DemoSettings(out, data, model, pretrained, bundle, method, rounds, broker, codec, seed, page)
    if console.is_terminal:
        # A person can end it, a script is not kept waiting.
        settings = replace(settings, page_stays_seconds=600.0)
    try:
        run_demo(settings, console)
    except KeyboardInterrupt:
        console.print(f"stopped; what there is so far lies in {visible(out)}", markup=False, soft_wrap=True)
        raise


Out = Annotated[
    Path,
    typer.Option(
        help="Results; finished runs and computed features there are used again.",
        callback=checked("--out", "new folder"),
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of sites, each a folder of classes, as for the demo. Default: generated phantoms.",
        callback=checked("--data", "folder"),
    ),
]
BundleFolder = Annotated[
    Path | None,
    typer.Option(help="Bundle whose encoder gives the features.", callback=checked("--bundle", "bundle")),
]
Features = Annotated[
    Path | None,
    typer.Option(
        help="Instead of --data and --bundle: a .npz with embeddings, labels, sites, class_embeddings, "
        "logit_scale.",
        callback=checked("--features", "file"),
    ),
]
KeepFloors = Annotated[
    bool,
    typer.Option(
        "--floors/--no-floors",
        help="Whether sites and classes of few images tell nothing, as at a real site by default. Off for "
        "sites that are small by design.",
    ),
]
Sites = Annotated[
    int | None, typer.Option(help="Deal all images out again among this many sites, at most 10000.")
]
Alpha = Annotated[
    float, typer.Option(help="Concentration of the Dirichlet distribution with --sites: small is uneven.")
]
SitesPerRound = Annotated[
    int | None, typer.Option(help="How many sites, drawn anew, take part in a round. Default: all.")
]
Rounds = Annotated[
    int | None, typer.Option(help="Number of rounds. Default: 30, or as many as the method needs.")
]
Seeds = Annotated[str, typer.Option(help="Whole numbers with commas between them.")]


bench_app = typer.Typer(no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """Measurements for researchers, on one machine."""


@bench_app.command("bandwidth")
def bandwidth_command(
    out: Out,
    data: Data = None,
    bundle: BundleFolder = None,
    features: Features = None,
    sites: Sites = None,
    alpha: Alpha = 0.5,
    sites_per_round: SitesPerRound = None,
    method: Annotated[str, typer.Option(help="How the heads train.")] = "fedmedclip",
    codecs: Annotated[
        str,
        typer.Option(
            help="Names with commas between them, such as lowrank:rank=4,bits=3; UP/DOWN for two directions."
        ),
    ] = "lossless,paper-fp16-zlib,int8,int4,sign,topk,lowrank",
    rounds: Rounds = None,
    seeds: Seeds = "0,1,2",
    target: Annotated[
        float | None,
        typer.Option(help="Accuracy (0 to 1) to count rounds to. Default: that of lossless less 0.005."),
    ] = None,
    link: Annotated[str, typer.Option(help="Rate of a site's link in each direction.")] = "64kbit/s",
    rtt: Annotated[str, typer.Option(help="Round trip time of a site's link.")] = "600ms",
    floors: KeepFloors = True,
) -> None:
    """Measure accuracy against bytes for many codecs.

    Whole federations run in one process on cached features, and every message is made and counted: the bytes
    of production aggregator and sites. The same command gives the same numbers, times excepted.
    """
    from rich.console import Console

    from fedmedclip.simulation.bandwidth.benchmark import BandwidthSettings, run_bandwidth
    from fedmedclip.simulation.federation.source import Source

    settings = BandwidthSettings(
        out, codecs, seeds, Source(data, bundle, features), sites, alpha, sites_per_round, method, rounds,
        target, link, rtt, floors,
    )  # fmt: skip
    run_bandwidth(settings, Console())


@bench_app.command("accuracy")
def accuracy_command(
    out: Out,
    data: Data = None,
    bundle: BundleFolder = None,
    features: Features = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Names with commas between them: methods, or tables of --training; zero-shot; and of either "
            "local-only:NAME, trained at each site alone, and pooled:NAME, trained on all sites' images in "
            "one place. local-only and pooled alone are fedmedclip's. `all`: every method and table, with "
            "the usual baselines."
        ),
    ] = "all",
    training: Annotated[
        Path | None,
        typer.Option(
            help="TOML with training settings: those at the top for every method, those in a table [NAME] "
            "for that row; `method` in it lets a method have several rows.",
            callback=checked("--training", "file"),
        ),
    ] = None,
    reference_method: Annotated[
        str | None, typer.Option(help="The row that others are compared with. Default: fedmedclip.")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="How heads are encoded; UP/DOWN for two directions. Default: lowrank, or what suits "
            "the method."
        ),
    ] = None,
    rounds: Rounds = None,
    seeds: Seeds = "0,1,2",
    sites: Sites = None,
    alpha: Alpha = 0.5,
    sites_per_round: SitesPerRound = None,
    fractions: Annotated[
        str,
        typer.Option(help="Per cents of a site's images to train, validate and test, such as 60/20/20."),
    ] = "70/10/20",
    rule: Annotated[
        str | None, typer.Option(help="Aggregation rule. Default: a federation's that names none.")
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            help="Whose heads are scored: those of the `last` round, or of the round with the best mean "
            "accuracy on the sites' validation images, `best-validation`."
        ),
    ] = "last",
    privacy: Annotated[
        str | None,
        typer.Option(
            help="What every site's updates keep to, as [privacy] of aggregator.toml has it: "
            "epsilon=8,delta=1e-5,unit=patient. Default: nothing is asked."
        ),
    ] = None,
    leave_one_out: Annotated[
        bool | None,
        typer.Option(
            "--leave-one-out/--no-leave-one-out",
            help="Also train without each hospital in turn, and test on all of its images. Default: unless "
            "there are more than 10, or --sites deals them out.",
        ),
    ] = None,
    ablations: Annotated[
        bool, typer.Option(help="Also switch off each part of the reference method.")
    ] = True,
    quick: Annotated[bool, typer.Option("--quick", help="Neither of the two.")] = False,
    floors: KeepFloors = True,
) -> None:
    """Compare methods on the same data, splits and bytes, and write a report.

    Whole federations run in one process on cached features. Writes report.html, report.md, accuracy.json
    and figures. The same command gives the same numbers, times excepted; stopped, it goes on where it was.
    """
    import shlex
    import sys

    from rich.console import Console

    from fedmedclip.simulation.accuracy.benchmark import run_accuracy
    from fedmedclip.simulation.accuracy.settings import AccuracySettings
    from fedmedclip.simulation.federation.source import Source

    settings = AccuracySettings(
        out, Source(data, bundle, features), methods, training, reference_method, codec, rounds, seeds,
        False if quick else leave_one_out, ablations and not quick,
        visible(shlex.join(["fedmedclip", *sys.argv[1:]])), floors, sites, alpha, sites_per_round, fractions,
        rule, select, privacy,
    )  # fmt: skip
    run_accuracy(settings, Console())


@bench_app.command("robustness")
def robustness_command(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "--output",
            help="Results; finished runs and computed features there are used again.",
            callback=checked("--out", "new folder"),
        ),
    ],
    data: Data = None,
    bundle: BundleFolder = None,
    features: Features = None,
    attacks: Annotated[
        str,
        typer.Option(
            help="Names with commas between them: sign-flip, scale, noise, label-flip, alie, ipm, samples; "
            "with a strength such as ipm:strength=0.5. `none` is always played."
        ),
    ] = "sign-flip,scale,noise,label-flip,alie,ipm,samples",
    rules: Annotated[
        str,
        typer.Option(
            help="Aggregation rules with commas between them, such as trimmed_mean:share=0.2; `all` that are "
            "built in, `default`: a federation's that names none. What does not suit a method is left out."
        ),
    ] = "all",
    attackers: Annotated[int, typer.Option(help="How many of the sites are hostile.")] = 1,
    sites: Annotated[
        str, typer.Option(help="Numbers of sites, with commas between them, to deal the images out among.")
    ] = "5,10",
    alpha: Annotated[
        float, typer.Option(help="Concentration of the Dirichlet distribution: small is uneven.")
    ] = 1.0,
    methods: Annotated[str, typer.Option(help="How the heads train; names with commas.")] = "fedmedclip",
    codec: Annotated[
        str | None,
        typer.Option(
            help="How honest sites encode; UP/DOWN for two directions. Default: lowrank, or what suits the "
            "method."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Number of rounds. Default: 10, or as many as the method needs.")
    ] = None,
    seeds: Seeds = "0,1,2",
    maximum_update_norm: Annotated[
        float, typer.Option(help="The largest norm of an update that the aggregator counts.")
    ] = 1000.0,
) -> None:
    """Let some sites be hostile, under each aggregation rule, and measure what the honest ones lose.

    Whole federations run in one process on cached features, with the production codecs and aggregation. Every
    image stays in the part of its hospital's split: only training images are trained on, only test images are
    tested on. The same command gives the same numbers; stopped, it goes on where it was.
    """
    import shlex
    import sys

    from rich.console import Console

    from fedmedclip.simulation.federation.source import Source
    from fedmedclip.simulation.robustness.benchmark import RobustnessSettings, run_robustness

    settings = RobustnessSettings(
        out, attacks, rules, Source(data, bundle, features), attackers, sites, seeds, rounds, methods, codec,
        alpha, maximum_update_norm, visible(shlex.join(["fedmedclip", *sys.argv[1:]])),
    )  # fmt: skip
    run_robustness(settings, Console())


@bench_app.command("newcomer")
def newcomer_command(
    out: Out,
    data: Data = None,
    bundle: BundleFolder = None,
    features: Features = None,
    methods: Annotated[
        str, typer.Option(help="How the heads train: names with commas between them, or `all`.")
    ] = "fedmedclip,whitened-memory,linear-probe",
    pooled: Annotated[
        str, typer.Option(help="Methods that also train on all images in one place; the first is `pooled`.")
    ] = "fedmedclip,whitened-memory,linear-probe",
    labels: Annotated[
        str,
        typer.Option(
            help="How many labelled images of each class the newcomer has: numbers with commas, or all."
        ),
    ] = "0,1,2,4,8,16,all",
    codec: Annotated[
        str | None,
        typer.Option(
            help="How heads are encoded; UP/DOWN for two directions. Default: lowrank, or what suits "
            "the method."
        ),
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="Aggregation rule. Default: that of a federation that names none.")
    ] = None,
    rounds: Rounds = None,
    seeds: Seeds = "0,1,2",
    missing_class: Annotated[
        bool,
        typer.Option(
            help="Also let the newcomer never have seen one of its classes, with the most of --labels."
        ),
    ] = True,
    floors: KeepFloors = True,
) -> None:
    """Let each hospital in turn join with few labelled images, and measure what the others give it.

    The others are the federation with all of their training images. A newcomer below the floors trains its
    private head beside it and sends nothing, as a real site does. The same command gives the same numbers;
    stopped, it goes on where it was.
    """
    import shlex
    import sys

    from rich.console import Console

    from fedmedclip.simulation.federation.source import Source
    from fedmedclip.simulation.newcomer.benchmark import NewcomerSettings, run_newcomer

    settings = NewcomerSettings(
        out, Source(data, bundle, features), methods, pooled, labels, seeds, codec, rule, rounds,
        missing_class, floors, visible(shlex.join(["fedmedclip", *sys.argv[1:]])),
    )  # fmt: skip
    run_newcomer(settings, Console())
