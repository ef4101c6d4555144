"""Writes README.md from the JSON files beside it; see run.sh."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tffl.studies.bench.defenses import LIMIT
from tffl.studies.benchmark_table import table

HERE = Path(__file__).parent
SIZES = ("cnn_20", "cnn_100", "resnet18_20", "resnet18_100")


def read(name: str) -> Any:
    """Returns a measurement, or nothing if it has not been made."""
    file = HERE / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def verdict(value: float, target: float, below: bool = False) -> str:
    """Says whether a figure reaches its target."""
    return "yes" if (value <= target if below else value >= target) else "**no**"


def engine(figures: Any) -> Iterator[str]:
    """Yields the lines about training."""
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
    yield "## Training (`tffl bench engine`)\n"
    yield "Ratios of the medians of alternating rounds; `cnn`, batch 64, images of 28 × 28.\n"
    header = ["clients × samples", "ratio", "to reach", "reached"]
    yield table(header, [[n, f"{v:.2f}", f"{t:g}", verdict(v, t)] for n, v, t in rows])
    if not figures["cpu_has_bfloat16"]:
        yield "\nThis processor has no bfloat16 arithmetic; the library emulates it.\n"
    few, hundred = figures["first_round"]["10_clients"], figures["first_round"]["100_clients"]
    yield (
        f"\nTracing and compiling took {few['compile_seconds']:.1f} s with 10 clients and "
        f"{hundred['compile_seconds']:.1f} s with 100 (the first round less a steady one). The "
        f"peak of a round of {memory['clients']} clients is "
        f"{memory['steady_round_weight_vectors']:.1f} weight vectors above model and data, of the "
        f"first {memory['first_round_weight_vectors']:.1f}; to stay within "
        f"{memory['allowed_weight_vectors']}.\n"
    )


def defenses(figures: Any) -> Iterator[str]:
    """Yields the lines about rules."""
    if not figures:
        return
    yield "## Defenses (`tffl bench defenses`)\n"
    yield (
        "Seconds per round, memory above the update matrix, and how many times as long Flower's "
        "function and a naive NumPy version take. This part was measured with real-time priority "
        "beside other work, which also held memory: what did not fit may fit elsewhere.\n"
    )
    for title, rules in figures.items():
        yield f"### {title}, a matrix of {rules['matrix_gib']:g} GiB\n"
        rows = [[name, *_figures(rule)] for name, rule in rules.items() if name != "matrix_gib"]
        header = ["", "seconds", "memory, GiB", "process, GiB", "Flower", "naive NumPy"]
        yield table(header, rows) + "\n"
    yield _slower(figures)


def _slower(figures: Any) -> str:
    """Names the rules that are slower than their naive version somewhere."""
    ratios = [
        (rule["against_numpy"], f"{name} ({title}: {rule['against_numpy']:g} ×)")
        for title, rules in figures.items()
        for name, rule in rules.items()
        if isinstance(rule, dict) and "against_numpy" in rule
    ]
    slower = [text for ratio, text in sorted(ratios) if ratio < 1]
    if not slower:
        return "No rule is slower than its naive version.\n"
    return (
        f"Slower than their naive version: {', '.join(slower)}. tffl computes in float64, "
        "in blocks, and looks for values that are not finite first, which the naive versions do "
        "not.\n"
    )


def _figures(rule: Any) -> list[str]:
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


def maps(figures: Any) -> Iterator[str]:
    """Yields the lines about heat maps."""
    if not figures:
        return
    yield "## Heat maps (`tffl bench maps`)\n"
    shares = figures["detectors_against_training"]
    rows = [
        [
            name,
            f"{figures['seconds'][name]:.2f}",
            f"{100 * share:.2f} %",
            verdict(share, 0.02, True),
        ]
        for name, share in shares.items()
    ]
    yield (
        f"{figures['clients']} clients of `{figures['model']}`, {figures['probes']} probes of "
        "32 × 32: maps, autoencoder and verdict, against one local epoch of 2,778 images for each "
        "client (to stay within 2 %).\n"
    )
    yield table(["", "seconds", "of the training", "reached"], rows)
    ratio = figures["maps_against_tf_keras_vis"]
    yield f"\nThe maps alone are {ratio:.1f} × as fast as tf-keras-vis, called once per client.\n"
    growth = figures["growth"]
    yield (
        f"\nOver {growth['rounds']} rounds of `shield` with `lenet5` the process grew by "
        f"{growth['mib']:.1f} MiB.\n"
    )


def clients(figures: Any, disk: Any) -> Iterator[str]:
    """Yields the lines about many clients."""
    if figures:
        yield "## Many clients (`tffl bench clients`)\n"
        sizes = {name: one for name, one in figures.items() if name.endswith("_clients")}
        rows = [
            [
                f"{int(name.removesuffix('_clients')):,}",
                f"{one['seconds_per_round']:.2f}",
                f"{one['peak_mib']:.0f}",
            ]
            for name, one in sizes.items()
        ]
        yield (
            f"{figures['participants']} clients take part in a round, of so many that are "
            "registered.\n"
        )
        yield table(["registered", "seconds per round", "peak memory, MiB"], rows)
        ratio = figures["last_against_first"]
        yield (
            f"\nThe most against the fewest: {ratio['seconds_per_round']:.2f} × the time, "
            f"{ratio['peak_mib']:.2f} × the memory.\n"
        )
    if disk:
        runs = disk["defenses"]
        held = [name for name, run in runs.items() if run["exit_code"] == 0]
        yield (
            f"\nWith `--updates-on-disk`, {disk['clients']} clients of `resnet18`, whose updates "
            f"take {disk['updates'] / 2**30:.1f} GiB, within {disk['limit'] / 2**30:.0f} GiB that "
            f"the kernel allows, page cache included (`on_disk.py`): {len(held)} of {len(runs)} "
            f"runs came through ({', '.join(runs)}).\n"
        )


def cluster(figures: Any) -> Iterator[str]:
    """Yields the lines about many machines."""
    if not figures:
        return
    yield "## Many machines (`tffl bench cluster`)\n"
    efficiency = figures["efficiency"]
    rows = [
        [name.replace("_", " "), f"{value:.2f}", "0.9", verdict(value, 0.9)]
        for name, value in efficiency.items()
    ]
    yield (
        f"{figures['clients']} clients of `cnn`: workers of one thread each, on this machine, "
        "against as many local devices of one thread.\n"
    )
    yield table(["", "efficiency", "to reach", "reached"], rows)
    down, up = (value / 2**20 for value in figures["bytes"].values())
    yield (
        f"\nThe chief sends each worker {down:.1f} MiB in a round, gets {up:.1f} MiB from each "
        f"client, and is busy for {1000 * figures['chief_seconds_per_client']:.0f} ms per client. "
        "From these, estimated and not measured, a round of 1,000 such clients over links of "
        "1 Gbit/s:\n"
    )
    guess = figures["estimate_for_1000_clients"]
    rows = [
        [
            name.split("_")[0],
            f"{one['seconds']:.0f}",
            f"{100 * one['efficiency']:.0f} %",
            one["limit"],
        ]
        for name, one in guess.items()
    ]
    yield table(["workers", "seconds", "of which workers train", "limit"], rows) + "\n"


def main() -> None:
    """Writes the page."""
    lines = [
        "# How fast tffl is\n",
        f"Made by `bash results/speed/run.sh` on {os.cpu_count()} cores ({platform.machine()}) and "
        "no GPU: training and cluster on an otherwise idle machine, all else with priority beside "
        "other work. Absolute times belong to that machine; ratios travel better.\n",
        *engine(read("engine")),
        *defenses({k: v for name in SIZES for k, v in read(f"defenses_{name}").items()}),
        *maps(read("maps")),
        *clients(read("clients"), read("on_disk")),
        *cluster(read("cluster")),
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
