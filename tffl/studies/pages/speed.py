"""How fast tffl is, from what `tffl bench` has measured. Targets are claims like any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tffl.studies.bench.defenses import LIMIT
from tffl.studies.benchmark_table import table
from tffl.studies.pages.builder import Page, read_json
from tffl.studies.pages.verdicts import Operator, compare, verdict

DEFENSES = tuple(f"defenses_{model}_{n}" for model in ("cnn", "resnet18") for n in (20, 100))
MEASURED = ("engine", "evaluation", *DEFENSES, "maps", "clients", "on_disk", "cluster")


def collect(runs: Path) -> Mapping[str, Any]:
    """Returns what `tffl bench` has written."""
    return {
        f"{name}.json": found for name in MEASURED if (found := read_json(runs / f"{name}.json"))
    }


def intro(folder: Path) -> str:
    """Says on what kind of machine."""
    return (
        "Measured without a GPU: training and cluster on a machine that did nothing else, all "
        "else but evaluation with priority over other work. Absolute times belong to that machine; "
        "ratios are of more use elsewhere. A target holds if it is reached."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields a section for everything that is measured."""
    found = {name: read_json(folder / f"{name}.json") for name in MEASURED}
    yield from engine(found["engine"])
    yield from evaluation(found["evaluation"])
    yield from defenses({k: v for name in DEFENSES for k, v in found[name].items()})
    yield from maps(found["maps"])
    yield from clients(found["clients"], found["on_disk"])
    yield from cluster(found["cluster"])


def _target(value: float, operator: Operator, border: float) -> str:
    return f"**{verdict([compare(value, operator, border)])}**"


def engine(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about training."""
    if not figures:
        return
    small, many = figures["10_clients_of_600"], figures["50_clients_of_50"]
    low, memory = figures["mixed_bfloat16"], figures["peak_memory"]
    rows = [
        ("10 × 600, against a bare compiled loop", small["engine_against"]["bare"], 0.95),
        ("10 × 600, against Keras' fit", small["engine_against"]["fit"], 1.6),
        ("50 × 50, against Keras' fit", many["engine_against"]["fit"], 5.0),
        ("mixed bfloat16, against float32 fit", low["engine_against"]["fit-float32"], 2.5),
        ("two one-thread devices against one", small["engine_against"]["engine-one-device"], 1.0),
    ]
    yield "## Training (`tffl bench engine`)"
    yield "Ratios of the medians of alternating rounds; `cnn`, batch 64, images of 28 × 28."
    header = ["clients × samples", "ratio", "target: at least", "verdict"]
    lines = [[name, f"{v:.2f}", f"{t:g}", _target(v, ">=", t)] for name, v, t in rows]
    yield table(header, lines)
    if not figures["cpu_has_bfloat16"]:
        yield "This processor has no bfloat16 arithmetic; the library emulates it."
    few, hundred = figures["first_round"]["10_clients"], figures["first_round"]["100_clients"]
    yield (
        f"Tracing and compiling took {few['compile_seconds']:.1f} s with 10 clients and "
        f"{hundred['compile_seconds']:.1f} s with 100: the first round less a later one. A round "
        f"of {memory['clients']} clients needs {memory['steady_round_weight_vectors']:.1f} weight "
        "vectors of memory above model and data at its peak, the first round "
        f"{memory['first_round_weight_vectors']:.1f}; the target is at "
        f"most {memory['allowed_weight_vectors']}."
    )


def evaluation(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about evaluating less often."""
    if not figures:
        return
    yield "## Evaluation (`tffl bench evaluation`)"
    yield (
        f"{figures['rounds']} rounds of an experiment with `{figures['model']}` on "
        f"{figures['dataset']}, with all that a run writes; medians of {figures['repeats']} runs "
        "in turns, without priority, on a machine that did little else."
    )
    rows = [
        [
            name.removeprefix("every_"),
            f"{seconds:.2f}",
            f"{100 * figures['evaluation'][name]:.0f} %",
        ]
        for name, seconds in figures["seconds"].items()
    ]
    yield table(["`record.evaluate_every`", "seconds", "of these, evaluation"], rows)


def defenses(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about rules."""
    if not figures:
        return
    yield "## Defenses (`tffl bench defenses`)"
    yield (
        "Seconds per round, memory above the update matrix and of the whole process, and how many "
        "times as long Flower's function and a naive NumPy version take. This part was measured "
        "with real-time priority beside other work, which also held memory: what did not fit here "
        "may fit elsewhere."
    )
    for title, rules in figures.items():
        yield f"### {title}, a matrix of {rules['matrix_gib']:g} GiB"
        rows = [[name, *_figures(rule)] for name, rule in rules.items() if name != "matrix_gib"]
        header = ["", "seconds", "memory, GiB", "process, GiB", "Flower", "naive NumPy"]
        yield table(header, rows)
    yield _slower(figures)


def _slower(figures: Mapping[str, Any]) -> str:
    """Names the rules that are slower than their naive version anywhere."""
    ratios = [
        (rule["against_numpy"], f"{name} ({title}: {rule['against_numpy']:g} ×)")
        for title, rules in figures.items()
        for name, rule in rules.items()
        if isinstance(rule, dict) and "against_numpy" in rule
    ]
    slower = [text for ratio, text in sorted(ratios) if ratio < 1]
    if not slower:
        return "No rule is slower than its naive version."
    return (
        f"Slower than their naive version: {', '.join(slower)}. tffl computes in float64 and in "
        "blocks, and first looks for values that are not finite, which the naive versions do not."
    )


def _figures(rule: Mapping[str, Any]) -> list[str]:
    if "error" in rule:
        return [rule["error"].splitlines()[0], "", "", "", ""]
    peers = []
    for peer in ("flower", "numpy"):
        ratio, error = rule.get(f"against_{peer}"), rule.get(f"{peer}_error", "")
        if error.startswith("TimeoutError"):
            peers.append(f"> {LIMIT / rule['seconds']:.0f} ×")
        else:
            peers.append("did not fit" if error else f"{ratio:g} ×" if ratio else "–")
    return [f"{rule[key]:g}" for key in ("seconds", "memory_gib", "total_gib")] + peers


def maps(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about heat maps."""
    if not figures:
        return
    yield "## Heat maps (`tffl bench maps`)"
    yield (
        f"{figures['clients']} clients of `{figures['model']}`, {figures['probes']} probe images "
        "of 32 × 32. The seconds of maps, autoencoder and verdict together, and what share they "
        "are of one local epoch of 2,778 images for each client."
    )
    rows = [
        [
            name,
            f"{figures['seconds'][name]:.2f}",
            f"{100 * share:.2f} %",
            "2 %",
            _target(share, "<=", 0.02),
        ]
        for name, share in figures["detectors_against_training"].items()
    ]
    yield table(["", "seconds", "of the training", "target: at most", "verdict"], rows)
    ratio, growth = figures["maps_against_tf_keras_vis"], figures["growth"]
    yield f"The maps alone are {ratio:.1f} × as fast as tf-keras-vis, called once per client."
    yield (
        f"Over {growth['rounds']} rounds judged by {', '.join(growth['parts'])} together, with "
        f"`lenet5`, the process grew by {growth['mib']:.1f} MiB."
    )


def clients(figures: Mapping[str, Any], disk: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about many clients."""
    if figures:
        yield "## Many clients (`tffl bench clients`)"
        yield (
            f"{figures['participants']} clients take part in a round, whatever the number of "
            "registered ones."
        )
        rows = [
            [
                f"{int(name.removesuffix('_clients')):,}",
                f"{one['seconds_per_round']:.2f}",
                f"{one['peak_mib']:.0f}",
            ]
            for name, one in figures.items()
            if name.endswith("_clients")
        ]
        yield table(["registered", "seconds per round", "peak memory, MiB"], rows)
        ratio = figures["last_against_first"]
        yield (
            "The largest number takes "
            f"{ratio['seconds_per_round']:.2f} × the time of the smallest and "
            f"{ratio['peak_mib']:.2f} × its memory."
        )
    if disk:
        runs = disk["defenses"]
        finished = [name for name, run in runs.items() if run["exit_code"] == 0]
        yield (
            f"With `--updates-on-disk` (`tffl bench on-disk`), {disk['clients']} clients of "
            f"`resnet18`, whose updates take {disk['updates'] / 2**30:.1f} GiB, where the kernel "
            f"allows {disk['limit'] / 2**30:.0f} GiB, page cache included: {len(finished)} of "
            f"{len(runs)} runs finished ({', '.join(runs)})."
        )


def cluster(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about many machines."""
    if not figures:
        return
    yield "## Many machines (`tffl bench cluster`)"
    yield (
        f"{figures['clients']} clients of `cnn`: workers of one thread each, on this machine, "
        "against as many local devices of one thread."
    )
    rows = [
        [name.replace("_", " "), f"{value:.2f}", "0.9", _target(value, ">=", 0.9)]
        for name, value in figures["efficiency"].items()
    ]
    yield table(["", "efficiency", "target: at least", "verdict"], rows)
    down, up = (value / 2**20 for value in figures["bytes"].values())
    yield (
        f"The chief sends each worker {down:.1f} MiB in a round, receives {up:.1f} MiB from each "
        f"client, and is busy for {1000 * figures['chief_seconds_per_client']:.0f} ms per client. "
        "From these numbers, a round of 1,000 such clients over links of 1 Gbit/s is estimated, "
        "not measured:"
    )
    rows = [
        [
            name.split("_")[0],
            f"{one['seconds']:.0f}",
            f"{100 * one['efficiency']:.0f} %",
            one["limit"],
        ]
        for name, one in figures["estimate_for_1000_clients"].items()
    ]
    yield table(["workers", "seconds", "share of training", "limited by"], rows)


PAGE = Page("speed", "How fast tffl is", intro, body, collect)
